"""Whether there is a voice in sound: a probability per 32 ms.

The detector is Silero VAD 6 (MIT): its small network is written out here and reads its weights from the installed
`silero-vad` wheel, without importing that package or running its TorchScript. (The wheel's safetensors file is an
older generation of weights than its models.) Where the wheel is missing, an energy detector takes its place.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from affuse.core import io
from affuse.core.errors import BadFeatures, MissingDependency, UnknownName

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
QUIET = -60.0  # dB of full scale below which nothing is audible
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
        x = np.concatenate([before, steps(chunk).ravel()])
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
    power = [np.square(steps(chunk), dtype=np.float64).mean(1) for chunk in chunks]
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
    audible = np.where(level > QUIET, level, np.nan)
    around = [audible[edges[max(0, i - 1)] : edges[min(count, i + 2)]] for i in range(count)]
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


def steps(samples: np.ndarray) -> np.ndarray:
    """Samples [n] as steps [ceil(n / 512), 512]; the last is filled up with zeros."""
    return np.pad(samples, (0, -len(samples) % SAMPLES)).reshape(-1, SAMPLES)
