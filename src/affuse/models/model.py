"""The four-slot model: an encoder per stream, a context before or after the fusion, a head per task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from affuse.core import io, registry
from affuse.core.config import parts as parts_of
from affuse.core.errors import BadConfig, BadRun
from affuse.core.labels import LabelSpace
from affuse.core.types import Batch, Encoded, Encoding, Output, StreamSpec
from affuse.layers.conversation import Conversations, conversations
from affuse.layers.masked import several_processes

if TYPE_CHECKING:
    from affuse.models.stream import Stream

FUSED = "fused"
EVERY = "every"  # the place of a head that all streams share


class Model(nn.Module):
    """Encoders -> contexts -> fusion -> contexts -> heads, for any subset of its streams.

    `parts` holds {streams: {name: encoder part}, fusion: part, context: parts}, each part {name, **options}, and
    {refined: {task: [class of every finer class]}}: such a task's logits are those of the finer classes.
    """

    def __init__(
        self, parts: Mapping[str, Any], streams: Sequence[StreamSpec], spaces: Mapping[str, LabelSpace]
    ) -> None:
        super().__init__()
        self.parts, self.streams, self.spaces = dict(parts), tuple(streams), dict(spaces)
        for s in self.streams:
            if "." in s.name or hasattr(nn.ModuleDict, s.name):
                raise BadConfig(f"a stream cannot be named '{s.name}'", "name it otherwise: letters, digits, _ and -")
        self.encoders = nn.ModuleDict({s.name: make_part("encoders", parts["streams"][s.name], s) for s in self.streams})
        dims = {name: int(encoder.dim) for name, encoder in self.encoders.items()}  # type: ignore[arg-type]
        before, after = _contexts(parts["context"])
        self.before, dims = _chain(before, dims)
        self.fusion = make_part("fusions", parts["fusion"], dims)
        refined = parts.get("refined", {})
        widths = {t: len(refined.get(t, space)) for t, space in self.spaces.items()}
        self.level: str = getattr(self.fusion, "level", "features")  # what it joins: features, decisions or both
        _check_fusion(parts["fusion"]["name"], self.fusion, self.spaces, after)
        self.after, fused = _chain(after, {} if self.level == "decisions" else {FUSED: self.fusion.dim})
        self.heads = nn.ModuleDict({t: nn.Linear(fused[FUSED], width) for t, width in widths.items()} if fused else {})
        make_head = getattr(self.fusion, "make_head", nn.Linear)
        self.one_head: bool = getattr(self.fusion, "one_head", False)
        owners = {EVERY: next(iter(dims.values()))} if self.one_head else dims
        self.stream_heads = nn.ModuleDict(
            {n: nn.ModuleDict({t: make_head(d, width) for t, width in widths.items()}) for n, d in owners.items()}
            if self.level != "features" or parts.get("unimodal")
            else {}
        )
        self.frozen: set[str] = set()

    def freeze(self, stream: str) -> None:
        """Keep a stream's encoder as it is: eval mode, no gradient, statistics untouched."""
        self.frozen.add(stream)
        self.encoders[stream].requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Model:
        """Training mode for all but frozen encoders."""
        super().train(mode)
        for stream in self.frozen:
            self.encoders[stream].eval()
        return self

    @property
    def conversational(self) -> bool:
        """Whether an utterance's answer depends on others of its conversation, which must then come together."""
        return bool(len(self.before) + len(self.after))

    @property
    def causal(self) -> bool:
        """Whether no answer depends on what is said later."""
        return all(getattr(part, "mode", "causal") == "causal" for part in [*self.before, *self.after])

    def stream(self) -> Stream:
        """A conversation that goes on: its `push` answers utterance by utterance. BadConfig for a model that looks ahead."""
        from affuse.models.stream import Stream

        return Stream(self)

    @property
    def modality(self) -> dict[str, str]:
        """Stream name -> modality."""
        return {s.name: s.modality for s in self.streams}

    def fit(self, stream: str, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit a stream's normalisation on (x, mask) of the training split, where its encoder has one."""
        encoder: Any = self.encoders[stream]
        if hasattr(encoder, "fit") and stream not in self.frozen:
            encoder.fit(batches)

    def forward(self, batch: Batch) -> Output:
        """Output for a batch: fuse(encode(batch))."""
        return self.fuse(self.encode(batch), batch)

    def encode(self, batch: Batch) -> Encoded:
        """Every stream through its encoder; only utterances that have the stream are computed."""
        names = tuple(s.name for s in self.streams)
        encodings = {n: encode_present(self.encoders[n], batch.x[n], batch.mask[n], batch.present[:, i]) for i, n in enumerate(names)}
        return Encoded(
            names,
            {n: e.tokens for n, e in encodings.items()},
            {n: e.mask for n, e in encodings.items()},
            {n: e.pooled for n, e in encodings.items()},
            batch.present,
        )

    def fuse(self, encoded: Encoded, batch: Batch) -> Output:
        """Contexts, fusion and heads on encoded streams; `encoded.present` decides what takes part."""
        talk = talk_of(batch) if self.conversational else None
        if talk is not None and len(self.before):
            encoded = replace(encoded, pooled=_run(self.before, encoded.pooled, encoded.present, talk))
        fused = self.fusion(encoded.pooled, encoded.present)
        if talk is not None and len(self.after):
            fused = _run(self.after, {FUSED: fused}, encoded.present.any(1, keepdim=True), talk)[FUSED]
        return self.answer(fused, encoded.pooled, encoded)

    def answer(self, fused: Tensor, pooled: Mapping[str, Tensor], encoded: Encoded) -> Output:
        """The heads on what is fused [N, d], and on every stream's own pooled [N, d_s]."""
        unimodal = {s: {t: head(pooled[s]) for t, head in heads.items()} for s, heads in self._head_items()}
        joint = {t: head(fused) for t, head in self.heads.items()}
        if self.level == "features":
            return Output(joint, fused, unimodal)
        own = {t: torch.stack([unimodal[s][t] for s in encoded.streams], 1) for t in self.spaces}
        if self.level == "decisions":
            return Output({t: self.fusion.combine(z, encoded) for t, z in own.items()}, fused, unimodal)
        return Output({t: self.fusion.combine(z, encoded, joint[t]) for t, z in own.items()}, fused, unimodal)

    def probabilities(self, task: str, logits: Tensor) -> Tensor:
        """Probabilities [N, C] of the task's classes, those of finer classes added up."""
        fine = logits.float().softmax(-1)
        if task not in self.parts.get("refined", {}):
            return fine
        classes = torch.tensor(self.parts["refined"][task], device=fine.device)
        return fine.new_zeros(len(fine), len(self.spaces[task])).index_add_(1, classes, fine)

    def _head_items(self) -> Iterable[tuple[str, Any]]:
        if self.one_head:
            return ((s.name, self.stream_heads[EVERY]) for s in self.streams)
        return self.stream_heads.items()


def talk_of(batch: Batch) -> Conversations:
    """The conversations of a batch; without any, every utterance is one of its own."""
    n = len(batch)
    return conversations(batch.conversation or [""] * n, batch.position or [0] * n, batch.speaker or [""] * n, batch.present.device)


def _check_fusion(name: str, fusion: Any, spaces: Mapping[str, LabelSpace], after: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a fusion that leaves nothing for a context after it, or that has no meaning for a task."""
    if after and getattr(fusion, "level", "features") == "decisions":
        fitting = [n for n, card in registry.cards("fusions").items() if card.get("level") != "decisions"]
        raise BadConfig(
            f"context '{after[0]['name']}' stands after the fusion, '{name}' joins decisions",
            f"choose a fusion of features ({', '.join(fitting)}), or a context that stands before",
        )
    for task, space in spaces.items():
        if space.kind not in getattr(fusion, "tasks", (space.kind,)):
            raise BadConfig(
                f"fusion '{name}' as it is set is not for {space.kind} (task '{task}')",
                "choose another, such as fusion=late with how=sum or mean",
            )


def _contexts(given: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Parts that stand before and after the fusion; a single part and none are read too."""
    chosen: list[dict[str, Any]] = parts_of(given)
    stands = [part.get("stands", registry.cards("contexts")[part["name"]]["stands"][0]) for part in chosen]
    return tuple([p for p, s in zip(chosen, stands, strict=True) if s == where] for where in ("before", "after"))  # type: ignore[return-value]


def _chain(given: Sequence[Mapping[str, Any]], dims: dict[str, int]) -> tuple[nn.ModuleList, dict[str, int]]:
    """The parts, each made for what the one before it gives; and what the last one gives."""
    made = []
    for part in given:
        made.append(make_part("contexts", part, dims))
        dims = dict(made[-1].dims)
    return nn.ModuleList(made), dims


def _run(chain: nn.ModuleList, x: Mapping[str, Tensor], present: Tensor, talk: Conversations) -> dict[str, Tensor]:
    """Rows of the batch x[s] [N, d_s] through the parts, which see them ordered by conversation; absent ones are zeros."""
    there = talk.sort(present)
    rows = {name: talk.sort(value) * there[:, i, None] for i, (name, value) in enumerate(x.items())}
    for part in chain:
        rows = part(rows, there, talk)
    return {name: talk.unsort(value) for name, value in rows.items()}


def encode_present(encoder: nn.Module, x: Tensor, mask: Tensor, present: Tensor) -> Encoding:
    """One stream x [N, T, ...], mask [N, T] through an encoder, which sees the utterances that have it; zeros for others."""
    if present.all():
        return encoder(x, mask)  # type: ignore[no-any-return]
    rows = present.nonzero().squeeze(1)
    if len(rows) == 0:
        empty = torch.zeros(len(present), 1, int(encoder.dim), device=x.device)  # type: ignore[arg-type]
        if encoder.training and several_processes():
            # norms of the other processes wait for this one's sums, forward and backward
            idle = encoder(torch.zeros_like(x[:1]), torch.zeros_like(mask[:1]))
            empty = empty + 0 * idle.pooled.sum()
        return Encoding(empty, torch.zeros_like(empty[..., 0], dtype=torch.bool), empty[:, 0])
    return Encoding(*(_scatter(value, rows, len(present)) for value in encoder(x[rows], mask[rows])))


def keep_streams(encoded: Encoded, keep: Tensor) -> Encoded:
    """Encoded with streams taken away: keep [N, S] bool; what was absent stays absent."""
    present = encoded.present & keep
    pooled = {s: encoded.pooled[s] * present[:, i, None] for i, s in enumerate(encoded.streams)}
    mask = {s: encoded.mask[s] & present[:, i, None] for i, s in enumerate(encoded.streams)}
    return replace(encoded, present=present, pooled=pooled, mask=mask)


def join_encoded(parts: Sequence[Encoded]) -> Encoded:
    """Encoded utterances one after the other, masks [N, T'] padded to the longest, without tokens."""
    streams = parts[0].streams
    longest = {s: max(part.mask[s].shape[1] for part in parts) for s in streams}
    mask = {s: torch.cat([nn.functional.pad(p.mask[s], (0, longest[s] - p.mask[s].shape[1])) for p in parts]) for s in streams}
    pooled = {s: torch.cat([p.pooled[s] for p in parts]) for s in streams}
    return Encoded(streams, {}, mask, pooled, torch.cat([p.present for p in parts]))


def load_model(config: Mapping[str, Any], weights: Path | str | Mapping[str, Tensor]) -> Model:
    """A model from its description (`describe`) and a safetensors file, or its tensors, in eval mode.

    Raises BadRun when the weights do not belong to the description.
    """
    streams = [StreamSpec(**{**s, "shape": tuple(s["shape"])}) for s in config["streams"]]
    spaces = {t: LabelSpace(**{**s, "labels": tuple(s["labels"])}) for t, s in config["spaces"].items()}
    model = Model(config["parts"], streams, spaces)
    try:
        model.load_state_dict(weights if isinstance(weights, Mapping) else io.read_tensors(weights))
    except RuntimeError as error:
        name = "its state" if isinstance(weights, Mapping) else weights
        raise BadRun(f"{name} does not fit its configuration: {error}", "train the run again") from error
    return model.eval()


def start_encoder(model: Model, stream: str, folder: Path) -> None:
    """Start a stream's encoder from a run's (or fold's) encoder of the same modality; BadConfig where they differ."""
    described = io.read_json(folder / "model.json")
    modality = model.modality[stream]
    donors = [s["name"] for s in described["streams"] if s["modality"] == modality]
    if not donors:
        raise BadConfig(f"{folder} has no encoder for {modality}", f"give streams.{stream}.init a run that has one")
    prefix = f"encoders.{donors[0]}."
    tensors = io.read_tensors(folder / "model.safetensors")
    try:
        model.encoders[stream].load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    except RuntimeError as error:
        remedy = f"give streams.{stream}.encoder the options of {described['parts']['streams'][donors[0]]}"
        raise BadConfig(f"the encoder of {folder} does not fit stream '{stream}': {error}", remedy) from error


def describe(model: Model) -> dict[str, Any]:
    """What `load_model` needs beside the weights: parts, streams, label spaces, as JSON values."""
    return {
        "parts": model.parts,
        "streams": [vars(s) | {"shape": list(s.shape)} for s in model.streams],
        "spaces": {t: vars(s) | {"labels": list(s.labels)} for t, s in model.spaces.items()},
    }


def make_part(kind: str, part: Mapping[str, Any], given: Any) -> Any:
    """The part {name, **options} of that kind for what it is given (a StreamSpec, dims); BadConfig where they do not fit."""
    options = {k: v for k, v in part.items() if k != "name"}
    _check_modality(kind, part["name"], given)
    return registry.build(kind, part["name"], given, **options)


def _check_modality(kind: str, name: str, given: Any) -> None:
    """Refuse an encoder for another modality, with the fitting alternatives."""
    if kind != "encoders" or given.modality in registry.cards(kind)[name]["modalities"]:
        return
    fitting = [n for n, card in registry.cards(kind).items() if given.modality in card["modalities"]]
    raise BadConfig(
        f"encoder '{name}' is not for {given.modality} (stream '{given.name}')", f"choose one of {', '.join(fitting)}"
    )


def _scatter(value: Tensor, rows: Tensor, n: int) -> Tensor:
    return value.new_zeros(n, *value.shape[1:]).index_copy(0, rows, value)
