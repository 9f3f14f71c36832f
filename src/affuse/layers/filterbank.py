"""Band-pass filters on the waveform that are learned, and start as mel bands."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.layers.log_mel import mel_edges
from affuse.layers.masked import pool_mask

WINDOW, STEP, JOINED = 0.025, 0.002, 5  # s of a filter, s between its outputs, outputs that are averaged
LOWEST = 60.0  # Hz
FLOOR = 1e-4  # of the energy of a sound of variance 1


class Filterbank(nn.Module):
    """Samples x [N, T] -> energies in dB [N, T / hop, bands] every `hop` samples (10 ms), and their mask.

    Two filters per band, whose squared outputs are added: cosine and sine of its frequency under a Gaussian window, as
    wide as a mel band (Zeghidour et al., Learning Filterbanks from Raw Speech for Phone Recognition, ICASSP 2018). The
    energies of every 10 ms are averaged; 0 dB is a tone of amplitude 1.
    """

    def __init__(self, rate: float, bands: int) -> None:
        super().__init__()
        self.stride = max(1, round(STEP * rate))
        self.hop = self.stride * JOINED
        pairs = gabor(rate, bands, round(WINDOW * rate) | 1)
        self.filters = nn.Parameter(pairs.flatten(0, 1).unsqueeze(1))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, T], 0 outside mask [N, T]."""
        steps, length = -(-x.shape[1] // self.hop), self.filters.shape[2]
        end = (steps * JOINED - 1) * self.stride + length - length // 2 - x.shape[1]
        y = F.conv1d(F.pad(x, (length // 2, end)).unsqueeze(1), self.filters, stride=self.stride)
        energy = y.unflatten(1, (-1, 2)).square().sum(2).unflatten(2, (steps, JOINED)).mean(-1)
        mask = pool_mask(mask, self.hop)
        return 10 * (energy + FLOOR).log10().mT * mask.unsqueeze(-1), mask


def gabor(rate: float, bands: int, length: int) -> Tensor:
    """[bands, 2, length]: cosines and sines at the centres of mel bands, under windows as wide in frequency as these.

    A filter lets a tone of its own frequency through with the amplitude 1.
    """
    edges = mel_edges(bands, LOWEST, rate / 2)
    centre, width = edges[1:-1, None], (edges[2:] - edges[:-2])[:, None] / 4
    t = (torch.arange(length, dtype=torch.float64) - length // 2) / rate
    window = torch.exp(-0.5 * (2 * math.pi * width * t) ** 2)
    angle = 2 * math.pi * centre * t
    waves = torch.stack([angle.cos(), angle.sin()], 1) * (window / window.sum(1, keepdim=True)).unsqueeze(1) * 2
    return waves.float()
