"""Who speaks: whose mouth moves while there is a voice. Light: no network, pictures of tracked faces only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from affuse.media.tracks import Track, spans_of

VOICE_STEP = 0.032  # s per value of a voice-activity curve, unless stated
# In the aligned face of 112 pixels (x0, y0, x1, y1): the mouth, and what moves with the head alone
MOUTH, HEAD = (36.0, 80.0, 76.0, 108.0), (24.0, 32.0, 88.0, 76.0)
NOISE = 1.0  # grey levels of change that a still face in a compressed picture may show
AGITATED = 3.0  # a mouth that changes more than this many times as much as the head counts no further
PICTURES = 100  # crops that are compared at a time: 0.2 MB of numbers for each
LAG = 0.1  # s between the two crops that are compared: a syllable takes two of them
NEAR, WIDE = 1.0, 4.0  # s over which motion is averaged, and over which it is correlated with the voice
STEADY = 0.02  # variance of the voice below which its pauses mean little
SPEAKS = 0.6  # score from which on a face speaks: silent real faces stay below 0.5 at 10 fps, talking ones pass 1
SHORTEST, JOIN = 0.4, 0.5  # s: the shortest span of speech, and the longest hole in one
RIVAL = 0.5  # share of the best score at that moment that a second speaker must reach


def speaking(
    tracks: Sequence[Track], voice: np.ndarray, fps: float, margin: float = 0.2, voice_step: float = VOICE_STEP
) -> list[list[tuple[float, float]]]:
    """Spans (s) in which each track speaks; empty for a still face under a voice (voice-over).

    tracks: with aligned crops uint8 [K, size, size, 3] as views, on a grid of `fps` steps per second (10 or more is
    best); `margin` as in `faces.template`; voice [V]: probability of a voice, 0..1, every `voice_step` s from time 0.
    """
    return who_speaks([(track.steps, mouth_motion(track, fps, margin)) for track in tracks], voice, fps, voice_step)


def who_speaks(
    mouths: Sequence[tuple[np.ndarray, np.ndarray]], voice: np.ndarray, fps: float, voice_step: float = VOICE_STEP
) -> list[list[tuple[float, float]]]:
    """`speaking` from what it makes of the tracks: each one's steps [K] and `mouth_motion` [K]."""
    length = max((int(steps[-1]) + 1 for steps, _ in mouths if len(steps)), default=0)
    scores = np.zeros((len(mouths), length))
    for row, (steps, motion) in zip(scores, mouths, strict=True):
        row[steps] = speaking_score(steps, motion, voice, fps, voice_step)
    loud = scores >= np.maximum(SPEAKS, RIVAL * scores.max(0, initial=0))
    found = [spans_of(np.flatnonzero(row), fps, JOIN) for row in loud]
    return [[(a, b) for a, b in spans if b - a >= SHORTEST - 1e-6] for spans in found]


def speaking_score(
    steps: np.ndarray, motion: np.ndarray, voice: np.ndarray, fps: float, voice_step: float = VOICE_STEP
) -> np.ndarray:
    """How much a face seems to speak at each of its steps [K], 0..2; `speaking` asks for 0.6.

    motion [K] from `mouth_motion`. The score is the excess motion while the voice is there, averaged over 1 s, times
    the voice there; motion that goes against the voice within 4 s (chewing while another speaks) takes it away.
    """
    if len(steps) == 0:
        return np.zeros(0)
    first, steps = steps[0], steps - steps[0]
    voiced = _means(voice, (np.arange(steps[-1] + 1) + first) / fps, 1 / fps, voice_step)
    visible = np.zeros(len(voiced))
    moves = np.zeros(len(voiced))
    visible[steps] = np.isfinite(motion)
    moves[steps] = np.clip(np.nan_to_num(motion) - 1, 0, AGITATED - 1)
    near, wide = (max(1, round(seconds * fps / 2)) for seconds in (NEAR, WIDE))
    level = _window(visible * voiced * moves, near) / np.maximum(_window(visible * voiced, near), 1e-6)
    count = np.maximum(_window(visible, wide), 1)
    mean_v, mean_m = _window(visible * voiced, wide) / count, _window(visible * moves, wide) / count
    shared = _window(visible * voiced * moves, wide) / count - mean_v * mean_m
    spread_v = _window(visible * voiced**2, wide) / count - mean_v**2
    spread_m = _window(visible * moves**2, wide) / count - mean_m**2
    together = shared / np.sqrt((spread_v.clip(0) + STEADY) * (spread_m.clip(0) + STEADY))
    present = _window(visible * voiced, near) / np.maximum(_window(visible, near), 1)
    return (level * np.clip(1 + 2 * together, 0, 1) * np.clip(2 * present, 0, 1) * (voiced >= 0.25))[steps]


