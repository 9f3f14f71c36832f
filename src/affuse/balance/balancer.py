"""The base of all balancers: hooks around one training step, by stream, independent of the model.

A balancer gets a `Step` (the outputs of the encoders, and functions for the rest of the model), between backward and
the optimiser's step a `Control`, and after an epoch an `Epoch`. All of its state is in its state_dict, so that a run
resumes exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from affuse.core.errors import BadConfig

Apply = Literal["auto", "grad", "lr"]
Measure = Literal["true_prob", "accuracy"]
Features = dict[str, Tensor]  # stream -> [N, d_s]


@dataclass(frozen=True)
class Step:
    """One forward pass over a batch, or over one of the pieces into which it is divided.

    features[s] [N, d_s]: the outputs of the encoders; tokens[s] [N, T, d_s]: in addition, where the model reads
    sequences. present [N, S] bool; target [N], [N, C] or [N, D]; weight [N] of each item, with the sum 1 over the whole
    batch. forward(step, present, share) -> (the sum of all objectives of the model, a scalar; logits [N, C]; each
    objective's part by name) from the features of a step, with share [N] as a factor of every item's weight;
    answer(step, present) -> logits, in evaluation mode. item_loss(logits) -> [N]: the loss of the task.
    again[s](encoder) -> [N, d]: another encoder on the inputs of the stream. blocks(): the columns [C, d_s] of the last
    layer's weight that read each stream, {} where the model does more than concatenate. epoch and turn count from 0.
    terms: the terms of the loss by name. kind: that of the task (empty: found from the targets).
    """

    features: Features
    present: Tensor
    target: Tensor
    weight: Tensor
    forward: Callable[[Step, Tensor, Tensor | float], tuple[Tensor, Tensor, Mapping[str, Tensor]]]
    answer: Callable[[Step, Tensor], Tensor]
    item_loss: Callable[[Tensor], Tensor]
    again: Mapping[str, Callable[[nn.Module], Tensor]] = field(default_factory=dict)
    blocks: Callable[[], Features] = dict
    epoch: int = 0
    epochs: int = 1
    turn: int = 0
    terms: dict[str, Tensor] = field(default_factory=dict)
    tokens: Features = field(default_factory=dict)
    kind: str = ""
    share: Tensor | float = 1.0

    @property
    def streams(self) -> list[str]:
        """Names, in the order of `present`."""
        return list(self.features)

    @property
    def categorical(self) -> bool:
        """Whether the targets are classes, or shares of classes that add up to 1; not multiple labels or values."""
        if self.kind:
            return self.kind == "classes"
        if not self.target.is_floating_point():
            return True
        known = self.target[self.weight > 0]
        return known.dim() > 1 and known.shape[1] > 1 and bool(((known.sum(1) - 1).abs() < 1e-3).all())

    def learning(self, stream: str) -> Step:
        """The same step, in which the encoders of all other streams get no gradient."""
        features = {s: h if s == stream else h.detach() for s, h in self.features.items()}
        tokens = {s: h if s == stream else h.detach() for s, h in self.tokens.items()}
        return replace(self, features=features, tokens=tokens)

    def scaled(self, factor: Tensor) -> Step:
        """The same step with the features of every item and stream times factor [N, S]."""
        column = dict(zip(self.streams, factor.unbind(1), strict=True))
        features = {s: h * column[s][:, None].to(h.dtype) for s, h in self.features.items()}
        tokens = {s: h * column[s][:, None, None].to(h.dtype) for s, h in self.tokens.items()}
        return replace(self, features=features, tokens=tokens)

    def with_shares(self, share: Tensor) -> Step:
        """The same step with every item's weight times share [N]."""
        return replace(self, weight=self.weight * share, share=self.share * share)

    def run(self, present: Tensor) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        """(this piece's share of the loss, logits [N, C], its terms) from what is present [N, S], as in training."""
        return self.forward(self, present, self.share)

    def probe(self, present: Tensor) -> Tensor:
        """Logits [N, C] from what is present [N, S], in evaluation mode."""
        return self.answer(self, present)

    def fused(self, weight: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """(weight times this piece's share of the model's loss, logits [N, C]) from all streams, as in training."""
        loss, logits, parts = self.run(self.present)
        for name, part in parts.items():
            self.term(name, weight * part)
        return weight * loss, logits

    def term(self, name: str, value: Tensor) -> Tensor:
        """Record a value as a term of the loss, and return it; the terms of a balancer are called balance.NAME."""
        self.terms[name] = self.terms.get(name, 0.0) + value.detach()
        return value

    def of(self, streams: Collection[str]) -> Tensor:
        """`present` [N, S] with all other streams set to absent."""
        return self.present & torch.tensor([s in streams for s in self.features], device=self.present.device)

    def only(self, *streams: str) -> Tensor:
        """Logits [N, C] of a probe from these streams, with the others absent."""
        return self.probe(self.of(streams))

    def alone(self, stream: str) -> tuple[Tensor, Tensor]:
        """(loss over the items that have it, logits [N, C]) of the model from one stream, as in training."""
        logits = self.run(self.of({stream}))[1]
        return self.loss(logits, stream), logits

    def counts(self, stream: str) -> Tensor:
        """Weight [N] of every item, 0 where the stream is absent."""
        return self.weight * self.present[:, self.streams.index(stream)]

    def loss(self, logits: Tensor, stream: str) -> Tensor:
        """The task's loss of logits [N, C] over the items that have the stream: this piece's share of the mean."""
        return (self.item_loss(logits) * self.counts(stream)).sum()

    def losses(self, logits: Features) -> Tensor:
        """The losses of logits[s] [N, C] of each stream alone, added up."""
        return sum((self.loss(own, s) for s, own in logits.items()), self.weight.new_zeros(()))

    def shares(self, classes: int) -> Tensor:
        """Targets as shares of classes, [N, C]."""
        hard = not self.target.is_floating_point()
        return one_hot(self.target, classes).float() if hard else torch.nan_to_num(self.target)

    def score(self, logits: Tensor) -> Tensor:
        """The score of each item, 0..1, [N].

        The probability of the true class, the mean one over labels, or exp(-mean |error|) of values.
        """
        if not self.target.is_floating_point():
            return logits.float().softmax(1).gather(1, self.target.unsqueeze(1)).squeeze(1)
        target = torch.nan_to_num(self.target)
        if self.categorical:
            return (logits.float().softmax(1) * target).sum(1)
        if self.kind == "multilabel":
            p = logits.float().sigmoid()
            return torch.where(target > 0, p, 1 - p).mean(1)
        return torch.exp(-(logits.float() - target).abs().mean(1))

    def right(self, logits: Tensor) -> Tensor:
        """[N]: 1 where the most probable class is the true one, or every value has the right sign, else 0."""
        if not self.target.is_floating_point():
            return (logits.argmax(1) == self.target).float()
        if self.categorical:
            return (logits.argmax(1) == self.shares(logits.shape[1]).argmax(1)).float()
        return ((logits > 0) == (self.target > 0)).all(1).float()


@dataclass
class Control:
    """What a balancer can change when the gradients of the whole batch are computed.

    parameters[s]: those of the encoder of stream s; shared: weights [*, d] that read the features of every stream.
    `apply`: multipliers act on gradients (grad), or on the learning rates of the optimiser's groups that are tagged
    with a stream (lr), as Adam cancels a constant factor of the gradient (auto: depends on the optimiser). `total` sums
    a tensor over processes.
    """

    parameters: Mapping[str, list[nn.Parameter]]
    optimizer: torch.optim.Optimizer
    apply: Apply = "auto"
    total: Callable[[Tensor], Tensor] = lambda x: x
    epoch: int = 0
    epochs: int = 1
    turn: int = 0
    shared: Sequence[nn.Parameter] = ()
    trace: dict[str, float] = field(default_factory=dict)
    _rates: list[float] | None = None

    def scale(self, k: Mapping[str, float], noise: bool = False) -> None:
        """Multiply the step of every stream's encoder by k[s]; `noise` adds N(0, std(g)^2), g: the gradient before."""
        self.note("k", k)
        processes = float(self.total(self.optimizer.param_groups[0]["params"][0].new_ones(1))) if noise else 1.0
        rates = self.apply == "lr" or (self.apply == "auto" and adapts(self.optimizer))
        for stream, factor in k.items():
            grads = [p.grad for p in self.parameters[stream] if p.grad is not None]
            # all processes add the same noise: the sum of their draws
            drawn = [torch.randn_like(g) * g.std(correction=0) for g in grads] if noise else []
            spread = [self.total(d) / processes**0.5 for d in drawn]
            if not rates:
                torch._foreach_mul_(grads, float(factor)) if grads else None
            if noise and grads:
                torch._foreach_add_(grads, spread)
        if rates:
            groups = self.optimizer.param_groups
            self._rates = [g["lr"] for g in groups]
            for group in groups:
                group["lr"] = group["lr"] * float(k.get(group.get("stream", ""), 1.0))

    def skip_idle(self) -> None:
        """Parameters without any gradient are not updated, neither by momentum nor by weight decay."""
        there = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        sizes = torch.stack(torch._foreach_norm([p.grad for p in there])).tolist() if there else []
        for p, size in zip(there, sizes, strict=True):
            if size == 0:
                p.grad = None

    def restore(self) -> None:
        """Restore the learning rates after the optimiser's step."""
        for group, rate in zip(self.optimizer.param_groups, self._rates or [], strict=False):
            group["lr"] = rate
        self._rates = None

    def note(self, what: str, values: Mapping[str, float]) -> None:
        """Record numbers per stream for the metrics of the run."""
        self.trace |= {f"{what}.{stream}": float(v) for stream, v in values.items()}


def adapts(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimiser divides gradients by their size, which cancels a constant factor."""
    return any("betas" in g or "rho" in g or "alpha" in g or "lr_decay" in g for g in optimizer.param_groups)


@dataclass(frozen=True)
class Epoch:
    """What a balancer gets after an epoch.

    encoded(split): a Step with all items of `train` or `valid` in evaluation mode, None where the split does not exist.
    """

    number: int
    epochs: int
    encoders: Mapping[str, nn.Module]
    encoded: Callable[[str], Step | None]

    def held_out(self) -> tuple[str, Step]:
        """(`valid`, its Step), or `train` where nothing is held out. Raises BadConfig where there is neither."""
        for split in ("valid", "train"):
            step = self.encoded(split)
            if step is not None:
                return split, step
        message = "the balancer needs data after an epoch, and there is none"
        raise BadConfig(message, "give epoch_end({'valid': (features, target)})")

    def both(self) -> tuple[Step, Step]:
        """The Steps of `train` and `valid`. Raises BadConfig where one is missing."""
        train, valid = self.encoded("train"), self.encoded("valid")
        if train is None or valid is None:
            missing = "train" if train is None else "valid"
            message = f"the balancer compares train with held-out data, and there is no {missing}"
            raise BadConfig(message, "hold out a valid split")
        return train, valid


class Balancer(nn.Module):
    """Plain joint training; every method overrides what it changes. Its parameters, if any, join the optimiser."""

    turns = 1  # optimiser steps per batch
    compares = False  # whether it needs a valid split as well as train
    paced = False  # whether it must know how many epochs there will be
    own_rate = 1.0  # learning rate of its own parameters, relative to the optimiser's

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        """Build what depends on the model: encoders by stream, the widths of their features, the number of logits."""

    def loss(self, step: Step) -> Tensor:
        """The loss to minimise: this piece's share of the mean over the batch."""
        return step.fused()[0]

    def backward(self, loss: Tensor, step: Step) -> None:
        """Add the gradients of this piece to those of the pieces before."""
        loss.backward()  # type: ignore[no-untyped-call]

    def acts(self, apply: Apply) -> Apply:
        """Where multipliers act for this `apply`; raises BadConfig where the method does not support it."""
        return apply

    def gradients(self, control: Control) -> None:
        """Change the gradients or rates of the whole batch, before clipping and the optimiser's step."""

    def stepped(self, control: Control) -> None:
        """Change the weights after the optimiser's step."""

    def epoch_end(self, epoch: Epoch) -> None:
        """Called at the end of an epoch."""


class Scores(nn.Module):
    """How well each stream alone predicts: step.score, or step.right, averaged over the batch, then over steps.

    `beta`: weight of the steps before. add() in every piece, update() once per step; `value` [S] holds the result, NaN
    until a stream occurs.
    """

    value: Tensor
    sums: Tensor

    def __init__(self, streams: int, beta: float = 0.0, measure: Measure = "true_prob") -> None:
        super().__init__()
        self.beta, self.measure = beta, measure
        self.register_buffer("value", torch.full((streams,), float("nan")))
        self.register_buffer("sums", torch.zeros(streams, 2), persistent=False)

    @torch.no_grad()
    def add(self, step: Step, own: Mapping[str, Tensor] | None = None) -> None:
        """Count a piece; own[s]: logits [N, C] of each stream (default: the model's with that stream alone)."""
        for i, stream in enumerate(step.streams):
            counts = (step.counts(stream) > 0).float()
            logits = step.only(stream) if own is None else own[stream]
            score = step.score(logits) if self.measure == "true_prob" else step.right(logits)
            self.sums[i] += torch.stack([(score * counts).sum(), counts.sum()])

    @torch.no_grad()
    def update(self, control: Control) -> Tensor:
        """The averages [S] after this step, the same on every process."""
        right, count = control.total(self.sums.clone()).unbind(1)
        now = torch.where(count > 0, right / count.clamp_min(1e-12), self.value)
        self.value.copy_(torch.where(self.value.isnan(), now, self.beta * self.value + (1 - self.beta) * now))
        self.sums.zero_()
        control.note("score", dict(zip(control.parameters, self.value.tolist(), strict=True)))
        return self.value


def linear_heads(dims: Mapping[str, int], outputs: int) -> nn.ModuleDict:
    """One linear head per stream, initialised with zeros, so that no stream starts with an advantage."""
    heads = nn.ModuleDict({stream: nn.Linear(d, outputs) for stream, d in dims.items()})
    for parameter in heads.parameters():
        nn.init.zeros_(parameter)
    return heads


def copied_from(module: nn.Module) -> dict[int, str]:
    """id of a parameter -> its stream, for the `copies` of encoders that balancers in the module hold and train."""
    copies = [getattr(m, "copies", {}) for m in module.modules() if isinstance(m, Balancer)]
    return {id(p): s for copied in copies for s, encoder in copied.items() for p in encoder.parameters()}


def own_rates(module: nn.Module) -> dict[int, float]:
    """id of a parameter -> `own_rate` of the innermost balancer that holds it, for all balancers in the module."""
    return {id(p): m.own_rate for m in module.modules() if isinstance(m, Balancer) for p in m.parameters()}
