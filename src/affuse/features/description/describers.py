"""What is found in a clip: expressions of the face, how the voice sounds, the words."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from affuse.core import io
from affuse.core.types import Modality
from affuse.features.audio_expert import AudioExpert
from affuse.features.description.cues import Cue
from affuse.features.face_expert import FaceExpert
from affuse.features.networks import affuse_base
from affuse.features.prosody import Prosody

if TYPE_CHECKING:
    from affuse.media.clip import Clip

QUIET = -60.0  # dB of full scale below which nothing is audible
LEAST = 6  # voiced frames (10 ms each) that make a voice
PAUSE = 25  # frames without voice between voiced ones that make a pause


class FaceDescriber:
    """Cues of the picture, from affuse-base's vision expert on the most prominent face.

    `face`: the share of pictures that show it, 0 where there is none. Then the mean probability of each expression over
    those pictures, the likeliest first: a mean, as the maximum over pictures says the same of almost every clip.
    """

    modality: Modality = "vision"
    costly = True
    version = 1

    def __init__(self, fps: float = 5.0) -> None:
        self.fps, self._expert = fps, FaceExpert(fps=fps)

    @cached_property
    def identity(self) -> str:
        """Version, rate and weights."""
        return io.digest(["face", self.version, self.fps, self._expert.weights_hash])

    def describe(self, clip: Clip) -> list[Cue]:
        """The cues of the clip's picture; none without one."""
        found = self._expert(clip) if clip.has_video else None
        if found is None or not len(found.values):
            return []
        there = np.ones(len(found.values), bool) if found.valid is None else found.valid
        cues = [Cue("face", float(there.mean()), "vision", 0.0, clip.duration)]
        if not there.any():
            return cues
        first, last = np.flatnonzero(there)[[0, -1]] / self.fps
        return cues + _expressions(found.values[there].mean(0), "vision", float(first), float(last + 1 / self.fps))


class VoiceDescriber:
    """Cues of the sound, from pitch and loudness (extractor `prosody`) and affuse-base's audio expert.

    `sound`, `voice`: the shares of the time that are audible and voiced, `voice` 0 for less than 60 ms; a periodic
    sound that is none, such as music, counts too. With a voice also, over its voiced frames: `pitch` (median, Hz),
    `pitch variation` (10th to 90th percentile, semitones), `loudness` (90th percentile, dB of full scale), `loudness
    variation` (10th to 90th percentile, dB), `speech rate` (beginnings of voice per second), `pausing` (share of the
    time from the first to the last voiced frame that lies in pauses of 0.25 s or more); then the probability of each
    emotion, the likeliest first.
    """

    modality: Modality = "audio"
    costly = True
    version = 1

    def __init__(self) -> None:
        self._prosody, self._expert = Prosody(), AudioExpert()

    @cached_property
    def identity(self) -> str:
        """Version and weights."""
        return io.digest(["voice", self.version, self._expert.weights_hash])

    def describe(self, clip: Clip) -> list[Cue]:
        """The cues of the clip's sound; none without one."""
        found = self._prosody(clip) if clip.has_audio else None
        if found is None or found.coverage == 0:
            return []
        recorded = np.ones(len(found.values), bool) if found.valid is None else found.valid
        audible = recorded & (found.values[:, 1] > QUIET)
        voiced = audible & (found.values[:, 0] > 0)
        voice = float(voiced.sum() / recorded.sum()) if voiced.sum() >= LEAST else 0.0
        shares = {"sound": float(audible.sum() / recorded.sum()), "voice": voice}
        cues = [Cue(name, share, "audio", 0.0, clip.duration) for name, share in shares.items()]
        if not voice:
            return cues
        rate = self._prosody.spec.rate
        first, last = np.flatnonzero(voiced)[[0, -1]]
        start, end = float(first / rate), min(clip.duration, float((last + 1) / rate))
        measured = prosody(found.values[first : last + 1], voiced[first : last + 1], rate)
        cues += [Cue(name, value, "audio", start, end) for name, value in measured.items()]
        emotion = self._expert(clip)
        return cues + (_expressions(emotion.values[0], "audio", start, end) if emotion.coverage else [])


def prosody(values: np.ndarray, voiced: np.ndarray, rate: float) -> dict[str, float]:
    """The measures of `VoiceDescriber` of frames [T, 3] (pitch in semitones above 27.5 Hz, dB, voicing) at `rate` Hz.

    `voiced` [T] bool, True at both ends.
    """
    pitch, loudness = values[voiced, 0], values[voiced, 1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], voiced.astype(np.int8), [0]])))
    gaps = edges[2::2] - edges[1:-1:2]  # from each end of voice to the next beginning
    return {
        "pitch": float(27.5 * 2 ** (np.median(pitch) / 12)),
        "pitch variation": _spread(pitch),
        "loudness": float(np.percentile(loudness, 90)),
        "loudness variation": _spread(loudness),
        "speech rate": float(len(edges) / 2 / len(voiced) * rate),
        "pausing": float(gaps[gaps >= PAUSE].sum() / len(voiced)),
    }


class WordsDescriber:
    """The cue of the words: `words`, as they were said; none where nothing was."""

    modality: Modality = "text"
    costly = False
    identity = "words-1"

    def describe(self, clip: Clip) -> list[Cue]:
        """The words with their times, as far as these are known."""
        words = " ".join((clip.text or "").split())
        times = clip.word_times or ((0.0, clip.duration),)
        return [Cue("words", words, "text", times[0][0], times[-1][1])] if words else []


def _expressions(vector: np.ndarray, modality: Modality, start: float, end: float) -> list[Cue]:
    """The probabilities at the end of an expert's vector by their label, the likeliest first."""
    labels = affuse_base.base()[0].tasks["emotion"].space.labels
    p = vector[-len(labels) :]
    return [Cue(labels[i], float(p[i]), modality, start, end) for i in np.argsort(-p, kind="stable")]


def _spread(x: np.ndarray) -> float:
    low, high = np.percentile(x, [10, 90])
    return float(high - low)
