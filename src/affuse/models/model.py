"""The four-slot model: an encoder per stream, a fusion, contexts before or after it, a head per task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.parts import Encoder, Part
from affuse.core.tasks import Task
from affuse.core.types import Batch, Encoded, Encoding, Fused, Output, StreamSpec
from affuse.layers.conversation import Conversations, conversations
from affuse.layers.grid import on_grid
from affuse.layers.masked import several_processes
from affuse.models.build import Architecture, check_fit, make_part, reads_grid, reads_tokens, split_contexts

FUSED = "fused"
EVERY = "every"  # the name of a head that all streams share
Rows = dict[str, Tensor]
Through = Callable[[nn.ModuleList, Rows, Tensor], Rows]  # (chain of contexts, x[s] [N, d_s], present [N, S]) -> rows


class Model(nn.Module):
    """Encoders -> contexts -> fusion -> contexts -> heads, for any subset of its streams.

    Training, evaluation, `analyze`, the live session and balancers all use `encode` and `answer`. Raises BadConfig for
    parts that do not fit each other or the tasks.
    """

    def __init__(self, parts: Architecture, streams: Sequence[StreamSpec], tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.parts, self.streams, self.tasks = parts, tuple(streams), dict(tasks)
        for s in self.streams:
            if "." in s.name or hasattr(nn.ModuleDict, s.name):
                raise BadConfig(f"a stream cannot be named '{s.name}'", "name it otherwise: letters, digits, _ and -")
        made: dict[str, Any] = {s.name: make_part("encoders", parts.streams[s.name], s) for s in self.streams}
        self.encoders = nn.ModuleDict(made)
        self.rates = {name: float(encoder.rate) for name, encoder in made.items()}
        self.dims = dims = {name: int(encoder.dim) for name, encoder in made.items()}
        before, after = split_contexts(parts.context)
        self.before, dims = _chain(before, dims)
        self.fusion = make_part("fusions", parts.fusion, dims)
        self.level: str = getattr(self.fusion, "level", "features")  # what it joins: features, decisions or both
        self.width = 0 if self.level == "decisions" else int(self.fusion.dim)
        check_fit(parts, self.fusion, self.rates, self.tasks)
        self.reads_tokens, self.reads_grid = reads_tokens(parts.fusion.name), reads_grid(parts.fusion.name)
        self.after, fused = _chain(after, {} if self.level == "decisions" else {FUSED: self.fusion.dim})
        widths = {name: task.width for name, task in self.tasks.items()}
        self.heads = nn.ModuleDict({t: nn.Linear(fused[FUSED], width) for t, width in widths.items()} if fused else {})
        make_head = getattr(self.fusion, "make_head", nn.Linear)
        self.one_head: bool = getattr(self.fusion, "one_head", False)
        owners = {EVERY: next(iter(dims.values()))} if self.one_head else dims
        own = {t: width for t, width in widths.items() if not self.tasks[t].per_frame}
        self.stream_heads = nn.ModuleDict(
            {n: nn.ModuleDict({t: make_head(d, width) for t, width in own.items()}) for n, d in owners.items()}
            if self.level != "features" or parts.unimodal
            else {}
        )
        self.frozen: set[str] = set()
        self.fitted: set[str] = set()  # streams whose normalisation came with the weights of another run

    def freeze(self, stream: str) -> None:
        """Keep a stream's encoder as it is: eval mode, no gradient, statistics untouched."""
        self.frozen.add(stream)
        self.encoders[stream].requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Model:
        """Training mode for all modules but those of which every parameter is frozen."""
        super().train(mode)
        for module in self.modules() if mode else ():
            owned = list(module.parameters())
            if owned and not any(p.requires_grad for p in owned):
                module.eval()
        return self

    @property
    def conversational(self) -> bool:
        """Whether predictions depend on other utterances of the conversation, which must then be in the same batch."""
        return bool(len(self.before) + len(self.after))

    @property
    def causal(self) -> bool:
        """Whether no prediction depends on later utterances."""
        return all(getattr(part, "mode", "causal") == "causal" for part in [*self.before, *self.after])

    @property
    def modality(self) -> dict[str, str]:
        """Stream name -> modality."""
        return {s.name: s.modality for s in self.streams}

    def fit(self, stream: str, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit a stream's normalisation on (x, mask) of the training split, where its encoder has one."""
        encoder: Any = self.encoders[stream]
        if hasattr(encoder, "fit") and stream not in self.frozen | self.fitted:
            encoder.fit(batches)

    def forward(self, batch: Batch) -> Output:
        """Output for a batch: fuse(encode(batch))."""
        return self.fuse(self.encode(batch), batch)

    def encode(self, batch: Batch) -> Encoded:
        """Encode every stream; an encoder only gets the utterances that have its stream."""
        names = tuple(s.name for s in self.streams)
        each = {}
        for name, there in zip(names, batch.present.unbind(1), strict=True):
            each[name] = encode_present(self.encoders[name], batch.x[name], batch.mask[name], there)
        start = torch.zeros(len(batch), dtype=torch.float64, device=batch.present.device)
        return Encoded(
            names,
            {n: e.tokens for n, e in each.items()},
            {n: e.mask for n, e in each.items()},
            {n: e.pooled for n, e in each.items()},
            batch.present,
            self.rates,
            {n: batch.t0.get(n, start) for n in names},
        )

    def fuse(self, encoded: Encoded, batch: Batch) -> Output:
        """Contexts, fusion and heads on encoded streams; streams that are absent in `encoded.present` are not used."""
        if not self.conversational:
            return self.answer(encoded, _unchanged)
        found = conversations_of(batch)
        return self.answer(encoded, lambda chain, x, present: _through(chain, x, present, found))

    def answer(self, encoded: Encoded, through: Through) -> Output:
        """From encoded streams to an Output, offline or live; `through` runs a chain of contexts over rows."""
        if len(self.before):
            encoded = replace(encoded, pooled=through(self.before, encoded.pooled, encoded.present))
        fused: Fused = self.fusion(on_grid(encoded) if self.reads_grid else encoded)
        if len(self.after):
            rows = through(self.after, {FUSED: fused.pooled}, encoded.present.any(1, keepdim=True))
            fused = replace(fused, pooled=rows[FUSED])
        return self._heads(fused, encoded)

    def _heads(self, fused: Fused, encoded: Encoded) -> Output:
        """The heads on the fused features, and on the vectors of every stream."""
        unimodal = {s: {t: head(encoded.pooled[s]) for t, head in heads.items()} for s, heads in self._head_items()}
        joint = {t: head(fused.tokens if self.tasks[t].per_frame else fused.pooled) for t, head in self.heads.items()}
        if self.level == "features":
            return Output(joint, fused, unimodal)
        own = {t: torch.stack([unimodal[s][t] for s in encoded.streams], 1) for t in self.tasks}
        if self.level == "decisions":
            return Output({t: self.fusion.combine(z, encoded) for t, z in own.items()}, fused, unimodal)
        return Output({t: self.fusion.combine(z, encoded, joint[t]) for t, z in own.items()}, fused, unimodal)

    def _head_items(self) -> Iterable[tuple[str, Any]]:
        if self.one_head:
            return ((s.name, self.stream_heads[EVERY]) for s in self.streams)
        return self.stream_heads.items()


def conversations_of(batch: Batch) -> Conversations:
    """The conversations of a batch; without any, every utterance is a conversation of its own."""
    n = len(batch)
    names, speakers = batch.conversation or [""] * n, batch.speaker or [""] * n
    return conversations(names, batch.position or [0] * n, speakers, batch.present.device)


def _chain(given: Sequence[Part], dims: dict[str, int]) -> tuple[nn.ModuleList, dict[str, int]]:
    """A chain of contexts, each built for the widths of the one before it; and the widths of the last one."""
    made = []
    for part in given:
        made.append(make_part("contexts", part, dims))
        dims = dict(made[-1].dims)
    return nn.ModuleList(made), dims


def _unchanged(chain: nn.ModuleList, x: Rows, present: Tensor) -> Rows:
    return x


def _through(chain: nn.ModuleList, x: Mapping[str, Tensor], present: Tensor, among: Conversations) -> Rows:
    """Run the parts on rows x[s] [N, d_s] of the batch: ordered by conversation, with zeros for absent streams."""
    there = among.sort(present)
    rows = {name: among.sort(value) * there[:, i, None] for i, (name, value) in enumerate(x.items())}
    for part in chain:
        rows = part(rows, there, among)
    return {name: among.unsort(value) for name, value in rows.items()}


def encode_present(encoder: nn.Module | Encoder, x: Tensor, mask: Tensor, present: Tensor) -> Encoding:
    """Encode one stream x [N, T, ...], mask [N, T]: only the utterances that have it; the others get zeros."""
    if present.all():
        return encoder(x, mask)
    rows = present.nonzero().squeeze(1)
    if len(rows) == 0:
        empty = torch.zeros(len(present), 1, int(encoder.dim), device=x.device)  # type: ignore[arg-type]
        if getattr(encoder, "training", False) and several_processes():
            # batch norms of the other processes wait for the sums of this one, forward and backward
            idle = encoder(torch.zeros_like(x[:1]), torch.zeros_like(mask[:1]))
            empty = empty + 0 * idle.pooled.sum()
        return Encoding(empty, torch.zeros_like(empty[..., 0], dtype=torch.bool), empty[:, 0])
    return Encoding(*(_scatter(value, rows, len(present)) for value in encoder(x[rows], mask[rows])))


def _scatter(value: Tensor, rows: Tensor, n: int) -> Tensor:
    return value.new_zeros(n, *value.shape[1:]).index_copy(0, rows, value)
