"""What every balancer is: hooks around one training step, keyed by stream, that know no particular model.

A balancer sees a `Step` (what the encoders gave, and how the model goes on from there), between backward and the optimiser's
step a `Control`, and after an epoch an `Epoch`. All of its state is in its state_dict, so that a run resumes exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
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
    """One forward pass over a batch, or over one of the pieces that it is run in.

    features[s] [N, d_s] as the encoders gave them; present [N, S] bool; target [N], [N, C] or [N, D]; weight [N]: what each item
    counts for, 1 in sum over the whole batch. run(features, present) -> (all objectives of the model, a scalar; logits [N, C]; each
    objective's part by name), run(features, present, share) with share [N] as a factor of every item's weight; probe(features,
    present) -> logits, in evaluation mode. item_loss(logits) -> [N]: the task's. again[s](encoder) -> [N, d]: another encoder on
    the stream's inputs. blocks(): the columns [C, d_s] of the last layer's weight that read each stream, {} where the model does
    more than concatenate. epoch and turn count from 0. terms: what the loss was added up from, by name.
    """

    features: Features
    present: Tensor
    target: Tensor
    weight: Tensor
    run: Callable[..., tuple[Tensor, Tensor, Mapping[str, Tensor]]]
    probe: Callable[[Features, Tensor], Tensor]
    item_loss: Callable[[Tensor], Tensor]
    again: Mapping[str, Callable[[nn.Module], Tensor]] = field(default_factory=dict)
    blocks: Callable[[], Features] = dict
    epoch: int = 0
    epochs: int = 1
    turn: int = 0
    terms: dict[str, Tensor] = field(default_factory=dict)

    @property
    def streams(self) -> list[str]:
        """Names, in the order of `present`."""
        return list(self.features)

    @property
    def categorical(self) -> bool:
        """Whether the targets are classes, or shares of classes that add up to 1, and not values."""
        if not self.target.is_floating_point():
            return True
        known = self.target[self.weight > 0]
        return known.dim() > 1 and known.shape[1] > 1 and bool(((known.sum(1) - 1).abs() < 1e-3).all())

    def with_features(self, features: Features) -> Step:
        """The same step with other features."""
        return replace(self, features=features)

    def learning(self, stream: str) -> Step:
        """The same step, in which the encoders of all other streams get no gradient."""
        return self.with_features({s: h if s == stream else h.detach() for s, h in self.features.items()})

    def with_shares(self, share: Tensor) -> Step:
        """The same step with every item's weight times share [N]."""
        return replace(self, weight=self.weight * share, run=partial(self.run, share=share))

    def fused(self, weight: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """(weight times this piece's share of the model's loss, logits [N, C]) from all that is present, as in training."""
        loss, logits, parts = self.run(self.features, self.present)
        for name, part in parts.items():
            self.term(name, weight * part)
        return weight * loss, logits

    def term(self, name: str, value: Tensor) -> Tensor:
        """The value, remembered as a term of the loss; what a balancer adds is called balance.NAME."""
        self.terms[name] = self.terms.get(name, 0.0) + value.detach()
        return value

    def of(self, streams: Collection[str]) -> Tensor:
        """Presence [N, S] with all but these streams absent."""
        return self.present & torch.tensor([s in streams for s in self.features], device=self.present.device)

    def only(self, *streams: str) -> Tensor:
        """Logits [N, C] of a probe from these streams, the others taken for absent."""
        return self.probe(self.features, self.of(streams))

    def alone(self, stream: str) -> tuple[Tensor, Tensor]:
        """(loss over the items that have it, logits [N, C]) of the model from one stream, as in training."""
        logits = self.run(self.features, self.of({stream}))[1]
        return self.loss(logits, stream), logits

    def counts(self, stream: str) -> Tensor:
        """Weight [N] of every item, 0 where the stream is absent."""
        return self.weight * self.present[:, self.streams.index(stream)]

    def loss(self, logits: Tensor, stream: str) -> Tensor:
        """The task's loss of logits [N, C] over the items that have the stream: this piece's share of the batch's mean."""
        return (self.item_loss(logits) * self.counts(stream)).sum()

    def losses(self, answers: Features) -> Tensor:
        """The losses of answers[s], logits [N, C] of each stream alone, added up."""
        return sum((self.loss(logits, s) for s, logits in answers.items()), self.weight.new_zeros(()))

    def shares(self, classes: int) -> Tensor:
        """Targets as shares of classes, [N, C]."""
        hard = not self.target.is_floating_point()
        return one_hot(self.target, classes).float() if hard else torch.nan_to_num(self.target)

    def score(self, logits: Tensor) -> Tensor:
        """How well logits answer, 0..1, [N]: the true class' probability, or exp(-|error|) of values."""
        if not self.target.is_floating_point():
            return logits.float().softmax(1).gather(1, self.target.unsqueeze(1)).squeeze(1)
        if self.categorical:
            return (logits.float().softmax(1) * torch.nan_to_num(self.target)).sum(1)
        return torch.exp(-(logits.float() - torch.nan_to_num(self.target)).abs().mean(1))

    def right(self, logits: Tensor) -> Tensor:
        """1 where logits answer right, else 0, [N]: the likeliest class is it, or every value is on the target's side of 0."""
        if not self.target.is_floating_point():
            return (logits.argmax(1) == self.target).float()
        if self.categorical:
            return (logits.argmax(1) == self.shares(logits.shape[1]).argmax(1)).float()
        return ((logits > 0) == (self.target > 0)).all(1).float()


@dataclass
class Control:
    """What a balancer may do once the gradients of the whole batch lie there.

    parameters[s]: those of stream s' encoder; shared: weights [*, d] that read every stream's features alike. `apply`: multipliers
    act on gradients, or on the learning rates of the optimiser's groups that are tagged with a stream, because Adam divides a
    constant factor of the gradient out again (auto: by the optimiser). `total` adds a tensor up over processes.
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
        """Multiply the step of every stream's encoder by k[s]; `noise` adds N(0, std(g)^2) to each gradient g first seen."""
        self.note("k", k)
        processes = float(self.total(self.optimizer.param_groups[0]["params"][0].new_ones(1))) if noise else 1.0
        rates = self.apply == "lr" or (self.apply == "auto" and adapts(self.optimizer))
        for stream, factor in k.items():
            grads = [p.grad for p in self.parameters[stream] if p.grad is not None]
            # all processes add the same: the sum of what each drew
            spread = [self.total(torch.randn_like(g) * g.std(correction=0)) / processes**0.5 for g in grads] if noise else []
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
        """What got no gradient at all takes no step: neither momentum nor weight decay moves it."""
        there = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        sizes = torch.stack(torch._foreach_norm([p.grad for p in there])).tolist() if there else []
        for p, size in zip(there, sizes, strict=True):
            if size == 0:
                p.grad = None

    def restore(self) -> None:
        """Put the learning rates back, after the optimiser's step."""
        for group, rate in zip(self.optimizer.param_groups, self._rates or [], strict=False):
            group["lr"] = rate
        self._rates = None

    def note(self, what: str, values: Mapping[str, float]) -> None:
        """Remember numbers per stream for the run's metrics."""
        self.trace |= {f"{what}.{stream}": float(v) for stream, v in values.items()}


def adapts(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimiser divides gradients by their size, so that a constant factor is lost."""
    return any("betas" in g or "rho" in g or "alpha" in g or "lr_decay" in g for g in optimizer.param_groups)


@dataclass(frozen=True)
class Epoch:
    """What a balancer sees after an epoch: seen(split), a Step of all of `train` or `valid` in evaluation mode (None: no such split)."""

    number: int
    epochs: int
    encoders: Mapping[str, nn.Module]
    seen: Callable[[str], Step | None]

    def held_out(self) -> tuple[str, Step]:
        """(`valid`, its Step), or `train` where nothing is held out. Raises BadConfig where neither can be seen."""
        for split in ("valid", "train"):
            step = self.seen(split)
            if step is not None:
                return split, step
        raise BadConfig("the balancer looks at data after an epoch, and there is none", "give epoch_end({'valid': (features, target)})")

    def both(self) -> tuple[Step, Step]:
        """The Steps of `train` and `valid`. Raises BadConfig where one cannot be seen."""
        train, valid = self.seen("train"), self.seen("valid")
        if train is None or valid is None:
            missing = "train" if train is None else "valid"
            raise BadConfig(f"the balancer compares train with held-out data, and there is no {missing}", "hold out a valid split")
        return train, valid


class Balancer(nn.Module):
    """Plain joint training; every method overrides what it changes. Its parameters, if any, join the optimiser."""

    turns = 1  # optimiser steps per batch
    compares = False  # whether it needs a valid split beside train
    paced = False  # whether it must know how many epochs there will be
    own_rate = 1.0  # learning rate of its own parameters, relative to the optimiser's

    def setup(self, encoders: Mapping[str, nn.Module], dims: Mapping[str, int], outputs: int) -> None:
        """Make what depends on the model: encoders by stream, the widths [d_s] of their features, the number of logits."""

    def features(self, step: Step) -> Features:
        """The features that the model goes on with."""
        return step.features

    def loss(self, step: Step) -> Tensor:
        """What is minimised: this piece's share of the batch's mean."""
        return step.fused()[0]

    def backward(self, loss: Tensor, step: Step) -> None:
        """Add the gradients of this piece to those that lie there."""
        loss.backward()  # type: ignore[no-untyped-call]

    def acts(self, apply: Apply) -> Apply:
        """Where its multipliers act when `apply` is asked for. Raises BadConfig where the method has no such place."""
        return apply

    def gradients(self, control: Control) -> None:
        """Change the gradients or rates of the whole batch, before clipping and the optimiser's step."""

    def stepped(self, control: Control) -> None:
        """Change what the optimiser's step has made of the weights."""

    def epoch_end(self, epoch: Epoch) -> None:
        """Look at an epoch's end."""


class Scores(nn.Module):
    """How well each stream alone answers: step.score, or step.right, averaged over the whole batch, then over steps with `beta`.

    add() in every piece, update() once per step; `value` [S] holds the result, NaN until a stream was seen.
    """

    value: Tensor
    sums: Tensor

    def __init__(self, streams: int, beta: float = 0.0, measure: Measure = "true_prob") -> None:
        super().__init__()
        self.beta, self.measure = beta, measure
        self.register_buffer("value", torch.full((streams,), float("nan")))
        self.register_buffer("sums", torch.zeros(streams, 2), persistent=False)

    @torch.no_grad()
    def add(self, step: Step, answers: Mapping[str, Tensor] | None = None) -> None:
        """Count a piece; answers[s]: logits [N, C] of each stream (default: the model's with that stream alone)."""
        for i, stream in enumerate(step.streams):
            counts = (step.counts(stream) > 0).float()
            logits = step.only(stream) if answers is None else answers[stream]
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
    """One linear head per stream, of zeros: no stream starts ahead of another."""
    heads = nn.ModuleDict({stream: nn.Linear(d, outputs) for stream, d in dims.items()})
    for parameter in heads.parameters():
        nn.init.zeros_(parameter)
    return heads


def copied_from(module: nn.Module) -> dict[int, str]:
    """id of a parameter -> its stream, for what balancers in the module hold as `copies` of encoders: trained as those are."""
    copies = [getattr(m, "copies", {}) for m in module.modules() if isinstance(m, Balancer)]
    return {id(p): s for copied in copies for s, encoder in copied.items() for p in encoder.parameters()}


def own_rates(module: nn.Module) -> dict[int, float]:
    """id of a parameter -> its `own_rate`, for all parameters of balancers in the module; what is inside decides."""
    return {id(p): m.own_rate for m in module.modules() if isinstance(m, Balancer) for p in m.parameters()}
