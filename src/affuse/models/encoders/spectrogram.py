"""A transformer over the patches of a log-mel spectrogram."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.core.types import Encoding, StreamSpec
from affuse.layers.masked import masked_mean, pool_mask
from affuse.layers.positions import sinusoids
from affuse.layers.standardise import Standardise
from affuse.layers.transformer import Layers

CARD = {
    "summary": "a log-mel spectrogram in patches through a transformer; one token per time patch",
    "source": "Gong et al., AST: Audio Spectrogram Transformer, Interspeech 2021; mean over patches after SSAST "
    "(Gong et al., AAAI 2022)",
    "entry": "Spectrogram",
    "modalities": ["audio"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class Spectrogram(nn.Module):
    """x [N, T, mels] (NaN = missing number), mask [N, T] -> Encoding with tokens [N, ceil(T / time), dim].

    `patch` = [time, mels] in steps of the stream; mels = 0: whole columns, as by default. On a CPU whole columns cost
    least, and each is a moment in time; patches of [16, 16] are those of AST, without overlap. Each patch through a
    linear layer, plus sinusoids over time (any length) and a learned vector of its band, goes through `layers` pre-norm
    layers. A token is the mean over the patches of one time, at rate / time Hz, so that a fusion on time can use it; it
    is valid where any of its steps is. pooled [N, dim] is the mean of the valid tokens. Edges are filled with zeros.
    `drop_path`: stochastic depth, rising to this. Bands are standardised by the training split (`fit`).

    Raises BadConfig for steps that are no vectors, and for sizes that no transformer has.
    """

    def __init__(
        self,
        spec: StreamSpec,
        *,
        patch: tuple[int, ...] = (10, 0),
        dim: int = 96,
        layers: int = 4,
        heads: int = 4,
        expand: int = 4,
        dropout: float = 0.1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if len(spec.shape) != 1:
            message = f"stream '{spec.name}' has steps of shape {spec.shape}"
            raise BadConfig(message, "spectrogram needs vectors (mels,): extractor `log_mel`")
        if len(patch) != 2 or patch[0] < 1 or not 0 <= patch[1] <= spec.shape[0]:
            message = f"patch = {list(patch)} fits no spectrogram of {spec.shape[0]} bands"
            raise BadConfig(message, "give [time, bands], such as [16, 16], or [10, 0] for whole columns")
        self.time, self.band = patch[0], patch[1] or spec.shape[0]
        self.dim, self.rate = dim, spec.rate / self.time
        self.norm = Standardise(spec.shape[0])
        self.project = nn.Linear(self.time * self.band, dim)
        self.bands = nn.Parameter(torch.empty(-(-spec.shape[0] // self.band), dim))
        nn.init.trunc_normal_(self.bands, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = Layers(dim, heads, layers, expand, dropout, drop_path)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation of each band on (x, mask) of the training split."""
        self.norm.fit(batches)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T', dim], mask [N, T'], pooled [N, dim]."""
        patches = self._patches(self.norm(x) * mask.unsqueeze(-1))
        place = sinusoids(torch.arange(patches.shape[1], device=x.device), self.dim).to(x.dtype)
        h = self.dropout(self.project(patches) + place.unsqueeze(1) + self.bands)
        mask, count = pool_mask(mask, self.time), len(self.bands)
        found = self.layers(h.flatten(1, 2), mask.repeat_interleave(count, 1)).unflatten(1, (-1, count))
        tokens = found.mean(2) * mask.unsqueeze(-1)
        return Encoding(tokens, mask, masked_mean(tokens, mask))

    def _patches(self, x: Tensor) -> Tensor:
        """x [N, T, mels] -> [N, T', bands, time * band], filled up with zeros at both edges."""
        x = F.pad(x, (0, -x.shape[2] % self.band, 0, -x.shape[1] % self.time))
        return x.unflatten(2, (-1, self.band)).unflatten(1, (-1, self.time)).transpose(2, 3).flatten(3)
