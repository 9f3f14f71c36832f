"""Two streams of an utterance are drawn together, those of different utterances apart."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from affuse.core.errors import BadConfig
from affuse.core.parts import Computed, Network, Pairs
from affuse.core.tasks import Task
from affuse.core.types import Batch, Output
from affuse.layers.pairs import UNKNOWN, Queue, back, codes, cross_entropy, two_of

CARD = {
    "summary": "symmetric contrast of two streams against a teacher's vectors of this batch and of a queue",
    "source": "Oord et al. 2018 (InfoNCE); with teacher and queue: Li et al., ALBEF, NeurIPS 2021; video and audio: "
    "Ding et al., Learning Aligned Audiovisual Representations, MRAC 2023",
    "entry": "PairContrastive",
    "tasks": ["classes", "multilabel", "values"],
    "auxiliary": True,
    "unlabelled": True,
    "licence": "Apache-2.0",
}
COOLEST, WARMEST = 0.01, 0.5  # limits of a learned temperature
Negatives = Literal["any", "other_speaker", "other_source", "same_speaker"]


class PairContrastive(nn.Module):
    """l_i = 1/2 CE(y_i, a_i B / tau) + 1/2 CE(y_i, b_i A / tau); a, b: projections [dim] of length 1 of two streams.

    A and B hold the teacher's vectors of the batch (of all processes), then those of the last `queue` utterances;
    without `teacher` the model's own, through which the gradient flows too. y_i: equal shares for the keys of the same
    utterance. tau is trained within 0.01 .. 0.5 (learn_temperature). `streams`: which two (default: the model's two).

    `negatives`: any; other_speaker and other_source leave out keys of the same one; same_speaker: those of the same
    speaker weigh as if a `share` of all negatives were drawn among them (a row without such keys has the others alone).
    Clips that lack a stream are in no pair. Counts rows without a pair, without a negative, without one of the same
    speaker. Raises BadConfig for a share outside 0 .. 1, a temperature outside the limits, other than two streams.
    """

    couples = True
    log_temperature: Tensor

    def __init__(
        self,
        task: Task,
        *,
        streams: tuple[str, ...] = (),
        dim: int = 128,
        temperature: float = 0.07,
        learn_temperature: bool = True,
        queue: int = 0,
        teacher: bool = True,
        negatives: Negatives = "any",
        share: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= share <= 1 or not COOLEST <= temperature <= WARMEST or queue < 0:
            message = f"pair_contrastive with share={share}, temperature={temperature}, queue={queue}"
            raise BadConfig(message, f"share: 0 to 1, temperature: {COOLEST} to {WARMEST}, queue: 0 or more")
        self.named, self.dim, self.queue_size, self.negatives, self.share = streams, dim, queue, negatives, share
        self.needs = frozenset({"teacher"} if teacher else ())
        log = torch.tensor(temperature).log()
        self.log_temperature = nn.Parameter(log) if learn_temperature else log
        self._fresh: dict[str, Tensor] = {}

    def setup(self, model: Network) -> None:
        """Make the projections of both streams, the teacher's copies of them, and the queue."""
        self.pair = self.leaves = two_of(list(model.dims), self.named, "pair_contrastive")
        self.project = nn.ModuleList(nn.Linear(model.dims[s], self.dim) for s in self.pair)
        if self.needs:
            self.taught = copy.deepcopy(self.project).requires_grad_(False)
            self.averaged = [(self.taught, self.project)]
        self.queue = Queue(self.queue_size, self.dim, ("a", "b"), ("id", "speaker", "source"))

    def weights(self, batch: Batch) -> Tensor:
        """Weight of every item, [N]: 1 where both streams are there, with or without a label."""
        return batch.present[:, [[s.name for s in batch.streams].index(s) for s in self.pair]].all(1).float()

    def forward(self, output: Output, batch: Batch, computed: Computed) -> Tensor:
        """Loss of every item, [N]."""
        pairs = computed.pairs[self.pair] = self.compare(batch, computed)
        computed.count("without_pair", len(batch) - len(pairs.rows))
        computed.count("without_negative", (~pairs.negative.any(1)).sum())
        each = [cross_entropy(pairs.target, similar + pairs.bias) for similar in pairs.similar]
        return back((each[0] + each[1]) / 2, pairs.rows, len(batch))

    def stepped(self) -> None:
        """Keep the vectors of the step's batch in the queue."""
        if self.queue_size and self._fresh:
            order = self._fresh["id"].argsort()  # the same for any number of processes
            self.queue.push({k: v[order] for k, v in self._fresh.items()})
        self._fresh = {}

    def compare(self, batch: Batch, computed: Computed) -> Pairs:
        """The rows that have both streams against all keys."""
        encoded = computed.encoded
        place = [encoded.streams.index(s) for s in self.pair]
        rows = encoded.present[:, place].all(1).nonzero().squeeze(1)
        own = self.vectors(encoded.pooled, self.project, rows)
        taught = self.vectors(computed.teacher.encoded.pooled, self.taught, rows) if computed.teacher else own
        device = rows.device
        names = {k: codes(getattr(batch, k), device)[rows] for k in ("id", "speaker", "source")}
        fresh = {k: computed.gather(v) for k, v in {"a": taught[0], "b": taught[1], **names}.items()}
        if self.training:
            self._fresh = {k: v.detach() for k, v in fresh.items()}
        past = self.queue.read()
        keys = {k: torch.cat([v, past[k].to(v.dtype)]) for k, v in fresh.items()}
        bias, target, negative = self.shares(names, keys, computed)
        with torch.no_grad():
            self.log_temperature.clamp_(math.log(COOLEST), math.log(WARMEST))
        scale = (-self.log_temperature).exp()
        similar = (own[0] @ keys["b"].T * scale, own[1] @ keys["a"].T * scale)
        seen = (taught[0] @ keys["b"].T * scale.detach(), taught[1] @ keys["a"].T * scale.detach())
        return Pairs(rows, names["id"], similar, seen if self.needs else None, bias, target, negative, len(fresh["a"]))

    def vectors(self, pooled: dict[str, Tensor], project: nn.ModuleList, rows: Tensor) -> list[Tensor]:
        """Projections [n, dim] of length 1 of both streams."""
        both = zip(self.pair, project, strict=True)
        return [normalize(linear(pooled[s][rows]).float(), dim=1) for s, linear in both]

    def shares(self, own: dict[str, Tensor], keys: dict[str, Tensor], computed: Computed) -> tuple[Tensor, ...]:
        """(bias, target, negative), [n, M + Q] each, from the codes of the rows and of all keys."""

        def same(name: str) -> Tensor:
            known = (own[name] != UNKNOWN).unsqueeze(1)
            return (own[name].unsqueeze(1) == keys[name]) & known

        positive = same("id")
        negative = ~positive
        if self.negatives in ("other_speaker", "other_source"):
            negative &= ~same(self.negatives.removeprefix("other_"))
        bias = torch.zeros_like(negative, dtype=torch.float32).masked_fill(~negative & ~positive, -torch.inf)
        if self.negatives == "same_speaker":
            inside = negative & same("speaker")
            bias = torch.where(negative, self._weight(inside, negative & ~inside, computed), bias)
        return bias, positive / positive.sum(1, keepdim=True), negative

    def _weight(self, inside: Tensor, outside: Tensor, computed: Computed) -> Tensor:
        """Log weights [n, M + Q] by which a `share` of the negatives lies inside, at the same sum over all of them."""
        n, m = (part.sum(1, keepdim=True).float() for part in (inside, outside))
        computed.count("without_same_speaker", (n == 0).sum())
        share = torch.where(m == 0, 1.0, torch.where(n == 0, 0.0, self.share))
        one, other = share * (n + m) / n.clamp_min(1), (1 - share) * (n + m) / m.clamp_min(1)
        return torch.where(inside, one, other).log()
