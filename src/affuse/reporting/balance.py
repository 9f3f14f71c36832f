"""The section on balance: what every modality carries, what its encoder learned, what the balancer did."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from affuse.reporting import plots
from affuse.reporting.curves import legend, mean_line, trace_styles, traces
from affuse.reporting.folder import Folder, mapping
from affuse.reporting.markup import metric, metric_name, section, span, text, three
from affuse.reporting.results import headline, intervals, series

FIRST = ("k", "score")  # of what is traced
PROBE_GAP = "To the right of 0, an encoder that was trained alone learned more than the same one remarks the others."
TRACES = {"k": "k, factor of the step", "score": "score of the stream alone"}


def balance(folder: Folder) -> str:
    """The whole section; empty where the run folder holds nothing about balance."""
    parts = [shapley_values(folder), probe_gaps(folder), balancer_traces(folder), loss_terms(folder)]
    return section("Balance", _lead(folder), "".join(parts)) if any(parts) else ""


def _lead(folder: Folder) -> str:
    evaluation = mapping(folder.evaluation)
    values = {m: metric(v).value for m, v in mapping(evaluation.get("shapley")).items()}
    known = {m: v for m, v in values.items() if v is not None}
    if len(known) < 2:
        return ""
    most, least = max(known, key=lambda m: known[m]), min(known, key=lambda m: known[m])
    found = metric(evaluation.get("imbalance"))
    name = escape(metric_name(str(mapping(evaluation.get("imbalance")).get("metric") or "score")))
    apart = f"; they are {three(found.value)} apart ({span(found)})" if found.value is not None and span(found) else ""
    first, last = f"{escape(most)} carries most of the {name}", f"{escape(least)} least"
    return f"{first} ({three(known[most])}), {last} ({three(known[least])}){apart}."


def shapley_values(folder: Folder) -> str:
    """What every modality adds to the score, and the scores of the subsets from which this follows."""
    evaluation = mapping(folder.evaluation)
    drawn = _rows(mapping(evaluation.get("shapley")))
    if not drawn:
        return ""
    key = str(mapping(evaluation.get("imbalance")).get("metric") or "score")
    own = [row for row in intervals(folder, key) if row.kind != "control"]
    subsets = own if key != headline(folder) else []
    order = {"baseline": 0, "unimodal": 1, "subset": 2, "full": 3}
    subsets.sort(key=lambda row: order.get(row.kind, 2))
    name = escape(metric_name(key))
    how = (
        f"What a modality adds to the {name}, averaged over all orders in which the modalities can join; together they "
        "add up to the score of all modalities minus that of none, the baseline."
    )
    how += "" if subsets else " The scores of the subsets are the rows further up."
    below = f"<h3>{name} with every subset</h3>{plots.interval_plot(subsets)}" if subsets else ""
    return _box(f"Shapley values of the {name}", how, plots.interval_plot(drawn) + below)


def probe_gaps(folder: Folder) -> str:
    """Scores of linear probes on the frozen encoders, compared with encoders trained on one modality."""
    evaluation = mapping(folder.evaluation)
    probes = {str(m): mapping(p) for m, p in mapping(evaluation.get("probes")).items()}
    what = mapping(evaluation.get("protocol")).get("probe")
    about = f"Scored is the {text(what)}. " if what else ""
    scores = {m: [three(metric(p.get(key)).value) for key in ("alone", "joint")] for m, p in probes.items()}
    notes = {m: f"alone {alone}, joint {joint}" for m, (alone, joint) in scores.items()}
    gaps = _rows({m: p.get("gap") for m, p in probes.items()}, notes)
    rest = _rows({m: p.get("joint") for m, p in probes.items() if metric(p.get("gap")).value is None})
    drawn = ""
    if gaps:
        how = f"{about}{PROBE_GAP}"
        drawn += _box("Probe gap: trained alone minus trained together", how, plots.interval_plot(gaps))
    return drawn + (_box("Probes of the encoders", about, plots.interval_plot(rest)) if rest else "")


def balancer_traces(folder: Folder) -> str:
    """What the balancer noted in every epoch, one line per stream: the mean over folds and members."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for key, mean in _means(folder, "balance").items():
        what, _, stream = key.partition(".")
        found.setdefault(what, {})[stream] = mean
    if not found:
        return ""
    order = [*(w for w in FIRST if w in found), *(w for w in found if w not in FIRST)]
    styles = trace_styles(list(dict.fromkeys(s for w in order for s in found[w])))
    panels = "".join(traces(TRACES.get(w, w.replace("_", " ")), found[w], styles) for w in order)
    models = f" and over {len(folder.histories)} models (folds, members)" if len(folder.histories) > 1 else ""
    how = f"What the balancer noted, mean over the steps of an epoch{models}."
    return _box("Traces of the balancer", how, f'{legend(styles)}<div class="panels">{panels}</div>')


def loss_terms(folder: Folder) -> str:
    """What the training loss was added up from in every epoch, where a balancer added to it."""
    found = _means(folder, "terms")
    if not any(name.startswith("balance.") for name in found):
        return ""
    styles = trace_styles(list(found))
    how = "Each term as it is weighted in the training loss; together they are the train loss of the learning curves."
    panels = f'<div class="panels">{traces("terms of the loss", found, styles)}</div>'
    return _box("Terms of the loss", how, f"{legend(styles)}{panels}")


def _means(folder: Folder, part: str) -> dict[str, dict[int, float]]:
    """Every number that the epochs' `part` holds by name, in the names' order: epoch -> mean over folds and members."""
    names = sorted({k for h in folder.histories for line in h.epochs.values() for k in mapping(line.get(part))})
    lines = {name: [line for h in folder.histories if (line := series(h, part, name))] for name in names}
    return {name: mean for name, some in lines.items() if some and (mean := mean_line(some))}


def _rows(scores: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> list[plots.Row]:
    """A row of the interval plot per modality that has a value."""
    found = {m: metric(v) for m, v in scores.items()}
    remarks = notes or {}
    return [
        plots.Row(m, "part", v.value, v.low, v.high, remarks.get(m, ""))
        for m, v in found.items()
        if v.value is not None
    ]


def _box(title: str, how: str, body: str) -> str:
    return f'<div class="box part"><h3>{title}</h3><p class="muted">{how}</p>{body}</div>'
