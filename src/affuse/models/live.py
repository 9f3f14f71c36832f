"""Live use of a causal model, utterance by utterance: the same predictions as offline, at a constant cost for each."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from affuse.core.errors import BadConfig
from affuse.core.types import Batch, Encoded, Output
from affuse.layers.conversation import conversations
from affuse.models.model import Model, Rows

Recent = list[tuple[Rows, Tensor, str]]  # the last inputs of a part of bounded reach: rows, present, speaker


class LiveSession:
    """One live conversation: `push` predicts the next utterance from this one and those before it.

    A part keeps its own state (`begin`, `push`), or has a `reach`: how many utterances back its output depends on.
    Raises BadConfig for a model that looks ahead, or a part whose reach is unbounded.
    """

    def __init__(self, model: Model) -> None:
        if not model.causal:
            raise BadConfig("the model looks at later utterances", "train it with context mode=causal to use it live")
        self.model = model.eval()
        self._states = {part: _state(part) for part in [*model.before, *model.after]}

    @torch.inference_mode()
    def push(self, batch: Batch, speaker: str = "") -> Output:
        """The Output for the next utterance, a Batch of one."""
        return self.step(self.model.encode(batch), speaker)

    @torch.inference_mode()
    def step(self, encoded: Encoded, speaker: str = "") -> Output:
        """`push` for an utterance that is encoded already."""
        return self.model.answer(encoded, partial(self._through, speaker=speaker))

    def _through(self, chain: nn.ModuleList, x: Rows, present: Tensor, speaker: str) -> Rows:
        rows = {name: value * present[:, i, None] for i, (name, value) in enumerate(x.items())}
        for part in chain:
            rows = self._step(part, rows, present, speaker)
        return rows

    def _step(self, part: Any, x: Rows, present: Tensor, speaker: str) -> Rows:
        if hasattr(part, "push"):
            found: Rows
            found, self._states[part] = part.push(x, present, speaker, self._states[part])
            return found
        recent: Recent = self._states[part]
        recent.append((x, present, speaker))
        del recent[: -part.reach - 1]
        rows, there, who = zip(*recent, strict=True)
        among = conversations(["now"] * len(recent), range(len(recent)), who, present.device)
        whole = {name: torch.cat([row[name] for row in rows]) for name in x}
        return {name: value[-1:] for name, value in part(whole, torch.cat(there), among).items()}


def _state(part: Any) -> Any:
    if hasattr(part, "begin"):
        return part.begin()
    if getattr(part, "reach", None) is None:
        raise BadConfig(f"{type(part).__name__} looks back without end", "bound its past to use it live")
    return Recent()
