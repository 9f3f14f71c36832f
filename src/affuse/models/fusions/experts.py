"""Calibrated late fusion of experts that were trained separately."""

from __future__ import annotations

import torch
from torch import Tensor

from affuse.core.errors import BadConfig
from affuse.core.types import Encoded
from affuse.models.fusions.late import Late

CARD = {
    "summary": "calibrated experts: logits by temperature, reliability and amount of evidence, then added",
    "source": "temperature: Guo et al., ICML 2017; weighted product of experts: Genest and Zidek 1986",
    "entry": "Experts",
    "needs": ["pooled"],
    "level": "decisions",
    "licence": "Apache-2.0",
}


class Experts(Late):
    """logits = (sum over present s of w_s z_s / T_s) / (1 + shared (W - 1)), w_s = (r_s / max r) n_s / (n_s + h_s).

    Per stream (1, 1 and 0 where not given): `temperature` T; `reliability` r, relative to the most reliable stream
    present, so that a single expert keeps its calibrated prediction; `halfway` h, the number of valid steps n at which
    an expert has half its weight. `shared` (0..1) is how much experts only repeat each other; W is the sum of r_s / max
    r over the experts present, each of `groups` (stream -> expert) counted once. Raises BadConfig for a name that is no
    stream, or values outside T > 0, r > 0, h >= 0.
    """

    temperature: Tensor
    reliability: Tensor
    halfway: Tensor
    first: Tensor

    def __init__(
        self,
        dims: dict[str, int],
        *,
        temperature: dict[str, float] | None = None,
        reliability: dict[str, float] | None = None,
        halfway: dict[str, float] | None = None,
        shared: float = 0.0,
        groups: dict[str, str] | None = None,
    ) -> None:
        super().__init__(dims)
        if not 0 <= shared <= 1:
            raise BadConfig(f"shared = {shared}", "give a share from 0 to 1")
        if unknown := set(groups or {}) - set(dims):
            raise BadConfig(f"groups names {', '.join(sorted(unknown))}", f"the streams are {', '.join(dims)}")
        self.shared = shared
        named = [(groups or {}).get(s, s) for s in dims]
        first = [named.index(name) == i for i, name in enumerate(named)]
        self.register_buffer("first", torch.tensor(first), persistent=False)
        options = (("temperature", temperature, 1.0), ("reliability", reliability, 1.0), ("halfway", halfway, 0.0))
        for name, values, default in options:
            given = dict(values or {})
            if unknown := set(given) - set(dims):
                raise BadConfig(f"{name} names {', '.join(sorted(unknown))}", f"the streams are {', '.join(dims)}")
            zero = name == "halfway"
            if any(v < 0 or (v == 0 and not zero) for v in given.values()):
                raise BadConfig(f"{name} = {given}", "give numbers from 0 on" if zero else "give numbers above 0")
            self.register_buffer(name, torch.tensor([float(given.get(s, default)) for s in dims]), persistent=False)

    def combine(self, logits: Tensor, encoded: Encoded) -> Tensor:
        """logits [N, S, C] -> [N, C]; zeros (no opinion) where nothing is present."""
        present = encoded.present.to(logits.dtype)
        reliability = self.reliability * present
        steps = torch.stack([encoded.mask[s].sum(1) for s in encoded.streams], 1).to(logits.dtype)
        evidence = torch.where(self.halfway > 0, steps / (steps + self.halfway).clamp_min(1e-9), 1.0)
        relative = reliability / reliability.amax(1, keepdim=True).clamp_min(1e-9)
        repeated = 1 + self.shared * ((relative * self.first).sum(1, keepdim=True) - 1).clamp_min(0)
        weight = relative * evidence / self.temperature / repeated
        return (logits * weight.unsqueeze(-1)).sum(1)
