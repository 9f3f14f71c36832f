"""Where somebody speaks: a probability of voice per 32 ms, and the stretches of speech that follow from it.

The detector is Silero VAD 6 (MIT): its small network is written out here and reads its weights from the installed
`silero-vad` wheel, without importing that package or running its TorchScript. (The wheel's safetensors file is an
older generation of weights than its models.) Where the wheel is missing, an energy detector takes its place.
"""

from __future__ import annotations

import importlib.util
import math
import zipfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from affuse.core import io
from affuse.core.errors import BadConfig, BadFeatures, MissingDependency, UnknownName
from affuse.media.audio import iter_audio
from affuse.media.probe import probe

Detector = Literal["auto", "silero", "energy"]
RATE = 16000
SAMPLES = 512  # of one step
STEP = SAMPLES / RATE  # s
CONTEXT = 64  # samples of the step before that the network sees again
CHUNK = 1024 * SAMPLES  # samples that are in memory at a time
SHA256 = "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720"
FIRST = 2  # storage of the archive at which the 16 kHz network begins, in the order of its layers
INSTALL = "pip install silero-vad==6.2.3"

MARGIN, SLOPE = 12.0, 2.0  # dB over the noise at which the energy detector says 0.5, dB per unit of log odds
QUIET = -60.0  # dB of full scale below which nothing is heard
FLOOR_STEPS = 312  # steps (10 s) per estimate of the noise, which looks one estimate to either side


class SileroVAD(nn.Module):
    """Silero VAD 6 for 16 kHz: steps [T, 64 + 512] in time order, state -> probability of voice [T], new state.

    A magnitude spectrum (a convolution with fixed kernels), four convolutions that shrink a step to one vector,
    and one LSTM over the steps. https://github.com/snakers4/silero-vad
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x = nn.functional.pad(x.unsqueeze(1), (0, CONTEXT), mode="reflect")
        real, imaginary = self.stft_conv(x).chunk(2, dim=1)
        x = (real.square() + imaginary.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        hidden, state = self.lstm(x.transpose(1, 2), state)  # [T, 1, 128]: time first, a batch of one
        return self.final_conv(hidden.relu().transpose(1, 2)).sigmoid().flatten(), state


@lru_cache(maxsize=1)
def load() -> SileroVAD:
    """The network with the wheel's weights, frozen. Raises MissingDependency, or BadFeatures for other weights."""
    path = _weights()
    if path is None:
        raise MissingDependency("speech detection needs the weights of the 'silero-vad' package", INSTALL)
    if (found := io.file_sha256(path)) != SHA256:
        raise BadFeatures(f"{path} has SHA-256 {found[:12]}..., not {SHA256[:12]}...", INSTALL)
    net = SileroVAD()
    state = net.state_dict()
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        stored = [archive.read(f"{root}/data/{i}") for i in range(FIRST, FIRST + len(state))]
    arrays = [torch.frombuffer(bytearray(data), dtype=torch.float32) for data in stored]
    net.load_state_dict({k: x.view_as(state[k]) for k, x in zip(state, arrays, strict=True)})
    return net.eval().requires_grad_(False)


def available() -> Literal["silero", "energy"]:
    """The detector that "auto" stands for here."""
    return "energy" if _weights() is None else "silero"


def _weights() -> Path | None:
    """The weight file in the installed wheel, found without importing it."""
    spec = importlib.util.find_spec("silero_vad")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(folder) / "data" / "silero_vad.jit" for folder in folders]
    return next((file for file in files if file.is_file()), None)


def voice_activity(blocks: Iterable[np.ndarray], detector: Detector = "auto") -> np.ndarray:
    """Probability of voice, float32 [ceil(n / 512)], for 16 kHz mono float32 samples [n] in blocks of any length.

    The blocks' borders change nothing, and only about 30 s are held at a time (plus 4 bytes per 32 ms for the
    answer). "energy" (see `energy`) stands in for "silero" where its wheel is missing.
    Raises MissingDependency if "silero" is asked for without the wheel, UnknownName for no detector.
    """
    if detector not in get_args(Detector):
        raise UnknownName.among("detector of speech", detector, get_args(Detector))
    name = available() if detector == "auto" else detector
    found = {"silero": silero, "energy": energy}[name](_chunks(blocks))
    return np.concatenate([np.zeros(0, np.float32), *found])


