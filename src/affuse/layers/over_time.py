"""What may run over the steps of one stream after its frames were encoded one by one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.layers.masked import MaskedGRU, MaskedLSTM
from affuse.layers.positions import sinusoids
from affuse.layers.transformer import Layers
from affuse.layers.xlstm import XLSTM

OverTime = Literal["none", "xlstm", "lstm", "gru", "transformer"]


def over_time(kind: OverTime, dim: int, *, layers: int, heads: int, dropout: float) -> nn.Module | None:
    """A module x [N, T, dim], mask [N, T] -> [N, T, dim], 0 outside the mask, that reads both ways; None for "none".

    xlstm: mLSTM blocks; lstm, gru: half of `dim` in each direction; transformer: pre-norm layers and sinusoids. Raises
    BadConfig for sizes that do not exist.
    """
    if kind == "none":
        return None
    if layers < 1 or dim % 2:
        raise BadConfig(f"no {kind} over time has layers={layers}, dim={dim}", "give layers >= 1 and an even dim")
    if kind == "xlstm":
        return XLSTM(dim, kinds=["mlstm"] * layers, heads=heads, dropout=dropout)
    if kind == "transformer":
        return PlacedLayers(dim, heads, layers, dropout)
    network = MaskedLSTM if kind == "lstm" else MaskedGRU
    return network(dim, dim // 2, layers=layers, dropout=dropout)


class PlacedLayers(nn.Module):
    """A pre-norm transformer over the steps, which are told apart by sinusoids of their number."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = Layers(dim, heads, layers, 2, dropout, 0.0)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [N, T, dim], mask [N, T] -> [N, T, dim]."""
        place = sinusoids(torch.arange(x.shape[1], device=x.device), x.shape[2]).to(x.dtype)
        found: Tensor = self.layers(x + place, mask)
        return found * mask.unsqueeze(-1)
