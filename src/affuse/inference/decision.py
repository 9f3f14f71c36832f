"""What a segment may say, from the probabilities of all modalities together and of each alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from affuse.core.timeline import ModalityView, Segment

MISSING = 0.25  # how much a second without evidence counts against one with it
CLEAR = 0.5  # probability at which a modality's own label is a clear one
RANKS = 2  # a label is carried by a modality that ranks it so high


def trust(coverage: float) -> float:
    """How far probabilities count, 0..1, at this share of time with evidence: c / (c + (1 - c) / 4), rising from 0 to 1."""
    return coverage / (coverage + MISSING * (1 - coverage))


def tempered(probabilities: Mapping[str, float], coverage: float) -> dict[str, float]:
    """p ** trust(coverage), normalised: the order of the labels stays, and less evidence is never surer."""
    p = np.maximum(list(probabilities.values()), 1e-12) ** trust(coverage)
    return dict(zip(probabilities, (p / p.sum()).tolist(), strict=True))


def least(classes: int) -> float:
    """The least probability that makes a label: an eighth of the way from chance to certainty (.25 of seven classes)."""
    return (classes + 7) / (8 * classes)


def winner(probabilities: Mapping[str, float]) -> str:
    """The likeliest label."""
    return max(probabilities, key=lambda label: probabilities[label])


def settled(s: Segment, floor: float) -> Segment:
    """The segment with probabilities that fit its coverage, and with its label: or with why it has none.

    None where no label reaches `floor`, and where the likeliest is none of the two that any modality ranks first: a
    product of experts finds it by what each of them excludes, and nobody says it.
    """
    if not s.probabilities:
        return s
    views = {m: replace(v, probabilities=tempered(v.probabilities, v.coverage)) if v.probabilities else v for m, v in s.modalities.items()}
    coverage = max(v.coverage for v in views.values() if v.present)
    s = replace(s, probabilities=tempered(s.probabilities, coverage), modalities=views)
    label = winner(s.probabilities)
    s = replace(s, conflict=conflict(label, views))
    if not _carried(label, views):
        return replace(s, reason=f"modalities disagree ({s.dissent})")
    if s.probabilities[label] < floor:
        return replace(s, reason=f"no emotion stands out ({label} {s.probabilities[label]:.2f}{_thin(coverage)})")
    return replace(s, label=label)


def _carried(label: str, views: Mapping[str, ModalityView]) -> bool:
    """Whether some modality ranks the label first or second; a modality without an answer of its own does not count."""
    told = [v.probabilities for v in views.values() if v.probabilities]
    return not told or any(label in sorted(p, key=lambda k: -p[k])[:RANKS] for p in told)


def _thin(coverage: float) -> str:
    return f", seen or heard {coverage:.0%} of the time" if coverage < CLEAR else ""


def conflict(label: str, views: Mapping[str, ModalityView]) -> list[str]:
    """The modalities that say otherwise: all, where none has this label first; else those with a clear other label."""
    own = {m: winner(v.probabilities) for m, v in views.items() if v.probabilities}
    others = [m for m, said in own.items() if said != label]
    if len(others) == len(own):
        return others if len(own) > 1 else []
    return [m for m in others if views[m].probabilities[own[m]] >= CLEAR]


def mean(parts: Sequence[tuple[float, Segment]]) -> Segment:
    """One segment from answers for the same row, weighted by `parts`' seconds; of each modality too.

    What no part has is absent; coverage is that of the part with most, since parts look at different people.
    """
    first = max(parts, key=lambda part: part[0])[1]
    views = {m: _mean_view([(t, s.modalities[m]) for t, s in parts]) for m in first.modalities}
    answers = [(t, s.probabilities) for t, s in parts if s.probabilities]
    return replace(first, probabilities=_mean(answers), modalities=views, reason=None if answers else first.reason)


def _mean_view(views: Sequence[tuple[float, ModalityView]]) -> ModalityView:
    answers = [(t, v.probabilities) for t, v in views if v.present]
    return ModalityView(bool(answers), max(v.coverage for _, v in views), _mean(answers))


def _mean(answers: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, float]:
    weights = [t for t, _ in answers]
    return {k: float(np.average([a[k] for _, a in answers], weights=weights)) for k in answers[0][1]} if answers else {}