def silero(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Silero's probability per step of each chunk; all chunks but the last hold whole steps."""
    net, state, before = load(), None, np.zeros(CONTEXT, np.float32)
    for chunk in chunks:
        x = np.concatenate([before, _steps(chunk).ravel()])
        before = x[-CONTEXT:]
        frames = np.lib.stride_tricks.sliding_window_view(x, CONTEXT + SAMPLES)[::SAMPLES]
        with torch.inference_mode():
            probability, state = net(torch.from_numpy(frames.copy()), state)
        yield probability.numpy()


def energy(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """How far each step stands out of the noise, as a probability: 0.5 at 12 dB above the local noise floor.

    The floor is the 10th percentile of the levels of the 20-30 s around. This detector knows loudness only: speech,
    music with rhythm, applause and slamming doors are all the same to it; steady noise, hum and held tones are not
    voice, and neither is silence. It needs no weights.
    """
    power = [np.square(_steps(chunk), dtype=np.float64).mean(1) for chunk in chunks]
    level = 10 * np.log10(np.concatenate([np.zeros(0), *power]) + 1e-12)
    if len(level):
        odds = (level - np.maximum(_floor(level), QUIET) - MARGIN) / SLOPE
        yield (1 / (1 + np.exp(-np.clip(odds, -30, 30)))).astype(np.float32)


def _floor(level: np.ndarray) -> np.ndarray:
    """The noise floor [T] (dB) under levels [T]: percentiles per 10 s and its neighbours, then a line between them.

    Steps below QUIET are not recorded noise but edits and gaps, and do not count.
    """
    count = max(1, round(len(level) / FLOOR_STEPS))
    edges = np.linspace(0, len(level), count + 1).astype(int)
    heard = np.where(level > QUIET, level, np.nan)
    around = [heard[edges[max(0, i - 1)] : edges[min(count, i + 2)]] for i in range(count)]
    floor = [np.nanpercentile(x, 10) if np.isfinite(x).any() else QUIET for x in around]
    return np.interp(np.arange(len(level)), (edges[1:] + edges[:-1]) / 2, floor)


def _chunks(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples in chunks of CHUNK; the last is shorter."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(np.asarray(block, np.float32))
        count += len(block)
        if count >= CHUNK:
            x = np.concatenate(held)
            yield from x[: count // CHUNK * CHUNK].reshape(-1, CHUNK)
            held = [x[count // CHUNK * CHUNK :].copy()]
            count %= CHUNK
    if count:
        yield np.concatenate(held)


def _steps(samples: np.ndarray) -> np.ndarray:
    """[ceil(n / 512), 512]; the last step is filled up with zeros."""
    return np.pad(samples, (0, -len(samples) % SAMPLES)).reshape(-1, SAMPLES)


def speech_segments(
    probability: np.ndarray,
    *,
    threshold: float = 0.5,
    release: float = 0.35,
    min_speech: float = 0.25,
    min_silence: float = 0.4,
    pad: float = 0.1,
    longest: float = 12.0,
    step: float = STEP,
) -> list[tuple[float, float]]:
    """(start, end) in s of the stretches of speech, in order and without overlap, from probabilities [T] per step.

    Speech begins at `threshold` and ends below `release`; pauses shorter than `min_silence` are bridged, then what is
    shorter than `min_speech` is dropped. Stretches get `pad` at either side (at most half of the pause between
    two), and those longer than `longest` are cut where voice is least probable in their middle half.
    Raises BadConfig for limits that contradict each other.
    """
    if not 0 <= release <= threshold <= 1:
        raise BadConfig(f"speech cannot begin at {threshold} and end below {release}", "0 <= release <= threshold <= 1")
    if longest < 4 * step or min(min_speech, min_silence, pad) < 0:
        raise BadConfig(
            f"cannot cut speech with min_speech {min_speech}, min_silence {min_silence}, pad {pad}, longest {longest} s",
            f"none may be negative, and longest must be at least {4 * step:g}",
        )
    starts, ends = _stretches(probability, threshold, release) * step
    joined = starts[1:] - ends[:-1] < min_silence - 1e-9
    starts, ends = starts[np.r_[True, ~joined][: len(starts)]], ends[np.r_[~joined, True][: len(ends)]]
    long_enough = ends - starts >= min_speech - 1e-9
    starts, ends = starts[long_enough], ends[long_enough]
    room = np.concatenate([starts[:1], (starts[1:] - ends[:-1]) / 2, len(probability) * step - ends[-1:]])
    starts, ends = starts - np.minimum(pad, room[:-1]), ends + np.minimum(pad, room[1:])
    return [piece for a, b in zip(starts, ends, strict=True) for piece in _cut(probability, a, b, longest, step)]


def _stretches(probability: np.ndarray, threshold: float, release: float) -> np.ndarray:
    """First steps and steps after the last, [2, stretches], of the stretches with hysteresis."""
    decided = (probability >= threshold) | (probability < release)
    latest = np.maximum.accumulate(np.where(decided, np.arange(len(probability)), -1))
    active = (latest >= 0) & (probability[latest] >= threshold)
    return np.flatnonzero(np.diff(active, prepend=False, append=False)).reshape(-1, 2).T


def _cut(probability: np.ndarray, start: float, end: float, longest: float, step: float) -> list[tuple[float, float]]:
    """[start, end) s in pieces of at most `longest`, cut at the weakest step of the middle half (again and again)."""
    if end - start <= longest + 1e-9:
        return [(float(start), float(end))]
    quarter = (end - start) / 4
    first, last = math.ceil((start + quarter) / step), math.floor((end - quarter) / step)
    middle = probability[first : last + 1]
    # A saturated detector has no weakest step: the slight slope then prefers the centre.
    weakest = np.argmin(middle + 1e-3 * np.abs(np.linspace(-1, 1, len(middle))))
    at = (first + weakest) * step
    return _cut(probability, start, at, longest, step) + _cut(probability, at, end, longest, step)


def find_speech(
    path: Path | str,
    start: float = 0.0,
    end: float | None = None,
    *,
    detector: Detector = "auto",
    longest: float = 12.0,
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """(probability of voice per 32 ms [T], stretches of speech in s) of [start, end) s of a clip.

    Times are seconds on the clip's clock; what was not recorded (late sound, gaps) is no speech. A clip
    without sound has no steps. Sound is read in bounded blocks, so hours need no more memory than minutes.
    Raises MissingFile, BadMedia.
    """
    info = probe(path)
    end = info.duration if end is None else end
    if info.audio is None or end <= start:
        return np.zeros(0, np.float32), []
    heard: list[np.ndarray] = []

    def blocks() -> Iterator[np.ndarray]:
        for block in iter_audio(path, RATE, start, end, seconds=CHUNK / RATE):
            heard.append(_steps(block.valid).mean(1) >= 0.5)
            yield block.samples

    probability = voice_activity(blocks(), detector)
    if not heard:  # shorter than a sample
        return np.zeros(0, np.float32), []
    probability *= np.concatenate(heard)
    segments = speech_segments(probability, longest=longest)
    return probability, [(start + a, min(start + b, end)) for a, b in segments if start + a < end]
