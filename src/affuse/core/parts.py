"""Parts: a Part is a name with options; a Protocol per kind says what the rest of affuse may call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from affuse.core.errors import BadConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from affuse.core.types import Batch, Encoded, Encoding, Feature, Fused, Output, StreamSpec

Level = Literal["features", "decisions", "both"]
Need = Literal["pooled", "tokens", "grid", "unimodal", "teacher", "views"]


@dataclass(frozen=True)
class Part:
    """A choice in a recipe: the name of a registered part and its options; `NAME` or `{name: NAME, option: value}`."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As in a recipe: the name with the options beside it."""
        return {"name": self.name, **self.options}

    @classmethod
    def read(cls, value: Any, where: str = "part") -> Part:
        """The part that a recipe's value names; BadConfig for anything else."""
        if isinstance(value, Part):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            return cls(value["name"], {str(k): v for k, v in value.items() if k != "name"})
        raise BadConfig(f"{where} = {value!r} is not a part", f"write {where}=NAME or {where}: {{name: NAME, ...}}")


class Extractor(Protocol):
    """Makes one Feature of one clip; `spec` says what its steps look like."""

    @property
    def spec(self) -> StreamSpec: ...

    def __call__(self, clip: Any) -> Feature: ...


class Encoder(Protocol):
    """One stream x [N, T, ...], mask [N, T] -> Encoding with tokens [N, T', dim].

    `rate`: tokens per second, 0 where they are no moments in time. An encoder that normalises has `fit(batches)`
    besides.
    """

    dim: int
    rate: float

    def __call__(self, x: Tensor, mask: Tensor) -> Encoding: ...


class Fitted(Protocol):
    """An encoder with a normalisation that is fitted on (x, mask) of the training split."""

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None: ...


class Fusion(Protocol):
    """All streams -> Fused, pooled [N, dim]. Made for {stream: width}.

    `level`: what it joins. Where that is decisions, `combine` joins the streams' own logits [N, S, C], for "both" with
    those of the fused features [N, C].
    """

    dim: int

    def __call__(self, encoded: Encoded) -> Fused: ...


class Context(Protocol):
    """x[s] [N, d_s] of utterances ordered by conversation, present [N, S] -> [N, dims[s]]. `stands`: before or after
    the fusion.

    `mode`: offline, causal or lookahead. Used live it has `begin() -> state` and `push(x, present, speaker, state)`, or
    a `reach`: how many utterances back its answer looks.
    """

    dims: dict[str, int]
    mode: str
    stands: str

    def __call__(self, x: dict[str, Tensor], present: Tensor, conversations: Any) -> dict[str, Tensor]: ...


class Objective(Protocol):
    """What is minimised: the loss of every item [N], or of every frame [N, L], and its weight in the batch's mean.

    Made for a Task. `needs`: what of `Computed` it reads (unimodal, tokens, teacher, views). `couples`: whether an
    item's loss depends on the other items of the batch. What depends on the model is made in `setup(model)`;
    parameters, buffers and queues are checkpointed. `fit(labels)` gets the known training labels. `stepped()` is called
    after the optimiser's step; `averaged` lists (copy, module): copies that follow like the teacher. An objective that
    `leaves` something in `Computed` stands before one that `reads` it.
    """

    def weights(self, batch: Batch) -> Tensor: ...

    def __call__(self, output: Output, batch: Batch, computed: Computed) -> Tensor: ...


class Metric(Protocol):
    """Additive statistics [N, K] of truth and predictions, and the metric [...] of their sums [..., K]."""

    @staticmethod
    def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray: ...

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray: ...


class Writer(Protocol):
    """Writes a Timeline in one format."""

    def __call__(self, timeline: Any, path: Any) -> Any: ...


class Network(Protocol):
    """The model, as an objective may use it: other inputs or re-paired streams go through the same forward pass.

    dims: stream -> width of its pooled vectors; width: that of the fused ones, 0 where decisions are joined;
    conversational: whether answers depend on other utterances.
    """

    dims: dict[str, int]
    width: int

    @property
    def conversational(self) -> bool: ...

    def encode(self, batch: Batch) -> Encoded: ...

    def fuse(self, encoded: Encoded, batch: Batch) -> Output: ...


class Taught(Protocol):
    """What the moving average of the model makes of a batch, computed when it is first asked for; no gradient."""

    @property
    def encoded(self) -> Encoded: ...

    @property
    def output(self) -> Output: ...


@dataclass(frozen=True)
class Pairs:
    """How the n rows of a batch that have two streams compare with M rows of all processes and the Q of a queue.

    rows [n]: which rows of the batch; code [n]: a number for each utterance; similar: stream a to the keys of b, and b
    to those of a, [n, M + Q] each, divided by the temperature; taught: those of the teacher; bias [n, M + Q]: what is
    added to both before a softmax, -inf where a key does not count; target [n, M + Q]: the shares of the positives;
    negative [n, M + Q] bool: keys that may be drawn as negatives; fresh: M.
    """

    rows: Tensor
    code: Tensor
    similar: tuple[Tensor, Tensor]
    taught: tuple[Tensor, Tensor] | None
    bias: Tensor
    target: Tensor
    negative: Tensor
    fresh: int


@dataclass
class Computed:
    """What a training step has computed for a batch, beside the Output that an objective gets.

    model: the network itself; encoded: streams as the fusion read them; teacher: what the moving average of the model
    makes of the same batch (None unless an objective needs it); views: one Output per run of contexts and fusion;
    generator: random numbers of this step's own; step, epoch: counted from 0, of `steps` in all; gather: rows of all
    processes [M, ...] in the order of their ranks, with gradient for the own ones; pairs: what contrasts before this
    objective left, by their two streams; count: adds a number to what the epoch's row says under a name.
    """

    model: Network
    encoded: Encoded
    teacher: Taught | None = None
    views: Sequence[Output] = ()
    generator: torch.Generator | None = None
    step: int = 0
    steps: int = 1
    epoch: int = 0
    gather: Callable[[Tensor], Tensor] = lambda x: x
    pairs: dict[tuple[str, str], Pairs] = field(default_factory=dict)
    count: Callable[[str, Tensor | float], None] = lambda name, number: None


def needs(objective: nn.Module | Objective) -> frozenset[str]:
    """What an objective says in `needs` that it reads besides the Output's logits; nothing where it has none."""
    return frozenset(getattr(objective, "needs", ()))
