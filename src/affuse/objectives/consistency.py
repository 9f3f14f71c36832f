"""Consistency of the predictions of several forward passes with different nodes, edges and units dropped."""

from __future__ import annotations

from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output
from affuse.layers.drop import consistency

CARD = {
    "summary": "predictions under several random drops are drawn to their sharpened mean, labelled or not",
    "source": "Feng et al., GRAND, NeurIPS 2020; GRAND+, WWW 2022",
    "entry": "Consistency",
    "tasks": ["classes"],
    "resolutions": ["utterance"],
    "auxiliary": True,
    "unlabelled": True,
    "licence": "Apache-2.0",
}


class Consistency(nn.Module):
    """l_i = mean over the views v of ||p_iv - p'_i||^2, p' the mean p sharpened by `temperature`, without gradient.

    The trainer runs contexts and fusion `views` times per batch and averages the other losses over them. An utterance
    whose largest mean probability is not above `confidence` (GRAND+: 2 / classes) counts 0. Raises BadConfig for fewer
    than two views, or a temperature of 0 or less.
    """

    needs = frozenset({"views"})

    def __init__(self, task: Task, *, views: int = 2, temperature: float = 0.1, confidence: float = 0.0) -> None:
        super().__init__()
        if views < 2 or temperature <= 0:
            message = f"consistency of {views} views at temperature {temperature}"
            raise BadConfig(message, "give views >= 2, temperature > 0")
        self.task, self.views, self.temperature, self.confidence = task.name, views, temperature, confidence

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item, [N]: 1 where a stream is present, with or without a label."""
        return batch.present.any(1).float()

    def forward(self, output: Output, batch: Batch, computed: Computed) -> Tensor:
        """Loss of every item, [N], from the Output of every view."""
        probabilities = [view.logits[self.task].float().softmax(-1) for view in computed.views]
        return consistency(probabilities, self.temperature, self.confidence)
