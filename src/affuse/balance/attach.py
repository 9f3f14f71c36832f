"""A balancer in any PyTorch training loop."""

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
    """A balancer with your model and optimiser: one optimiser step per call of `step`, and `epoch_end` after an epoch.

    `encoders`: by stream; `head({stream: [N, d]}) -> logits [N, C]`. `loss(logits, target, reduction="none")` gives [N]
    or [N, D] (default: cross-entropy). Where the head is a module, probes run it in evaluation mode; where it has a
    method blocks() -> {stream: weight [C, d_s]}, methods that compare weights use these columns. `clip`: the norm to
    which gradients are clipped (0: no clipping). `epochs`: their number. `shared`: weights [*, d] of the head that read
    the features of every stream. The head gets the streams in the order of `encoders`, and zeros for a stream that a
    method leaves out. `trace` holds the numbers that the method recorded in the latest step, `terms` the terms of its
    loss. Raises BadConfig for a parameter of an encoder that the optimiser does not have, for shared weights that do
    not fit, for features of streams without an encoder, for more epochs than given to a method that depends on their
    number, and for an `apply` that the method does not support.
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
        rates = {m.own_rate for m in balancer.modules() if isinstance(m, Balancer)}
        for rate in sorted(rates):  # now, as a scheduler counts the groups when it is made
            optimizer.add_param_group({"params": [], "lr": optimizer.defaults["lr"] * rate, "own_rate": rate})
        self.trace: dict[str, float] = {}
        self.terms: Features = {}  # of the latest loss, by name
        self.shared = tuple(shared)
        self._like: Features = {}  # features of no items, with the widths for which the balancer was set up
        self._outputs = 0

    def step(self, features: Features, target: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Backward and one optimiser step (several where streams learn in turns) on features[s] [N, d_s]: the loss.

        `inputs`: the inputs of the encoders, for methods that run encoders again.
        """
        if self.balancer.paced and self.epoch >= self.epochs:
            name = type(self.balancer).__name__
            now = f"this is epoch {self.epoch + 1} of {self.epochs}"
            message = f"{name} paces itself by the number of epochs, and {now}"
            raise BadConfig(message, "give their number: Attached(..., epochs=N)")
        features = self._ordered(features)
        if not self._like:
            self._start(features, target)
        loss = torch.zeros(())
        for turn in range(self.balancer.turns):
            if turn:
                features = {s: self.encoders[s](x) for s, x in self._given(inputs).items()}
            step = self._step(features, target, inputs, turn)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.balancer.loss(step)
            self.balancer.backward(loss, step)
            control = Control(
                self.parameters, self.optimizer, self.apply,
                epoch=self.epoch, epochs=self.epochs, turn=turn, shared=self.shared,
            )  # fmt: skip
            self.balancer.gradients(control)
            if self.clip > 0:
                own = {id(p) for p in self.balancer.parameters()}
                there = [p for g in self.optimizer.param_groups for p in g["params"]]
                for of_balancer in (False, True):
                    if trained := [p for p in there if (id(p) in own) == of_balancer]:
                        nn.utils.clip_grad_norm_(trained, self.clip)
            self.optimizer.step()
            self.balancer.stepped(control)
            control.restore()
            self.trace, self.terms = control.trace, step.terms
        return loss.detach()

    def epoch_end(self, splits: Mapping[str, tuple[Features, Tensor]] | None = None) -> None:
        """Call after each epoch.

        splits[split]: (features, target) of all items of `train` or `valid`, for methods that need them.
        """
        steps = {split: self._step(self._ordered(h), y, None, 0) for split, (h, y) in (splits or {}).items()}
        self.balancer.epoch_end(Epoch(self.epoch, self.epochs, self.encoders, steps.get))
        self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """The state of the balancer: tensors and numbers. Save those of the model and the optimiser as well."""
        own = {"epoch": self.epoch, "features": self._like, "outputs": self._outputs}
        return own | {"balancer": self.balancer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`. Load the optimiser's after it, as the balancer's own parameters are part of it.

        Raises BadConfig for the state of other streams, or of another balancer.
        """
        if state["features"]:
            if list(state["features"]) != list(self.encoders):  # scores and rates lie in this order
                was, now = ", ".join(state["features"]), ", ".join(self.encoders)
                message = f"the state is of the streams {was}, and attached are {now}"
                raise BadConfig(message, "attach the same in the same order")
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
        """The streams in the order of the encoders, which is that of the scores and rates of all methods."""
        if streams.keys() != self.encoders.keys():
            given = ", ".join(streams) or "nothing"
            message = f"the streams are {', '.join(self.encoders)}, and given was {given}"
            raise BadConfig(message, "give one tensor per encoder, under its name")
        return {s: streams[s] for s in self.encoders}

    def _start(self, features: Features, target: Tensor) -> None:
        with torch.no_grad():
            present = torch.ones(len(target), len(features), dtype=torch.bool, device=target.device)
            outputs = self._probe(features, present).shape[1]
        self._set_up(features, outputs)

    def _set_up(self, features: Features, outputs: int) -> None:
        """Build the balancer's own modules for features [*, d_s]; the random state of the loop is not changed."""
        if misfit := [s for s, h in features.items() for w in self.shared if w.shape[1] != h.shape[1]]:
            message = f"the shared weights do not fit the features of stream '{misfit[0]}'"
            raise BadConfig(message, "give weights [*, d] that all streams go through")
        with torch.random.fork_rng(devices=[]):
            self.balancer.setup(self.encoders, {s: h.shape[1] for s, h in features.items()}, outputs)
        some = next(iter(features.values()))
        self.balancer.to(some.device, some.dtype)
        rates = own_rates(self.balancer)
        trained = [p for p in self.balancer.parameters() if p.requires_grad]
        for group in (g for g in self.optimizer.param_groups if "own_rate" in g):
            group["params"] += [p for p in trained if rates[id(p)] == group["own_rate"]]
        self._like, self._outputs = {s: h.new_empty(0, h.shape[1]) for s, h in features.items()}, outputs

    def _step(self, features: Features, target: Tensor, inputs: Mapping[str, Tensor] | None, turn: int) -> Step:
        n = len(target)
        present = torch.ones(n, len(features), dtype=torch.bool, device=target.device)
        weight = torch.full((n,), 1 / n, device=target.device)

        def item_loss(logits: Tensor) -> Tensor:
            return self.item_loss(logits, target, reduction="none").reshape(n, -1).mean(1)

        def forward(given: Step, present: Tensor, share: Tensor | float) -> tuple[Tensor, Tensor, Features]:
            logits = self.head(_shown(given.features, present))
            loss = (item_loss(logits) * weight * share).sum()
            return loss, logits, {"task": loss}

        again = {s: (lambda encoder, x=x: encoder(x)) for s, x in (inputs or {}).items()}
        blocks = getattr(self.head, "blocks", dict)
        place = (self.epoch, self.epochs, turn)
        return Step(features, present, target, weight, forward, self._answer, item_loss, again, blocks, *place)

    def _answer(self, given: Step, present: Tensor) -> Tensor:
        return self._probe(given.features, present)

    def _probe(self, features: Features, present: Tensor) -> Tensor:
        if not isinstance(self.head, nn.Module):
            return self.head(_shown(features, present))
        training = self.head.training
        logits: Tensor = self.head.eval()(_shown(features, present))
        self.head.train(training)
        return logits

    def _given(self, inputs: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        if inputs is None:
            message = f"{type(self.balancer).__name__} steps once per stream"
            raise BadConfig(message, "give step(..., inputs={stream: x})")
        return self._ordered(inputs)


def _shown(features: Features, present: Tensor) -> Features:
    return {s: h * present[:, i, None] for i, (s, h) in enumerate(features.items())}


def tag_groups(optimizer: torch.optim.Optimizer, parameters: Mapping[str, list[nn.Parameter]]) -> None:
    """Split the optimiser's groups by encoder, tagged `stream`, so that rates can differ; call before its first step.

    Raises BadConfig for a parameter that the optimiser lacks.
    """
    owner = {id(p): s for s, trained in parameters.items() for p in trained}
    there = {id(p) for g in optimizer.param_groups for p in g["params"]}
    for stream, trained in parameters.items():
        if any(id(p) not in there for p in trained):
            message = f"the optimiser lacks parameters of encoder '{stream}'"
            raise BadConfig(message, "make it with all parameters of the model")
    divided = []
    for group in optimizer.param_groups:
        rest = {k: v for k, v in group.items() if k != "params"}
        named = [owner.get(id(p), "") for p in group["params"]]
        for stream in dict.fromkeys(named):
            kept = [p for p, s in zip(group["params"], named, strict=True) if s == stream]
            divided.append({"params": kept, **rest, "stream": stream})
    optimizer.param_groups = divided
