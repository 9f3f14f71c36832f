"""Dropping nodes, edges and streams at random in training, and the loss that makes predictions under drops agree.

After GRAND (Feng et al. 2020). Nothing is dropped outside training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.layers.edges import Edges


def _checked(p: float) -> float:
    if not 0 <= p < 1:
        raise BadConfig(f"p={p} is no share of nodes or edges to drop", "give 0 <= p < 1")
    return p


class DropNode(nn.Module):
    """One draw per node: a dropped node sends no message to any other node; all of its features are lost together.

    The result scales messages (`weight` of every graph layer): 0 from dropped nodes, 1 / (1 - p) from others (1 with
    scale=False, for means that are normalised by their weights). A node's message to itself stays, unless drop_self.
    """

    def __init__(self, p: float, *, scale: bool = True, drop_self: bool = False) -> None:
        super().__init__()
        self.p, self.scale, self.drop_self = _checked(p), scale, drop_self

    def forward(self, edges: Edges, n: int, weight: Tensor | None = None) -> Tensor:
        """`weight` [E] (1 unless given) of each message, times 0 or the scale; unchanged in evaluation."""
        weight = torch.ones(len(edges), device=edges.source.device) if weight is None else weight
        if not self.training or self.p == 0:
            return weight
        keep = torch.rand(n, device=weight.device) >= self.p
        factor = (keep.to(weight.dtype) / (1 - self.p if self.scale else 1))[edges.source]
        return weight * (factor if self.drop_self else torch.where(edges.loops(), 1.0, factor))

    def extra_repr(self) -> str:
        """The settings, as printed with the model."""
        return f"p={self.p}, scale={self.scale}, drop_self={self.drop_self}"


class DropEdge(nn.Module):
    """One draw per edge (Rong et al. 2020): forward returns a mask [E] that selects edges, types and weights.

    Loops stay unless drop_self. Degrees count the edges that are left.
    """

    def __init__(self, p: float, *, drop_self: bool = False) -> None:
        super().__init__()
        self.p, self.drop_self = _checked(p), drop_self

    def forward(self, edges: Edges) -> Tensor:
        """[E] bool: which edges are kept; all of them in evaluation."""
        if not self.training or self.p == 0:
            return torch.ones_like(edges.source, dtype=torch.bool)
        keep = torch.rand(len(edges), device=edges.source.device) >= self.p
        return keep if self.drop_self else keep | edges.loops()

    def extra_repr(self) -> str:
        """The settings, as printed with the model."""
        return f"p={self.p}, drop_self={self.drop_self}"


def drop_but_one(present: Tensor, p: float) -> Tensor:
    """present [N, M], each entry dropped with probability p; of a row one entry, chosen at random, always stays."""
    keep = present & (torch.rand(present.shape, device=present.device) >= p)
    spared = (torch.rand(present.shape, device=present.device) * present).argmax(1, keepdim=True)
    return keep | (torch.zeros_like(keep).scatter(1, spared, True) & present & ~keep.any(1, keepdim=True))


def consistency(probabilities: Sequence[Tensor], temperature: float = 0.1, confidence: float = 0.0) -> Tensor:
    """How far S predictions [N, C] of the same nodes are from their sharpened mean p', [N].

    p'_c = p_c^(1/T) / sum p^(1/T) of the mean p, without gradient. The result is the mean over draws s of
    sum_c (p' - p_s)^2, and 0 for nodes with max p <= confidence (GRAND+ takes 2 / C, and the mean over the others).
    """
    p = torch.stack(list(probabilities))
    with torch.no_grad():
        average = p.mean(0)
        sharp = (average.clamp_min(torch.finfo(p.dtype).tiny).log() / temperature).softmax(-1)
    return (p - sharp).square().sum(-1).mean(0) * (average.amax(-1) > confidence)
