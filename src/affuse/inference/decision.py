"""Which label a segment gets, from the probabilities of all modalities together and of each alone; or why none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from affuse.core.tasks import EVEN, Task, centred
from affuse.core.timeline import AND, ModalityView, Segment, in_words

MISSING = 0.25  # how much a second without evidence counts against one with it
CLEAR = 0.5  # probability from which a modality clearly predicts its own label
RANKS = 2  # a modality supports the labels that it ranks first and second


def trust(coverage: float) -> float:
    """How much probabilities count, 0..1, at this share of time with evidence: c / (c + (1 - c) / 4)."""
    return coverage / (coverage + MISSING * (1 - coverage))


def temper(probabilities: Mapping[str, float], coverage: float) -> dict[str, float]:
    """p ** trust(coverage), normalised: the order of the labels stays, and less evidence never gives a surer answer."""
    p = np.maximum(list(probabilities.values()), 1e-12) ** trust(coverage)
    return dict(zip(probabilities, (p / p.sum()).tolist(), strict=True))


def least_probability(classes: int) -> float:
    """The lowest probability of a label: an eighth of the way from chance to certainty (.25 of seven classes)."""
    return (classes + 7) / (8 * classes)


def most_probable(probabilities: Mapping[str, float]) -> str:
    """The label with the highest probability."""
    return max(probabilities, key=lambda label: probabilities[label])


def decide(s: Segment, task: Task, floor: float) -> Segment:
    """The segment with the label of a task, or with the reason why it has none."""
    if not s.probabilities:
        return s
    if task.kind == "classes":
        return decide_class(s, floor)
    if task.kind == "multilabel":
        return decide_labels(s, task)
    return replace(s, label=in_words(s.probabilities))


def decide_labels(s: Segment, task: Task) -> Segment:
    """The segment with all labels whose probability reaches their threshold; none where none does.

    Where evidence is thin, probabilities are drawn towards the thresholds: p's odds over the threshold's to the power
    of `trust`.
    """

    def tempered(p: Mapping[str, float], coverage: float) -> dict[str, float]:
        limits = np.array(task.thresholds or [EVEN] * len(task))
        odds = centred(np.array(list(p.values())), limits) ** trust(coverage)
        against = (1 - centred(np.array(list(p.values())), limits)) ** trust(coverage)
        even = odds / np.maximum(odds + against, 1e-12)
        return dict(zip(p, centred(even, 1 - limits).tolist(), strict=True))

    views = {
        m: replace(v, probabilities=tempered(v.probabilities, v.coverage)) if v.probabilities else v
        for m, v in s.modalities.items()
    }
    coverage = max(v.coverage for v in views.values() if v.present)
    s = replace(s, probabilities=tempered(s.probabilities, coverage), modalities=views)
    present = task.decide(np.array(list(s.probabilities.values())))
    named = [label for label, there in zip(s.probabilities, present, strict=True) if there]
    if not named:
        return replace(s, reason=f"no label reaches its threshold{_thin(coverage)}")
    return replace(s, label=AND.join(named))


def decide_class(s: Segment, floor: float) -> Segment:
    """The segment with probabilities that fit its coverage, and with its label, or the reason why it has none.

    It has none where no label reaches `floor`, and where no modality ranks the most probable label first or second:
    such a label wins in a product of experts only because each expert excludes the others, and no expert predicts it.
    """
    views = {
        m: replace(view, probabilities=temper(view.probabilities, view.coverage)) if view.probabilities else view
        for m, view in s.modalities.items()
    }
    coverage = max(v.coverage for v in views.values() if v.present)
    s = replace(s, probabilities=temper(s.probabilities, coverage), modalities=views)
    label = most_probable(s.probabilities)
    s = replace(s, conflict=conflicting(label, views))
    if not _supported(label, views):
        return replace(s, reason=f"modalities disagree ({s.dissent})")
    if s.probabilities[label] < floor:
        return replace(s, reason=f"no emotion stands out ({label} {s.probabilities[label]:.2f}{_thin(coverage)})")
    return replace(s, label=label)


def _supported(label: str, views: Mapping[str, ModalityView]) -> bool:
    """Whether some modality ranks the label first or second; a modality without an answer of its own does not count."""
    known = [v.probabilities for v in views.values() if v.probabilities]
    return not known or any(label in sorted(p, key=lambda k: -p[k])[:RANKS] for p in known)


def _thin(coverage: float) -> str:
    return f", seen or heard {coverage:.0%} of the time" if coverage < CLEAR else ""


def conflicting(label: str, views: Mapping[str, ModalityView]) -> list[str]:
    """The modalities that disagree: all, where none ranks this label first; else those that clearly predict another."""
    own = {m: most_probable(v.probabilities) for m, v in views.items() if v.probabilities}
    others = [m for m, predicted in own.items() if predicted != label]
    if len(others) == len(own):
        return others if len(own) > 1 else []
    return [m for m in others if views[m].probabilities[own[m]] >= CLEAR]


def mean(parts: Sequence[tuple[float, Segment]]) -> Segment:
    """One segment with the mean answer for one row, and that of each modality, weighted by the seconds of `parts`.

    A modality that no part has is absent. The coverage is the highest of the parts, which may show different people.
    """
    first = max(parts, key=lambda part: part[0])[1]
    views = {m: _mean_view([(t, s.modalities[m]) for t, s in parts]) for m in first.modalities}
    answers = [(t, s.probabilities) for t, s in parts if s.probabilities]
    found = replace(first, probabilities=_mean(answers), modalities=views, reason=None if answers else first.reason)
    for task in first.answers:
        found = found.with_answer(task, mean([(t, s.of(task)) for t, s in parts if task in s.answers]))
    return found


def _mean_view(views: Sequence[tuple[float, ModalityView]]) -> ModalityView:
    answers = [(t, v.probabilities) for t, v in views if v.present]
    return ModalityView(bool(answers), max(v.coverage for _, v in views), _mean(answers))


def _mean(answers: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    weights = [t for t, _ in answers]
    return {k: float(np.average([a[k] for _, a in answers], weights=weights)) for k in answers[0][1]} if answers else {}