def mouth_motion(track: Track, fps: float, margin: float = 0.2) -> np.ndarray:
    """Change of the mouth within 0.1 s (one step if longer), in units of the head's [K]; NaN where a crop is missing.

    From the views (aligned crops): the head's shift, turn, zoom and change of light between two crops are fitted by
    linear least squares to the upper face, and taken off both regions. What is left of the upper face is noise and
    misfit, so a still face gives about 1 whatever camera and head do; a talking mouth gives 2 and more.
    """
    motion = np.full(len(track.steps), np.nan)
    earlier = track.steps - max(1, round(LAG * fps))
    before = np.searchsorted(track.steps, earlier)
    after = np.flatnonzero(track.steps[before] == earlier)
    before = before[after]
    for k in range(0, len(after), PICTURES):
        late, early = after[k : k + PICTURES], before[k : k + PICTURES]
        grey = _blurred(track.views[early[0] : late[-1] + 1].astype(np.float32).mean(-1))
        motion[late] = _excess(grey[early - early[0]], grey[late - early[0]], margin)
    return motion


def _excess(before: np.ndarray, after: np.ndarray, margin: float) -> np.ndarray:
    """Change of the mouth between pictures [N, H, W] in units of the head's, what moves both taken off [N]."""
    change, middle = after - before, (after + before) / 2
    head, mouth = (_region(box, after.shape[1], margin) for box in (HEAD, MOUTH))
    causes = _causes(middle)
    a, b = causes[:, *head].reshape(len(after), -1, 5), change[:, *head].reshape(len(after), -1, 1)
    square = a.transpose(0, 2, 1) @ a
    ridge = 1e-4 * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(5, dtype=np.float32) + 1e-6 * np.eye(5)
    fit = np.linalg.solve(square + ridge, a.transpose(0, 2, 1) @ b)
    rest = change - (causes @ fit[:, None])[..., 0]
    of_head, of_mouth = (np.sqrt((rest[:, *part] ** 2).mean((1, 2))) for part in (head, mouth))
    return of_mouth / np.maximum(of_head, NOISE)


def _causes(pictures: np.ndarray) -> np.ndarray:
    """First-order change of pictures [N, H, W] per unit of shift x and y, zoom, turn and light: [N, H, W, 5]."""
    down, right = np.gradient(pictures, axis=(1, 2))
    axis = np.linspace(-1, 1, pictures.shape[1], dtype=np.float32)
    x, y = axis[None, None], axis[None, :, None]
    return np.stack([right, down, right * x + down * y, down * x - right * y, np.ones_like(right)], -1)


def _region(box: tuple[float, ...], size: int, margin: float) -> tuple[slice, slice]:
    """Rows and columns of a box of the 112-pixel template in a crop of `size` pixels."""
    x0, y0, x1, y1 = (round(((v - 56) / (1 + margin) + 56) * size / 112) for v in box)
    return slice(max(1, y0), min(size - 1, y1)), slice(max(1, x0), min(size - 1, x1))


def _blurred(pictures: np.ndarray) -> np.ndarray:
    """Binomial 3 x 3 filter of pictures [N, H, W], edges repeated."""
    for axis in (1, 2):
        padded = np.pad(pictures, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = (np.take(padded, np.arange(pictures.shape[axis]) + k, axis) for k in (0, 2))
        pictures = (before + 2 * pictures + after) / 4
    return pictures


def _means(curve: np.ndarray, ends: np.ndarray, width: float, step: float) -> np.ndarray:
    """Mean of a step curve (`step` s per value, 0 outside) over [end - width, end] for each of `ends` (s)."""
    total = np.concatenate([[0.0], np.cumsum(curve, dtype=np.float64)]) * step
    edges = np.arange(len(total)) * step
    return (np.interp(ends, edges, total) - np.interp(ends - width, edges, total)) / width


def _window(values: np.ndarray, half: int) -> np.ndarray:
    """Sum over the `half` steps to either side of each step and itself."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    return total[np.minimum(at + half + 1, len(values))] - total[np.maximum(at - half, 0)]
