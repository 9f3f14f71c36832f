"""Log-mel spectrograms and MFCCs as differentiable layers, equal to librosa's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig

BLOCK = 256  # frames at a time on a CPU, so that intermediate results stay in its cache
FLOOR = 1e-10  # power; -100 dB, as librosa's power_to_db


def mel_filters(rate: int, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None) -> Tensor:
    """Slaney's triangular mel filters, each of unit area: [n_fft // 2 + 1, n_mels].

    Linear below 1 kHz, logarithmic above (Slaney, Auditory Toolbox, 1998); equals librosa.filters.mel.
    """
    edges = mel_edges(n_mels, f_min, rate / 2 if f_max is None else f_max)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    slopes = edges - bins.unsqueeze(1)  # [bins, n_mels + 2]
    widths = edges.diff()
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    triangles = torch.minimum(rising, falling).clamp_min(0)
    return (triangles * 2 / (edges[2:] - edges[:-2])).float()


def mel_edges(n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Hz [n_mels + 2] in equal steps of Slaney's mel scale: where each band begins, has its centre, and ends."""
    low, top = (_to_mel(torch.tensor(f, dtype=torch.float64)) for f in (f_min, f_max))
    return _to_hz(low + (top - low) * torch.arange(n_mels + 2, dtype=torch.float64) / (n_mels + 1))


def _to_mel(hz: Tensor) -> Tensor:
    return torch.where(hz < 1000, hz * 3 / 200, 15 + (hz.clamp_min(1) / 1000).log() * 27 / math.log(6.4))


def _to_hz(mel: Tensor) -> Tensor:
    return torch.where(mel < 15, mel * 200 / 3, 1000 * ((mel - 15) * math.log(6.4) / 27).exp())


