"""A balancer in anybody's training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.balance.balancer import Apply, Balancer, Control, Epoch, Features, Step, own_rates
from affuse.core.errors import BadConfig

Head = Callable[[Features], Tensor]


class Attached:
    """A balancer at work: one optimiser step per call of `step`, and `epoch_end` after an epoch.

    `encoders`: by stream; `head({stream: [N, d]}) -> logits [N, C]`. `loss(logits, target, reduction="none")` gives [N] or [N, D] (default: cross-entropy). Where the head is a module, probes run it
    in evaluation mode; where it has a method blocks() -> {stream: weight [C, d_s]}, methods that compare weights see those columns.
    `clip`: the norm that gradients are clipped to (0: not). `epochs`: how many there will be. `shared`: weights [*, d] of the head
    that read every stream's features. The head gets the streams in the order of `encoders`; one that a method leaves out is zeros.
    `trace` and `terms` hold what the method noted in the latest step, and what its loss was added up from. Raises BadConfig for a
    parameter of an encoder that the optimiser does not have, for shared weights that do not fit, for features of other streams than
    the encoders', for more epochs than were announced to a method that paces itself by them, and for an `apply` that is not its own.
    """

    def __init__(
        self,
        balancer: Balancer,
        encoders: Mapping[str, nn.Module],
        head: Head,
        optimizer: torch.optim.Optimizer,
        *,
        loss: Callable[..., Tensor] = F.cross_entropy,
        apply: Apply = "auto",
        clip: float = 0.0,
        epochs: int = 1,
        shared: Sequence[nn.Parameter] = (),
    ) -> None:
        self.balancer, self.encoders, self.head, self.optimizer = balancer, dict(encoders), head, optimizer
        self.item_loss, self.apply, self.clip, self.epochs, self.epoch = loss, balancer.acts(apply), clip, epochs, 0
        self.parameters = {s: [p for p in e.parameters() if p.requires_grad] for s, e in self.encoders.items()}
        tag_groups(optimizer, self.parameters)
        for rate in sorted({m.own_rate for m in balancer.modules() if isinstance(m, Balancer)}):  # before a scheduler counts the groups
            optimizer.add_param_group({"params": [], "lr": optimizer.defaults["lr"] * rate, "own_rate": rate})
        self.trace: dict[str, float] = {}
        self.terms: Features = {}  # of the latest loss, by name
        self.shared = tuple(shared)
        self._like: Features = {}  # what the balancer was set up for: features of no items
        self._outputs = 0

    def step(self, features: Features, target: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Backward and one optimiser step (several where the method takes turns) on features[s] [N, d_s]; the loss.

        `inputs`: what the encoders were given, for methods that run other encoders on it or take turns.
        """
        if self.balancer.paced and self.epoch >= self.epochs:
            name = type(self.balancer).__name__
            message = f"{name} paces itself by the number of epochs, and this is epoch {self.epoch + 1} of {self.epochs}"
            raise BadConfig(message, "say how many there will be: Attached(..., epochs=N)")
        features = self._ordered(features)
        if not self._like:
            self._start(features, target)
        loss = torch.zeros(())
        for turn in range(self.balancer.turns):
            if turn:
                features = {s: self.encoders[s](x) for s, x in self._given(inputs).items()}
            step = self._step(features, target, inputs, turn)
            step = step.with_features(self.balancer.features(step))
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.balancer.loss(step)
            self.balancer.backward(loss, step)
            control = Control(self.parameters, self.optimizer, self.apply, epoch=self.epoch, epochs=self.epochs, turn=turn, shared=self.shared)
            self.balancer.gradients(control)
            if self.clip > 0:
                own = {id(p) for p in self.balancer.parameters()}
                there = [p for g in self.optimizer.param_groups for p in g["params"]]
                for mine in (False, True):
                    if trained := [p for p in there if (id(p) in own) == mine]:
                        nn.utils.clip_grad_norm_(trained, self.clip)
            self.optimizer.step()
            self.balancer.stepped(control)
            control.restore()
            self.trace, self.terms = control.trace, step.terms
        return loss.detach()

    def epoch_end(self, seen: Mapping[str, tuple[Features, Tensor]] | None = None) -> None:
        """Tell the balancer that an epoch is over; seen[split]: (features, target) of all of `train` or `valid`, for those that look."""
        steps = {split: self._step(self._ordered(h), y, None, 0) for split, (h, y) in (seen or {}).items()}
        self.balancer.epoch_end(Epoch(self.epoch, self.epochs, self.encoders, steps.get))
        self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """All that is kept from one epoch to the next, in tensors and numbers; the modules and the optimiser keep their own."""
        return {"epoch": self.epoch, "features": self._like, "outputs": self._outputs, "balancer": self.balancer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; the optimiser's, which counts the balancer's own parameters, is loaded after it.

        Raises BadConfig for the state of other streams, or of another balancer.
        """
        if state["features"]:
            if list(state["features"]) != list(self.encoders):  # scores and rates lie in this order
                was, now = ", ".join(state["features"]), ", ".join(self.encoders)
                raise BadConfig(f"the state is of the streams {was}, and attached are {now}", "attach the same in the same order")
            if not self._like:
                device = self.optimizer.param_groups[0]["params"][0].device
                self._set_up({s: h.to(device) for s, h in state["features"].items()}, state["outputs"])
        try:
            self.balancer.load_state_dict(state["balancer"])
        except RuntimeError as error:
            message = f"the state is not of this {type(self.balancer).__name__}: {error}"
            raise BadConfig(message, "attach the balancer that was saved") from error
        self.epoch = state["epoch"]

    def _ordered(self, streams: Mapping[str, Tensor]) -> Features:
        """By stream in the order of the encoders, in which methods put their scores and rates."""
        if streams.keys() != self.encoders.keys():
            given = ", ".join(streams) or "nothing"
            raise BadConfig(f"the streams are {', '.join(self.encoders)}, and given was {given}", "give one tensor per encoder, under its name")
        return {s: streams[s] for s in self.encoders}

    def _start(self, features: Features, target: Tensor) -> None:
        with torch.no_grad():
            outputs = self._probe(features, torch.ones(len(target), len(features), dtype=torch.bool, device=target.device)).shape[1]
        self._set_up(features, outputs)

    def _set_up(self, features: Features, outputs: int) -> None:
        """Make what the balancer has of its own, for features [*, d_s], and have it trained; the loop's random numbers stay."""
        if misfit := [s for s, h in features.items() for w in self.shared if w.shape[1] != h.shape[1]]:
            raise BadConfig(f"the shared weights do not fit the features of stream '{misfit[0]}'", "give weights [*, d] that all streams go through")
        with torch.random.fork_rng(devices=[]):
            self.balancer.setup(self.encoders, {s: h.shape[1] for s, h in features.items()}, outputs)
        some = next(iter(features.values()))
        self.balancer.to(some.device, some.dtype)
        rates = own_rates(self.balancer)
        for group in (g for g in self.optimizer.param_groups if "own_rate" in g):
            group["params"] += [p for p in self.balancer.parameters() if p.requires_grad and rates[id(p)] == group["own_rate"]]
        self._like, self._outputs = {s: h.new_empty(0, h.shape[1]) for s, h in features.items()}, outputs

    def _step(self, features: Features, target: Tensor, inputs: Mapping[str, Tensor] | None, turn: int) -> Step:
        n = len(target)
        present = torch.ones(n, len(features), dtype=torch.bool, device=target.device)
        weight = torch.full((n,), 1 / n, device=target.device)

        def item_loss(logits: Tensor) -> Tensor:
            return self.item_loss(logits, target, reduction="none").reshape(n, -1).mean(1)

        def run(features: Features, present: Tensor, share: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Features]:
            logits = self.head(_shown(features, present))
            loss = (item_loss(logits) * weight * share).sum()
            return loss, logits, {"task": loss}

        again = {s: (lambda encoder, x=x: encoder(x)) for s, x in (inputs or {}).items()}
        blocks = getattr(self.head, "blocks", dict)
        return Step(
            features, present, target, weight, run, self._probe, item_loss, again, blocks, self.epoch, self.epochs, turn
        )

    def _probe(self, features: Features, present: Tensor) -> Tensor:
        if not isinstance(self.head, nn.Module):
            return self.head(_shown(features, present))
        training = self.head.training
        logits: Tensor = self.head.eval()(_shown(features, present))
        self.head.train(training)
        return logits

    def _given(self, inputs: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        if inputs is None:
            raise BadConfig(f"{type(self.balancer).__name__} steps once per stream", "give step(..., inputs={stream: x})")
        return self._ordered(inputs)


def _shown(features: Features, present: Tensor) -> Features:
    return {s: h * present[:, i, None] for i, (s, h) in enumerate(features.items())}


def tag_groups(optimizer: torch.optim.Optimizer, parameters: Mapping[str, list[nn.Parameter]]) -> None:
    """Part the optimiser's groups by encoder, each tagged `stream`, so that rates can differ; before its first step.

    Raises BadConfig for a parameter that the optimiser lacks.
    """
    owner = {id(p): s for s, trained in parameters.items() for p in trained}
    there = {id(p) for g in optimizer.param_groups for p in g["params"]}
    for stream, trained in parameters.items():
        if any(id(p) not in there for p in trained):
            raise BadConfig(f"the optimiser lacks parameters of encoder '{stream}'", "make it with all parameters of the model")
    parted = []
    for group in optimizer.param_groups:
        rest = {k: v for k, v in group.items() if k != "params"}
        named = [owner.get(id(p), "") for p in group["params"]]
        for stream in dict.fromkeys(named):
            kept = [p for p, s in zip(group["params"], named, strict=True) if s == stream]
            parted.append({"params": kept, **rest, "stream": stream})
    optimizer.param_groups = parted
