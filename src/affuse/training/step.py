"""One piece of a training batch: from encoded streams to the terms of the loss, and what a balancer sees of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from affuse.balance.balancer import Features, Step
from affuse.core.parts import Computed
from affuse.core.tasks import Task
from affuse.core.types import Batch, Encoded, Fused, Output
from affuse.models.model import EVERY, Model, encode_present
from affuse.models.predict import at_labels
from affuse.training.losses import Losses

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Piece:
    """A batch, or a part of one, behind the encoders: `terms` is the loss, `step` what a balancer sees.

    weight[name]: the sum of the items' weights over the whole batch, by objective; computed: what objectives may read.
    """

    model: Model
    losses: Losses
    task: Task  # the one that streams are weighed by
    encoded: Encoded
    batch: Batch
    weight: Mapping[str, Tensor]
    computed: Computed

    def output(self, encoded: Encoded) -> Output:
        """Contexts, fusion and heads; answers per frame at the times of the labels."""
        return at_labels(self.model.fuse(encoded, self.batch), self.batch)

    def terms(self, encoded: Encoded, share: Tensor | float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
        """(each objective's part of the loss, logits of the task): means over the views that an objective asks for."""
        views = [self.output(encoded) for _ in range(self.losses.views)]
        computed = replace(self.computed, encoded=encoded, views=views)
        each = [self.losses.terms(view, self.batch, computed, self.weight, share) for view in views]
        mean = {name: torch.stack([terms[name] for terms in each]).sum() / len(each) for name in each[0]}
        return mean, torch.stack([view.logits[self.task.name] for view in views]).mean(0)

    def step(self, epoch: int = 0, epochs: int = 1, turn: int = 0) -> Step:
        """The piece as a balancer sees it."""
        main = self.losses.main(self.task.name)
        objective = self.losses.parts()[main]

        def run(given: Step, present: Tensor, share: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Features]:
            terms, logits = self.terms(self._with(given, present), share)
            loss = torch.stack(list(terms.values())).sum()
            return loss, logits, {name: term.detach() for name, term in terms.items()}

        def probe(given: Step, present: Tensor) -> Tensor:
            with evaluating(self.model):
                return self.output(self._with(given, present)).logits[self.task.name]

        def item_loss(logits: Tensor) -> Tensor:
            return objective(Output({self.task.name: logits}, Fused(logits)), self.batch, self.computed)

        tokens = self.encoded.tokens if self.model.reads_tokens else {}
        items = objective.weights(self.batch) / self.weight[main]
        return Step(
            self.encoded.pooled, self.encoded.present, self.batch.target[self.task.name], items, run, probe, item_loss,
            self._again(), self._blocks, epoch, epochs, turn, tokens=tokens, kind=self.task.kind,
        )  # fmt: skip

    def _with(self, given: Step, present: Tensor) -> Encoded:
        """The encoded streams with a balancer's features, of which these are present."""
        tokens = given.tokens or self.encoded.tokens
        return replace(self.encoded, pooled=given.features, tokens=tokens, present=present)

    def _again(self) -> dict[str, Callable[[nn.Module], Tensor]]:
        """Stream -> another encoder's pooled vectors of the same inputs."""
        batch = self.batch

        def of(i: int, s: str) -> Callable[[nn.Module], Tensor]:
            return lambda encoder: encode_present(encoder, batch.x[s], batch.mask[s], batch.present[:, i]).pooled

        return {s: of(i, s) for i, s in enumerate(self.encoded.streams)} if batch.x else {}

    def _blocks(self) -> Features:
        widths: dict[str, int] = getattr(self.model.fusion, "widths", {})
        if not widths or self.model.conversational:
            return {}
        head = cast("nn.Linear", self.model.heads[self.task.name])
        return dict(zip(widths, head.weight.split(list(widths.values()), dim=1), strict=True))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def shared_weights(model: Model) -> list[nn.Parameter]:
    """Weights [*, d] that read the encoders' features of every stream: those of one head for all of them."""
    if not model.one_head or len(model.before):
        return []
    heads = cast("nn.ModuleDict", model.stream_heads[EVERY])
    return [cast("nn.Parameter", head.weight) for head in heads.values()]