class LogMel(nn.Module):
    """Waveform [N, T] -> log-mel power in dB [N, 1 + T // hop, n_mels].

    Frames are centred (zero padding), the Hann window is periodic, the reference is 1 and the floor -100 dB;
    equals librosa.power_to_db(librosa.feature.melspectrogram(..., n_fft=window), top_db=None).
    """

    hann: Tensor
    filters: Tensor

    def __init__(
        self,
        rate: int = 16000,
        n_mels: int = 64,
        window: int = 400,
        hop: int = 160,
        f_min: float = 0.0,
        f_max: float | None = None,
    ) -> None:
        super().__init__()
        if min(rate, n_mels, window, hop) < 1 or not 0 <= f_min < (rate / 2 if f_max is None else f_max):
            found = f"rate={rate}, n_mels={n_mels}, window={window}, hop={hop}, f_min={f_min}, f_max={f_max}"
            raise BadConfig(f"no spectrogram has {found}", "give numbers of 1 or more, and f_min below f_max (Hz)")
        self.rate, self.n_mels, self.window, self.hop = rate, n_mels, window, hop
        self.register_buffer("hann", torch.hann_window(window, periodic=True), persistent=False)
        self.register_buffer("filters", mel_filters(rate, window, n_mels, f_min, f_max), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """dB of each frame and band; samples in [-1, 1]."""
        half = self.window // 2
        frames = nn.functional.pad(x, (half, self.window - half)).unfold(-1, self.window, self.hop)
        frames = frames[:, : 1 + x.shape[-1] // self.hop]
        at_once = max(1, BLOCK // max(1, len(x))) if x.device.type == "cpu" else frames.shape[1]
        power = torch.cat([self._power(part) for part in frames.split(at_once, dim=1)], dim=1)
        return 10 * (power @ self.filters).clamp_min(FLOOR).log10()

    def _power(self, frames: Tensor) -> Tensor:
        """Frames [N, T', window] -> power of each bin [N, T', window // 2 + 1]."""
        spectrum = torch.fft.rfft(frames * self.hann)
        return spectrum.real.square() + spectrum.imag.square()

    def frame_mask(self, mask: Tensor) -> Tensor:
        """The frame mask [N, 1 + T // hop] of a sample mask [N, T]; L valid samples give 1 + L // hop valid frames."""
        return torch.cat([mask[:, :1], mask[:, self.hop - 1 :: self.hop]], dim=1)


class MFCC(nn.Module):
    """Waveform [N, T] -> mel cepstrum [N, frames, n_mfcc]: the orthonormal DCT-II of the log-mel dB.

    Equals librosa.feature.mfcc(S=log-mel dB); the parameters other than `n_mfcc` are those of LogMel.
    """

    dct: Tensor

    def __init__(
        self,
        rate: int = 16000,
        n_mfcc: int = 20,
        n_mels: int = 64,
        window: int = 400,
        hop: int = 160,
        f_min: float = 0.0,
        f_max: float | None = None,
    ) -> None:
        super().__init__()
        self.log_mel = LogMel(rate, n_mels, window, hop, f_min, f_max)
        self.register_buffer("dct", dct_matrix(n_mels, n_mfcc), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Cepstral coefficients of each frame."""
        return self.log_mel(x) @ self.dct


def dct_matrix(n: int, k: int) -> Tensor:
    """The first k columns of the orthonormal DCT-II over n points: [n, k]."""
    points = torch.arange(n, dtype=torch.float64).unsqueeze(1) + 0.5
    basis = torch.cos(math.pi / n * points * torch.arange(k, dtype=torch.float64)) * math.sqrt(2 / n)
    basis[:, 0] /= math.sqrt(2)
    return basis.float()


def deltas(x: Tensor, mask: Tensor) -> Tensor:
    """Centred differences in time of x [N, T, F], 0 where a neighbour has no content."""
    change = nn.functional.pad(x[:, 2:] - x[:, :-2], (0, 0, 1, 1)) / 2 if x.shape[1] > 2 else torch.zeros_like(x)
    inner = nn.functional.pad(mask[:, 2:] & mask[:, 1:-1] & mask[:, :-2], (1, 1)) if x.shape[1] > 2 else mask
    return change * inner.unsqueeze(-1)


def spec_augment(
    x: Tensor,
    mask: Tensor,
    *,
    time_masks: int = 2,
    time_share: float = 0.1,
    freq_masks: int = 2,
    freq_share: float = 0.15,
) -> Tensor:
    """Set random intervals of time and bands of frequency to 0 (SpecAugment, Park et al. 2019).

    x [N, (C,) T, F], mask [N, T] -> the same shape as x. The length of an interval is uniform in 0..`time_share` of the
    row's valid length, and the interval lies within it; bands likewise in 0..`freq_share` of F. Every row draws its
    own from torch's global generator.
    """
    place = mask.cumsum(1) - 1
    hidden_t = _intervals(place, mask.sum(1, keepdim=True), time_masks, time_share)
    bands = torch.arange(x.shape[-1], device=x.device).expand(x.shape[0], -1)
    hidden_f = _intervals(bands, bands.new_full((x.shape[0], 1), x.shape[-1]), freq_masks, freq_share)
    hidden = (hidden_t & mask).unsqueeze(2) | hidden_f.unsqueeze(1)
    return x.masked_fill(hidden.unsqueeze(1) if x.dim() == 4 else hidden, 0.0)


def _intervals(place: Tensor, length: Tensor, count: int, share: float) -> Tensor:
    """Union of `count` random intervals of each row, evaluated at `place` [N, P]: bool [N, P]."""
    u = torch.rand(2, place.shape[0], count, device=place.device)
    width = (u[0] * (share * length + 1)).floor()
    start = (u[1] * (length - width + 1)).floor()
    at = place.unsqueeze(-1)
    return ((at >= start.unsqueeze(1)) & (at < (start + width).unsqueeze(1))).any(-1)


def trim_silence(x: Tensor, mask: Tensor, below: float) -> tuple[Tensor, Tensor]:
    """Leave out the frames before the first and after the last loud frame of each row.

    x [N, T, F] dB, mask [N, T]. A frame is loud if its strongest band is at most `below` dB under the row's strongest.
    Rows move to the left and T shrinks to the longest row, so that quiet ends cost no computation.
    """
    level = x.amax(-1).masked_fill(~mask, -torch.inf)
    loud = mask & (level >= level.amax(1, keepdim=True) - below)
    steps = torch.arange(x.shape[1], device=x.device)
    first = torch.where(loud, steps, x.shape[1]).amin(1).clamp_max(x.shape[1] - 1)
    last = torch.where(loud, steps, -1).amax(1)
    length = (last - first + 1).clamp_min(0)
    at = (first.unsqueeze(1) + steps[: max(1, int(length.max()))]).clamp_max(x.shape[1] - 1)
    kept = mask.gather(1, at) & (steps[: at.shape[1]] < length.unsqueeze(1))
    return x.gather(1, at.unsqueeze(-1).expand(-1, -1, x.shape[2])), kept


def stretch(x: Tensor, mask: Tensor, *, time: float, shift: float) -> tuple[Tensor, Tensor]:
    """Change the tempo of each row by a factor in 1 +- `time`, and move it up or down by up to `shift` bands.

    x [N, T, F], mask [N, T]; linear interpolation; the edge bands are repeated.
    """
    n, steps, bands = x.shape
    factor = 1 + time * (2 * torch.rand(n, device=x.device) - 1)
    out = torch.arange(max(1, round(steps * (1 + time))), device=x.device)
    at = out / factor.unsqueeze(1)
    mask = mask.gather(1, at.long().clamp_max(steps - 1)) & (at < steps)
    x = _sample(x, at.clamp_max(steps - 1))
    move = shift * (2 * torch.rand(n, 1, device=x.device) - 1)
    x = _sample(x.transpose(1, 2), (torch.arange(bands, device=x.device) + move).clamp(0, bands - 1)).transpose(1, 2)
    return x, mask


def _sample(x: Tensor, at: Tensor) -> Tensor:
    """x [N, T, F] at fractional steps `at` [N, S] -> [N, S, F]."""
    left = at.floor().long()
    right = (left + 1).clamp_max(x.shape[1] - 1)

    def take(index: Tensor) -> Tensor:
        return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))

    return torch.lerp(take(left), take(right), (at - left).unsqueeze(-1).to(x.dtype))
