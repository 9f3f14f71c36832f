"""Modality dropout."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from affuse.balance.balancer import Balancer, Step
from affuse.core.errors import BadConfig
from affuse.layers.drop import drop_but_one

CARD = {
    "summary": "hides streams of an item by chance, so that no stream can be relied on; one always stays",
    "source": "Neverova et al., ModDrop: Adaptive Multi-modal Gesture Recognition, PAMI 2016",
    "entry": "ModalityDropout",
    "random": True,
    "licence": "Apache-2.0",
}


class ModalityDropout(Balancer):
    """L_fused where each stream of each item is taken for absent with probability `p`, one that is there never.

    The model fuses what is left as it does where a stream was never recorded. The recipe's `augment.modality_dropout` is the same
    rule for whole modalities, beside any balancer. Raises BadConfig unless 0 <= p < 1.
    """

    def __init__(self, *, p: float = 0.3) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise BadConfig(f"balance.p = {p} is no share of streams to hide", "give 0 <= p < 1")
        self.p = p

    def loss(self, step: Step) -> Tensor:
        return super().loss(replace(step, present=drop_but_one(step.present, self.p)) if self.p > 0 else step)
