"""Modality dropout."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from affuse.balance.balancer import Balancer, Step
from affuse.core.errors import BadConfig
from affuse.layers.drop import drop_but_one

CARD = {
    "summary": "drops streams of an item at random, so that the model does not rely on any one; one always stays",
    "source": "Neverova et al., ModDrop: Adaptive Multi-modal Gesture Recognition, PAMI 2016",
    "entry": "ModalityDropout",
    "random": True,
    "licence": "Apache-2.0",
}


class ModalityDropout(Balancer):
    """L_fused where each stream of each item is absent with probability `p`; one stream of every item always stays.

    The model fuses the remaining streams as it does for items without the stream. A recipe's
    `augment.modality_dropout` is the same rule for whole modalities, with any balancer. Raises BadConfig unless
    0 <= p < 1.
    """

    def __init__(self, *, p: float = 0.3) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise BadConfig(f"balance.p = {p} is no share of streams to hide", "give 0 <= p < 1")
        self.p = p

    def loss(self, step: Step) -> Tensor:
        return super().loss(replace(step, present=drop_but_one(step.present, self.p)) if self.p > 0 else step)
