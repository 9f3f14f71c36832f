"""Several encoders of one kind over one stream, concatenated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from affuse.core import registry
from affuse.core.errors import BadConfig
from affuse.core.parts import Encoder, Part
from affuse.core.types import Encoding, StreamSpec
from affuse.models.build import make_part

CARD = {
    "summary": "several encoders of one kind, concatenated; a linear head on them averages the logits of each",
    "source": "deep ensembles: Lakshminarayanan et al., NeurIPS 2017",
    "entry": "Ensemble",
    "modalities": ["audio", "vision", "text"],
    "gives": ["tokens", "pooled"],
    "licence": "Apache-2.0",
}


class Ensemble(nn.Module):
    """x [N, T, ...], mask [N, T] -> Encoding: the concatenated vectors of `members` encoders of one kind.

    `of`: the kind and its options (mlp where it names none). To train the members independently, as a deep ensemble,
    set train.members; this part then holds them as one model. Raises BadConfig for fewer than one member or a stream
    that `of` does not take.
    """

    def __init__(self, spec: StreamSpec, *, members: int = 3, of: dict[str, Any] | None = None) -> None:
        super().__init__()
        if members < 1:
            raise BadConfig(f"members = {members}", "give at least 1")
        options = dict(of or {})
        name = options.pop("name", "mlp")
        part = Part(name, registry.resolve("encoders", name, options, f"of.{name}"))
        self.members = nn.ModuleList(make_part("encoders", part, spec) for _ in range(members))
        members_of: list[Encoder] = list(self.members)  # type: ignore[arg-type]
        self.dim, self.rate = sum(member.dim for member in members_of), members_of[0].rate

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the normalisation on (x, mask) of the training split: once, as it is the same for all members."""
        first: Any = self.members[0]
        if hasattr(first, "fit"):
            first.fit(batches)
            for member in self.members[1:]:
                for own, fitted in zip(member.buffers(), first.buffers(), strict=True):
                    own.copy_(fitted)

    def forward(self, x: Tensor, mask: Tensor) -> Encoding:
        """Encoding with tokens [N, T', members * d], mask [N, T'], pooled [N, members * d]."""
        found: list[Encoding] = [member(x, mask) for member in self.members]
        longest = max(e.mask.shape[1] for e in found)  # members that change the tempo in training differ in length
        tokens = [nn.functional.pad(e.tokens, (0, 0, 0, longest - e.tokens.shape[1])) for e in found]
        masks = [nn.functional.pad(e.mask, (0, longest - e.mask.shape[1])) for e in found]
        return Encoding(torch.cat(tokens, -1), torch.stack(masks).any(0), torch.cat([e.pooled for e in found], -1))
