"""Hidden states of pretrained speech encoders: wav2vec 2.0, HuBERT, WavLM, data2vec, Whisper."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from affuse.core import io
from affuse.core.errors import BadConfig
from affuse.core.types import Feature, StreamSpec
from affuse.features.networks import pretrained
from affuse.features.networks.pretrained import Known
from affuse.features.waveform import muted

if TYPE_CHECKING:
    from torch import Tensor

    from affuse.media.clip import Clip

CARD = {
    "summary": "hidden states of a pretrained speech encoder (wav2vec 2.0, HuBERT, WavLM, data2vec, Whisper), 50 per "
    "second",
    "source": "Baevski et al. 2020; Hsu et al. 2021; Chen et al. 2022; Baevski et al. 2022; Radford et al. 2023; "
    "Wagner et al. 2023",
    "entry": "SpeechModel",
    "modalities": ["audio"],
    "licence": "the model's own: wav2vec2, hubert, data2vec, whisper Apache-2.0; emotion CC BY-NC-SA 4.0 (not "
    "commercial)",
    "version": 1,
    "extra": "text",
    "packages": ["transformers"],
    "download": "from the Hugging Face hub into its cache, 290 to 661 MB; or model=FOLDER. Hub pages that hold "
    "pytorch_model.bin alone (wav2vec2-base, hubert-base, wavlm-base-plus, data2vec-base) are converted once: "
    "AutoModel.from_pretrained(ID).save_pretrained(FOLDER), with their preprocessor_config.json copied into it",
    "rate": "50",
    "dim": "of the model: 512 (whisper-base), 768 (base), 1024 (large, emotion)",
}
KNOWN = {
    "wav2vec2-base": Known("facebook/wav2vec2-base", 380, "Apache-2.0", revision="refs/pr/2"),
    "wav2vec2-base-960h": Known("facebook/wav2vec2-base-960h", 378, "Apache-2.0"),
    "hubert-base": Known("facebook/hubert-base-ls960", 378, "Apache-2.0", revision="refs/pr/2"),
    "wavlm-base-plus": Known(
        "microsoft/wavlm-base-plus", 378, "MIT or CC BY-SA 3.0: its sources differ, see its card", revision="refs/pr/1"
    ),
    "data2vec-base": Known("facebook/data2vec-audio-base", 373, "Apache-2.0"),
    "whisper-base": Known("openai/whisper-base", 290, "Apache-2.0"),
    "emotion": Known("audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim", 661, "CC BY-NC-SA 4.0"),
}
WAVEFORM = ("wav2vec2", "wav2vec2-conformer", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")
CONTEXT = 2.0  # s on each side; the position convolutions of these models reach 1.3 s


class Grid(NamedTuple):
    """Where the steps lie, in samples: step k covers `field` samples from k * stride on, its time is `centre` later.

    A sound of fewer than `least` samples has no step.
    """

    stride: int
    field: int
    centre: int
    least: int

    def steps(self, samples: int) -> int:
        """Number of steps in a sound."""
        return max(0, (samples - self.least) // self.stride + 1)


class Sound(NamedTuple):
    """What was recorded of a clip's sound: scaled samples [n], `valid` [n], from the clip's sample `first` on."""

    samples: np.ndarray
    valid: np.ndarray
    first: int


class SpeechModel:
    """Clip -> [T, D] hidden states; step k stands at the middle of its receptive field (t0 = 12.5 ms; Whisper: 0).

    `model`: short name, folder in transformers' format or hub id. `layers` stand side by side, or are added up by
    `weights`: 0 is the input of the first block, -1 what the model gives out. Sound is scaled to mean 0 and variance 1
    over what was recorded of the whole clip, where the model's preprocessor_config.json says so. Unrecorded ends (and
    runs of 1 s or more of exact zeros) are cut away and move t0, gaps inside are invalid steps. The network gets
    `chunk` seconds at once (Whisper: at most its 30 s), a longer clip in equal windows, with 2 s more on each side
    that are dropped afterwards. `pool` "mean": the mean over valid steps [1, D]. Clips run one by one, never
    padded.
    """

    def __init__(
        self,
        *,
        model: str = "wav2vec2-base",
        layers: tuple[int, ...] = (-1,),
        weights: tuple[float, ...] = (),
        pool: Literal["none", "mean"] = "none",
        chunk: float = 30.0,
    ) -> None:
        if not layers:
            raise BadConfig("speech_model.layers is empty", "give at least one layer, -1 is the last")
        if not 3 * CONTEXT <= chunk < math.inf:
            raise BadConfig(
                f"speech_model.chunk = {chunk} s leaves too little between its contexts, or has no end",
                f"give {3 * CONTEXT:g} or more",
            )
        self.model, self.layers, self.weights, self.pool, self.chunk = model, tuple(layers), tuple(weights), pool, chunk

    @cached_property
    def folder(self) -> Path:
        """Where the model's files are; MissingDependency says how to get them."""
        return pretrained.find(self.model, KNOWN, "speech model")

    @cached_property
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = io.read_json(self.folder / "config.json")
        if config.get("model_type") not in (*WAVEFORM, "whisper") or config.get("add_adapter"):
            what = f"'{config.get('model_type')}' model{' with an adapter' if config.get('add_adapter') else ''}"
            raise BadConfig(
                f"{self.folder} holds a {what}, whose steps are not known",
                f"give a speech encoder of type {', '.join(WAVEFORM)} or whisper",
            )
        return config

    @cached_property
    def _preprocessor(self) -> dict[str, Any]:
        path = self.folder / "preprocessor_config.json"
        return dict(io.read_json(path)) if path.is_file() else {}

    @property
    def _whisper(self) -> bool:
        return bool(self._config["model_type"] == "whisper")

    @property
    def rate(self) -> int:
        """Samples per second that the model takes."""
        return int(self._preprocessor.get("sampling_rate", 16000))

    @property
    def spec(self) -> StreamSpec:
        """One vector per 20 ms, or one for the clip."""
        dim = int(self._config["d_model" if self._whisper else "hidden_size"])
        width = pretrained.mixture_width(dim, self.layers, self.weights)
        rate = 0.0 if self.pool == "mean" else self.rate / self._grid.stride
        return StreamSpec("speech_model", "audio", (width,), rate)

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights."""
        return pretrained.weights_hash(self.folder)

    @cached_property
    def _grid(self) -> Grid:
        if self._whisper:  # two convolutions of stride 1 and 2 over mel frames that are centred on every 160th sample
            return Grid(320, 320, 0, 1)
        kernels = self._config.get("conv_kernel", [10, 3, 3, 3, 3, 2, 2])
        strides = self._config.get("conv_stride", [5, 2, 2, 2, 2, 2, 2])
        field = 1
        for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
            field = (field - 1) * stride + kernel
        return Grid(math.prod(strides), field, field // 2, field)

    @cached_property
    def _network(self) -> Any:
        network = pretrained.load(self.folder)
        return network.get_encoder() if self._whisper else network

    def __call__(self, clip: Clip) -> Feature:
        """The hidden states of the clip's sound."""
        absent = Feature(np.zeros((0, *self.spec.shape), np.float32))
        sound = self._sound(clip)
        if sound is None:
            return absent
        valid = sound.valid[self._grid.centre :: self._grid.stride][: self._grid.steps(len(sound.valid))]
        if not valid.any():
            return absent
        values = self._encode(sound.samples, len(valid))
        if self.pool == "mean":
            return Feature(values[valid].mean(0, keepdims=True))
        return Feature(values, None if valid.all() else valid, (sound.first + self._grid.centre) / self.rate)

    def parts(self, clip: Clip) -> Iterator[Tensor]:
        """The sound as the network takes it, in windows of at most `chunk` s [1, ...]; without sound: left out."""
        sound = self._sound(clip)
        if sound is None or not self._grid.steps(len(sound.samples)):
            return
        for begin, _, end in windows(len(sound.samples), self._longest * self._grid.stride, 0):
            if sound.valid[begin:end].any():
                yield self._input(sound.samples[begin:end])

    def _sound(self, clip: Clip) -> Sound | None:
        """The sound without its unrecorded ends, scaled as the network wants it; None where nothing was recorded."""
        audio = clip.read_audio(self.rate)
        valid = audio.valid & ~muted(audio.samples, self.rate) if audio is not None else np.zeros(0, bool)
        if audio is None or not valid.any():
            return None
        first = int(valid.argmax()) // self._grid.stride * self._grid.stride
        span = slice(first, len(valid) - int(valid[::-1].argmax()))
        return Sound(self._normalise(audio.samples[span], valid[span]), valid[span], first)

    @property
    def _longest(self) -> int:
        """Steps that the network takes at once."""
        size = int(self.chunk * self.rate / self._grid.stride)
        return min(size, int(self._config["max_source_positions"])) if self._whisper else size

    def _normalise(self, samples: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Mean 0 and variance 1 over the recorded samples, 0 elsewhere, where the model was trained so."""
        if not self._preprocessor.get("do_normalize", not self._whisper):
            return samples
        known = samples[valid]
        deviation = math.sqrt(float(known.var(dtype=np.float64)) + 1e-7)
        return np.where(valid, (samples - float(known.mean(dtype=np.float64))) / deviation, np.float32(0))

    def _encode(self, samples: np.ndarray, steps: int) -> np.ndarray:
        """The mixed layers of each step: [steps, D]."""
        grid, size = self._grid, self._longest
        made = []
        for begin, kept, end in windows(steps, size, int(CONTEXT * self.rate / grid.stride)):
            end = begin + size if self._whisper else end  # its window is filled up in any case, better with sound
            # group norms use the last samples too, though they fill no step
            stop = (end - 1) * grid.stride + grid.field if end < steps else len(samples)
            states = self._states(samples[begin * grid.stride : stop])
            made.append(pretrained.mix(states, self.layers, self.weights)[0, kept].numpy())
        return np.concatenate(made)

    def _states(self, samples: np.ndarray) -> tuple[Tensor, ...]:
        """Hidden states [1, T', D] of one window of sound: the first block's input, each block's output."""
        import torch

        with torch.inference_mode():
            output = self._network(self._input(samples), output_hidden_states=True)
        # models with a final norm (large ones, Whisper) list their last state without it
        return (*output.hidden_states[:-1], output.last_hidden_state)

    def _input(self, samples: np.ndarray) -> Tensor:
        """Scaled samples [n] as the network takes them: waveform [1, n] or spectrogram [1, bands, frames]."""
        import torch

        x = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        if self._whisper:
            x = whisper_mel(x, int(self._config["num_mel_bins"]), 320 * int(self._config["max_source_positions"]))
        return x.unsqueeze(0)


def windows(steps: int, size: int, context: int) -> list[tuple[int, slice, int]]:
    """(begin, kept, end) of equal windows of `steps`: the network gets begin..end, at most `size`; `kept` counts.

    Each window has `context` more on both sides where there is any; what is kept joins without gap or overlap.
    """
    if steps <= size:
        return [(0, slice(0, steps), steps)]
    count = math.ceil(steps / (size - 2 * context))
    edges = [steps * k // count for k in range(count + 1)]
    begins = [max(0, edge - context) for edge in edges[:-1]]
    ends = [min(steps, edge + context) for edge in edges[1:]]
    return [(b, slice(f - b, t - b), e) for b, f, t, e in zip(begins, edges[:-1], edges[1:], ends, strict=True)]


def whisper_mel(samples: Tensor, bands: int, length: int) -> Tensor:
    """Whisper's input: samples [n] at 16 kHz, zeros up to `length` -> [bands, length / 160], scaled log10 power.

    Frames of 25 ms every 10 ms, Slaney's mel filters, at most 80 dB under the loudest (Radford et al. 2023).
    """
    import torch

    from affuse.layers.log_mel import mel_filters

    padded = torch.nn.functional.pad(samples, (0, length - len(samples)))
    spectrum = torch.stft(padded, 400, 160, window=torch.hann_window(400), return_complex=True)[:, :-1]
    level = (mel_filters(16000, 400, bands).T @ spectrum.abs().square()).clamp_min(1e-10).log10()
    return (level.clamp_min(float(level.max()) - 8) + 4) / 4
