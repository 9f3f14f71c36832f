"""A causal model utterance by utterance, as a conversation goes on: the same answers as afterwards, at a constant cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from affuse.core.errors import BadConfig
from affuse.core.types import Batch, Encoded, Output
from affuse.layers.conversation import conversations
from affuse.models.model import FUSED, Model

Recent = list[tuple[dict[str, Tensor], Tensor, str]]  # the last inputs of a part of bounded reach: rows, present, speaker


class Stream:
    """One running conversation: `push` answers for the next utterance from what was said so far.

    A part keeps its own state (`begin`, `push`), or has a `reach`: how many utterances back its answer looks. Raises
    BadConfig for a model that looks ahead, or a part that looks back without end.
    """

    def __init__(self, model: Model) -> None:
        if not model.causal:
            raise BadConfig("the model looks at later utterances", "train it with context mode=causal to use it live")
        self.model = model.eval()
        self._states = [self._state(part) for part in [*model.before, *model.after]]

    def _state(self, part: Any) -> Any:
        if hasattr(part, "begin"):
            return part.begin()
        if getattr(part, "reach", None) is None:
            raise BadConfig(f"{type(part).__name__} looks back without end", "bound its past to use it live")
        return Recent()

    @torch.inference_mode()
    def push(self, batch: Batch, speaker: str = "") -> Output:
        """The Output for the next utterance, a Batch of one."""
        return self.step(self.model.encode(batch), speaker)

    @torch.inference_mode()
    def step(self, encoded: Encoded, speaker: str = "") -> Output:
        """The same for an utterance that the encoders are through with."""
        n = len(self.model.before)
        x = {s: v * encoded.present[:, i, None] for i, (s, v) in enumerate(encoded.pooled.items())}
        for k, part in enumerate(self.model.before):
            x = self._step(k, part, x, encoded.present, speaker)
        fused = self.model.fusion(x, encoded.present)
        there = encoded.present.any(1, keepdim=True)
        rows = {FUSED: fused * there if len(self.model.after) else fused}
        for k, part in enumerate(self.model.after):
            rows = self._step(n + k, part, rows, there, speaker)
        return self.model.answer(rows[FUSED], x, encoded)

    def _step(self, k: int, part: Any, x: dict[str, Tensor], present: Tensor, speaker: str) -> dict[str, Tensor]:
        if hasattr(part, "push"):
            found: dict[str, Tensor]
            found, self._states[k] = part.push(x, present, speaker, self._states[k])
            return found
        recent: Recent = self._states[k]
        recent.append((x, present, speaker))
        del recent[: -part.reach - 1]
        rows, there, who = zip(*recent, strict=True)
        talk = conversations(["now"] * len(recent), range(len(recent)), who, present.device)
        whole = {name: torch.cat([row[name] for row in rows]) for name in x}
        return {name: value[-1:] for name, value in part(whole, torch.cat(there), talk).items()}
