"""Compound emotions without training: seven pairs of basic emotions, from the probabilities of the basic ones.

The pairs are those of C-EXPR-DB. `sum` with `floor` 1/7 is the rule of AVCER (ABAW 2024), which was published with
25.56 % F1 on C-EXPR-DB; no score of these rules was measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from affuse.core.errors import BadConfig, UnknownName
from affuse.core.labels import SPACES, canonical
from affuse.core.timeline import Curve, ModalityView, Segment, TaskInfo, Timeline

Rule = Literal["product", "sum"]

# Compound emotion -> the two basic emotions (a, b) that it joins.
PAIRS: dict[str, tuple[str, str]] = {
    "fearfully surprised": ("fear", "surprise"),
    "happily surprised": ("happy", "surprise"),
    "sadly surprised": ("sad", "surprise"),
    "disgustedly surprised": ("disgust", "surprise"),
    "angrily surprised": ("angry", "surprise"),
    "sadly fearful": ("fear", "sad"),
    "sadly angry": ("angry", "sad"),
}
LABELS = SPACES["compound-7"].labels
NEEDED = tuple(sorted({emotion for pair in PAIRS.values() for emotion in pair}))
CLOSE = 1e-6  # by which a probability may be above `floor`: 1/7 in 32 bits is larger than 1/7


@dataclass(frozen=True)
class Compound:
    """How the probabilities p_a, p_b of a pair become one, before the seven are scaled to sum 1.

    `product`: p_a p_b; `sum`: w_a p_a + w_b p_b with `weights` (w_a, w_b). `floor`: probabilities up to it count as 0
    (AVCER: 1/7, chance among seven). Where all seven are 0 each gets 1/7. Raises UnknownName for another rule,
    BadConfig for weights below 0 (or both 0) and a floor outside 0..1.
    """

    rule: Rule = "product"
    weights: tuple[float, float] = (1.0, 1.0)
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise UnknownName.among("rule for compound emotions", self.rule, get_args(Rule))
        if not (len(self.weights) == 2 and min(self.weights) >= 0 and 0 < max(self.weights) < np.inf):
            raise BadConfig(f"weights {self.weights} for the two emotions of a pair", "give two from 0 on, not both 0")
        if not 0 <= self.floor < 1:
            raise BadConfig(f"floor {self.floor} is no probability", "give one from 0 to below 1, such as 0.143")

    def __call__(self, probabilities: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Probabilities [..., C] of `labels`, in any order and spelling, as those of the compound-7 space [..., 7].

        Classes that no pair needs, such as neutral, are left out. A row with NaN stays NaN. Raises BadConfig where one
        of the six emotions is missing, and where the labels are not as many as the probabilities.
        """
        first, second = (list(index) for index in zip(*pairs_among(labels), strict=True))
        p = np.asarray(probabilities, dtype=float)
        if p.shape[-1:] != (len(labels),):
            message = f"probabilities of shape {list(p.shape)} for {len(labels)} labels"
            raise BadConfig(message, "the last axis holds one probability per label")
        if self.floor:
            p = np.where(p <= self.floor + CLOSE, 0.0, p)
        a, b = p[..., first], p[..., second]
        score = a * b if self.rule == "product" else self.weights[0] * a + self.weights[1] * b
        total = score.sum(-1, keepdims=True)
        return np.asarray(np.where(total == 0, 1 / len(LABELS), score / np.where(total == 0, 1.0, total)))

    def timeline(self, timeline: Timeline) -> Timeline:
        """The timeline with compound emotions as its leading task: of all modalities, of each alone, and its curve.

        For probabilities before any decision. Raises BadConfig where the leading task has not the six emotions.
        """
        lead = next(iter(timeline.tasks))
        curves = {name: self._curve(c) if name == lead else c for name, c in timeline.curves.items()}
        tasks = {**timeline.tasks, lead: TaskInfo("classes", LABELS)}
        segments = [self._segment(s) for s in timeline.segments]
        return replace(timeline, labels=LABELS, segments=segments, tasks=tasks, curves=curves)

    def _segment(self, s: Segment) -> Segment:
        def view(of: ModalityView) -> ModalityView:
            return replace(of, probabilities=self._named(of.probabilities))

        views = {modality: view(v) for modality, v in s.modalities.items()}
        return replace(s, probabilities=self._named(s.probabilities), modalities=views)

    def _named(self, probabilities: dict[str, float]) -> dict[str, float]:
        if not probabilities:
            return {}
        found = self(np.array(list(probabilities.values())), list(probabilities))
        return dict(zip(LABELS, found.tolist(), strict=True))

    def _curve(self, curve: Curve) -> Curve:
        return Curve.of(LABELS, curve.rate, curve.t0, self(curve.array(), curve.labels))


# Names of label sets that an answer can have in place of the model's own.
DERIVED: dict[str, Compound] = {
    "compound": Compound(),
    "compound-sum": Compound("sum"),
    "compound-avcer": Compound("sum", floor=1 / 7),
}


def derived(name: str) -> Compound:
    """The mapping of that name; UnknownName for another."""
    if name not in DERIVED:
        raise UnknownName.among("labels", name, DERIVED)
    return DERIVED[name]


def pairs_among(labels: Sequence[str]) -> list[tuple[int, int]]:
    """Where the two emotions of each compound-7 class stand among `labels`; BadConfig names those that are missing."""
    at = {canonical(label): i for i, label in enumerate(labels)}
    if missing := [emotion for emotion in NEEDED if emotion not in at]:
        message = f"compound emotions need {', '.join(missing)}: the model's labels are {', '.join(labels)}"
        raise BadConfig(message, f"use a model of {', '.join(NEEDED)} (and any others), such as affuse-base")
    return [(at[a], at[b]) for a, b in (PAIRS[label] for label in LABELS)]
