"""Two streams of an utterance are drawn together, those of others apart: the teacher's vectors, and a queue."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output

CARD = {
    "summary": "a toy: contrast of two streams against the teacher's vectors of this batch and of earlier ones",
    "source": "tests",
    "entry": "ToyContrast",
    "tasks": ["classes", "multilabel", "values"],
    "auxiliary": True,
    "unlabelled": True,
    "licence": "Apache-2.0",
}


class ToyContrast(nn.Module):
    """l_i = -log softmax over the teacher's vectors of stream b (this batch's, then the queue's) of a_i b_i."""

    needs = frozenset({"teacher"})
    couples = True
    queue: Tensor
    filled: Tensor

    def __init__(self, task: Task, *, size: int = 16) -> None:
        super().__init__()
        self.size = size

    def setup(self, model: nn.Module) -> None:
        self.streams = [s.name for s in model.streams][:2]
        a, b = (model.encoders[s].dim for s in self.streams)
        self.project = nn.Linear(a, b)
        self.register_buffer("queue", torch.zeros(self.size, b))
        self.register_buffer("filled", torch.tensor(0))

    def weights(self, batch: Batch) -> Tensor:
        return batch.present[:, :2].all(1).float()

    def forward(self, output: Output, batch: Batch, computed: Computed) -> Tensor:
        a, b = self.streams
        taught = computed.gather(normalize(computed.teacher.encoded.pooled[b], dim=1))
        own = normalize(self.project(computed.encoded.pooled[a]), dim=1)
        mine = normalize(computed.teacher.encoded.pooled[b], dim=1)
        against = torch.cat([taught, self.queue[: int(self.filled)].clone()])
        loss = torch.logsumexp(own @ against.T / 0.1, 1) - (own * mine).sum(1) / 0.1
        if self.training:
            self.remember(taught.detach())
        return loss

    @torch.no_grad()
    def remember(self, rows: Tensor) -> None:
        kept = torch.cat([rows, self.queue[: int(self.filled)]])[: self.size]
        self.queue[: len(kept)] = kept
        self.filled.fill_(len(kept))
