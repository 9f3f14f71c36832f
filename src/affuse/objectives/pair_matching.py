"""Which streams belong together: the fused model tells an utterance from one with a foreign stream."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.core.errors import BadConfig
from affuse.core.parts import Computed, Network
from affuse.core.tasks import Task
from affuse.core.types import Batch, Encoded, Output
from affuse.layers.pairs import back, choose, codes, draws, gathered, two_of

CARD = {
    "summary": "matched against mismatched streams, told apart behind the fusion; hard negatives drawn by similarity",
    "source": "Li et al., ALBEF, NeurIPS 2021 (image-text matching); for video and audio: Ding et al., MRAC 2023",
    "entry": "PairMatching",
    "tasks": ["classes", "multilabel", "values"],
    "auxiliary": True,
    "unlabelled": True,
    "licence": "Apache-2.0",
}


class PairMatching(nn.Module):
    """l_i = mean of -log p(match | a_i, b_i), -log p(no match | a_i, b_j) and -log p(no match | a_k, b_i).

    p = softmax(head(fused)); j is drawn among the other utterances of the batch, of all processes, with probability
    softmax over j of the similarity a_i b_j that the pair_contrastive of these streams before it computed, k likewise
    (hard), or evenly (random). A draw depends on the step and the two utterances alone. `hidden`: units of the head's
    hidden layer (0: linear). A row for which there is no other utterance counts 0 and is counted.

    Raises BadConfig for a model with a context, a fusion of decisions, other than two streams.
    """

    couples = True

    def __init__(
        self,
        task: Task,
        *,
        streams: tuple[str, ...] = (),
        negatives: Literal["hard", "random"] = "hard",
        hidden: int = 64,
    ) -> None:
        super().__init__()
        self.named, self.negatives, self.hidden = streams, negatives, hidden
        self.reads: tuple[str, str] | None = None

    def setup(self, model: Network) -> None:
        """Make the head behind the fusion."""
        self.pair = two_of(list(model.dims), self.named, "pair_matching")
        self.reads = self.pair if self.negatives == "hard" else None
        if model.conversational or not model.width:
            what = "a context" if model.conversational else "a fusion that joins decisions"
            remedy = "choose a fusion of features and no context, or leave pair_matching out"
            raise BadConfig(f"pair_matching puts streams of two utterances together, and the model has {what}", remedy)
        hidden = [nn.Linear(model.width, self.hidden), nn.GELU()] if self.hidden else []
        self.head = nn.Sequential(*hidden, nn.Linear(self.hidden or model.width, 2))

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item, [N]: 1 where both streams are there, with or without a label."""
        return batch.present[:, [[s.name for s in batch.streams].index(s) for s in self.pair]].all(1).float()

    def forward(self, output: Output, batch: Batch, computed: Computed) -> Tensor:
        """Loss of every item, [N]."""
        encoded, (a, b) = computed.encoded, self.pair
        rows = encoded.present[:, [encoded.streams.index(s) for s in self.pair]].all(1).nonzero().squeeze(1)
        own = encoded.take(rows)
        every = gathered(own, computed.gather)
        code = codes(batch.id, rows.device)[rows]
        among = computed.gather(code)
        if not len(rows):  # after all that every process takes part in
            return encoded.present.new_zeros(len(batch), dtype=torch.float32)
        j, k, alone = self.others(code, among, computed)
        computed.count("without_negative", alone.sum())
        mixed = Encoded.join([own.repaired(b, j, every), own.repaired(a, k, every)])
        fused = torch.cat([output.fused.pooled[rows], computed.model.fuse(mixed, batch).fused.pooled])
        truth = (torch.arange(len(fused), device=rows.device) < len(rows)).long()
        each = F.cross_entropy(self.head(fused).float(), truth, reduction="none").unflatten(0, (3, -1)).mean(0)
        return back(each * ~alone, rows, len(batch))

    def others(self, own: Tensor, every: Tensor, computed: Computed) -> tuple[Tensor, Tensor, Tensor]:
        """(j, k, alone) [n]: whose stream b, whose stream a, and whether there is none, of codes [n] among [M]."""
        allowed = own.unsqueeze(1) != every
        scores = [torch.zeros_like(allowed, dtype=torch.float32)] * 2
        if self.reads:
            pairs = computed.pairs[self.reads]
            allowed = pairs.negative[:, : pairs.fresh]
            scores = [similar[:, : pairs.fresh].detach() for similar in pairs.similar]
        j, k = (
            choose(score.masked_fill(~allowed, -torch.inf), draws(own, every, 2 * computed.step + i))
            for i, score in enumerate(scores)
        )
        return j, k, ~allowed.any(1)
