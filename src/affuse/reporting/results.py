"""The sections that show results: rows, confusion matrix, classes, calibration, learning curves."""

from __future__ import annotations

from html import escape
from typing import Any

from affuse.reporting import plots
from affuse.reporting.curves import curves
from affuse.reporting.folder import Folder, History, integer, mapping, number, objects
from affuse.reporting.markup import (
    Absent,
    facts,
    listing,
    metric,
    metric_name,
    no_evaluation,
    scrolling,
    section,
    span,
    text,
    three,
)

HEADLINES = ("uar", "label_f1", "ccc", "weighted_f1", "macro_f1", "accuracy")
FALLING = {"loss", "mae", "mse", "rmse", "calibration_error"}
KINDS = {
    "baseline": "baseline",
    "unimodal": "one modality",
    "subset": "subset of modalities",
    "control": "a model of its own",
    "full": "full model",
}


def headline(folder: Folder) -> str | None:
    """The metric to show first: the one that selected, else the first known one, else the first."""
    metrics = mapping(mapping(folder.evaluation).get("metrics"))
    selected = mapping(mapping(folder.run).get("selection")).get("metric")
    usable = [key for key in metrics if metric(metrics[key]).value is not None]
    return next((key for key in (selected, *HEADLINES, *usable) if key in usable), None)


def intervals(folder: Folder, key: str) -> list[plots.Row]:
    """The rows of the evaluation that have a value of the metric `key`."""
    found = []
    for row in objects(mapping(folder.evaluation).get("rows")):
        score = metric(mapping(row.get("metrics")).get(key))
        if score.value is not None:
            kind = str(row.get("kind") or "")
            note = KINDS.get(kind, kind)
            found.append(plots.Row(str(row.get("name") or "unnamed"), kind, score.value, score.low, score.high, note))
    return found


def rows(folder: Folder) -> str | Absent:
    """The interval plot of the rows for the headline metric, and the table of all metrics."""
    key, found = headline(folder), objects(mapping(folder.evaluation).get("rows"))
    if not found or key is None:
        return Absent("Rows", f"{no_evaluation(folder)} rows to compare with.")
    drawn = intervals(folder, key)
    full = next((r for r in drawn if r.kind == "full"), None)
    plot = plots.interval_plot(drawn, full) if drawn else ""
    table = scrolling("all metrics of the rows", _row_table(found))
    body = f'<div class="box"><h3>{escape(metric_name(key))}</h3>{plot}{table}</div>'
    return section("Rows: baselines, modalities, full model", _rows_lead(folder, key, drawn, full), body)


def _rows_lead(folder: Folder, key: str, drawn: list[plots.Row], full: plots.Row | None) -> str:
    best = min if key in FALLING else max
    bests = []
    for kinds, name in ((("baseline",), "baseline"), (("unimodal",), "single modality"), (("subset",), "subset")):
        among = [r for r in drawn if r.kind in kinds]
        if among:
            top = best(among, key=lambda r: r.value)
            bests.append(f"best {name} {escape(top.name)} {three(top.value)}")
    first = f"Full model {three(full.value)}" if full else "No row of the full model"
    band = " The shaded band is the interval of the full model." if full and full.low is not None else ""
    return f"{'; '.join([first, *bests])}.{band}{_against(folder)}"


def _against(folder: Folder) -> str:
    """What the full model adds to the one trained beside it."""
    control = mapping(mapping(folder.evaluation).get("control"))
    if not control:
        return ""
    gap = metric(mapping(control.get("difference")))
    name, which = escape(str(control.get("name"))), escape(metric_name(str(control.get("metric"))))
    interval = span(gap) or "no interval"
    decided = gap.low is not None and gap.high is not None and (gap.low > 0 or gap.high < 0)
    claim = "" if decided else ", so that no difference can be claimed"
    return f" Against {name}: {which} {three(gap.value)} {interval}{claim}."


def _row_table(found: list[dict[str, Any]]) -> str:
    keys = list(dict.fromkeys(k for row in found for k in mapping(row.get("metrics"))))
    counted = any(metric(v).n is not None for row in found for v in mapping(row.get("metrics")).values())
    head = "".join(f'<th scope="col">{escape(metric_name(k))}</th>' for k in keys) + (
        '<th scope="col">n</th>' * counted
    )
    body = []
    for row in found:
        scores = [metric(mapping(row.get("metrics")).get(k)) for k in keys]
        cells = "".join(f"<td>{three(s.value)}<small>{span(s)}</small></td>" for s in scores)
        n = next((s.n for s in scores if s.n is not None), None)
        style = ' class="full"' if row.get("kind") == "full" else ""
        count = f"<td>{text(n)}</td>" if counted else ""
        body.append(f'<tr{style}><th scope="row">{text(row.get("name"))}</th>{cells}{count}</tr>')
    return f'<table><thead><tr><th scope="col">row</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


# ---- classes ---------------------------------------------------------------------------------------------------


def of_values(folder: Folder) -> bool:
    """Whether the scores are those of continuous targets, whose labels are dimensions."""
    return bool({"ccc", "mae"} & set(mapping(mapping(folder.evaluation).get("metrics"))))


def _labels(folder: Folder) -> list[str] | None:
    labels = None if of_values(folder) else mapping(folder.evaluation).get("labels")
    return [str(label) for label in labels] if isinstance(labels, list) and labels else None


def matrix(folder: Folder) -> str | Absent:
    """The confusion matrix, and its largest confusions in words."""
    labels, found = _labels(folder), mapping(folder.evaluation).get("confusion_matrix")
    if not isinstance(found, list) or not found:
        regression = folder.evaluation is not None and labels is None
        why = f"{no_evaluation(folder)} matrix."
        if regression:
            why = "This task has no classes, so there is no confusion matrix."
        return Absent("Confusion matrix", why)
    counts = [[integer(c) or 0 for c in row] if isinstance(row, list) else [] for row in found]
    labels = labels or [str(i) for i in range(len(counts))]
    if len(counts) != len(labels) or any(len(row) != len(labels) for row in counts):
        return Absent("Confusion matrix", f"The matrix in evaluation.json does not fit the {len(labels)} labels.")
    body = f'<div class="box">{scrolling("confusion matrix", plots.confusion_matrix(labels, counts))}</div>'
    return section("Confusion matrix", _confusions(labels, counts), body)


def _confusions(labels: list[str], counts: list[list[int]]) -> str:
    off = [(c, i, j) for i, row in enumerate(counts) for j, c in enumerate(row) if i != j and c]
    if not off:
        return "No confusion at all. Rows are the truth; shares are of the row."
    names = [escape(plots.shorten(label, 40)) for label in labels]
    worst = [
        f"{names[i]} taken for {names[j]} ({c:,}, {100 * c / sum(counts[i]):.0f} % of {names[i]})"
        for c, i, j in sorted(off, key=lambda o: -o[0])[:3]
    ]
    return f"Most frequent confusions: {listing(worst)}. Rows are the truth; shares and shading are of the row."


def bars(folder: Folder) -> str | Absent:
    """Precision, recall and F1 of each class."""
    found = objects(mapping(folder.evaluation).get("per_class"))
    if not found:
        regression = folder.evaluation is not None and _labels(folder) is None
        why = "This task has no classes." if regression else f"{no_evaluation(folder)} values per class."
        return Absent("Classes", why)
    keys = [*(key for key, _ in plots.BARS), "average_precision"]
    classes = [(str(c.get("label")), {k: number(c.get(k)) for k in keys}, integer(c.get("support"))) for c in found]
    scored = [(values["f1"], label) for label, values, n in classes if values["f1"] is not None and n != 0]
    lead = ""
    if len(scored) > 1:
        high, low = max(scored), min(scored)
        lead = f"Best F1: {escape(high[1])} {high[0]:.2f}; weakest: {escape(low[1])} {low[0]:.2f}."
    return section("Classes", lead, f'<div class="box">{plots.class_bars(classes)}</div>')


# ---- calibration, curves ---------------------------------------------------------------------------------------


def calibration(folder: Folder) -> str | Absent:
    """The reliability diagram and its finding in words."""
    bins = _bins(folder)
    if not bins:
        return Absent("Calibration", f"{no_evaluation(folder)} calibration bins, so there is no reliability diagram.")
    total = sum(b.n for b in bins)
    confidence, accuracy = (
        sum(b.n * v for b, v in zip(bins, values, strict=True)) / total
        for values in ([b.confidence for b in bins], [b.accuracy for b in bins])
    )
    gap = 100 * (confidence - accuracy)
    finding = (
        "well matched on average"
        if abs(gap) < 2
        else f"{'over' if gap > 0 else 'under'}-confident by {abs(gap):.0f} points"
    )
    error = metric(mapping(mapping(folder.evaluation).get("metrics")).get("calibration_error"))
    about = facts(
        [
            ("Mean confidence", three(confidence)),
            ("Accuracy", three(accuracy)),
            (
                "Calibration error",
                f"{three(error.value)} <small>{span(error)}</small>" if error.value is not None else "",
            ),
            ("Items in the bins", f"{total:,}"),
        ]
    )
    how = (
        '<p class="muted">Each bar is the accuracy of the items in one confidence bin, its dot stands at their mean '
        "confidence. Below the dashed line the model is surer than it should be. The small bars count the items.</p>"
    )
    body = f'<div class="box beside-figure">{plots.reliability(bins)}<div>{how}{about}</div></div>'
    return section(
        "Calibration", f"Confidence and accuracy are {finding}." if abs(gap) < 2 else f"The model is {finding}.", body
    )


def _bins(folder: Folder) -> list[plots.Bin]:
    bins = []
    for one in objects(mapping(folder.evaluation).get("calibration")):
        low, high, confidence, accuracy = (number(one.get(key)) for key in ("low", "high", "confidence", "accuracy"))
        n = integer(one.get("n"))
        if n and low is not None and high is not None and confidence is not None and accuracy is not None:
            bins.append(plots.Bin(low, high, confidence, accuracy, n))
    return bins


def learning(folder: Folder) -> str | Absent:
    """Loss, selection score and learning rate over epochs."""
    if not folder.histories:
        return Absent("Learning curves", "There is no metrics.jsonl in this run folder.")
    key = str(mapping(mapping(folder.run).get("selection")).get("metric") or "uar")
    chosen = [h.best for h in folder.histories]
    panels = (
        ("train loss", [series(h, "loss") for h in folder.histories]),
        *_terms(folder),
        (f"validation {metric_name(key)}", [series(h, "valid", key) for h in folder.histories]),
        ("learning rate", [series(h, "lr") for h in folder.histories]),
    )
    drawn = "".join(curves(title, lines, chosen) for title, lines in panels if any(lines))
    absent = [title for title, lines in panels if not any(lines)]
    lines = (
        f"{len(folder.histories)} models (folds, members), light, and their mean over the epochs that all reached, bold"
        if len(folder.histories) > 1
        else f"{len(folder.histories[0].epochs)} epochs"
    )
    ring = ", a ring marks the epoch that was kept" if any(c is not None for c in chosen) else ""
    gone = f" metrics.jsonl holds no {listing([escape(a) for a in absent])}." if absent else ""
    return section("Learning curves", f"{lines}{ring}.{gone}", f'<div class="box panels">{drawn}</div>')


def _terms(folder: Folder) -> list[tuple[str, list[dict[int, float]]]]:
    """A panel for every term of the loss, where there are several."""
    names = _names(folder, "terms")
    each = [(f"train {n.replace('_', ' ')}", [series(h, "terms", n) for h in folder.histories]) for n in names]
    return each if len(each) > 1 else []


def counted(folder: Folder) -> str:
    """What training counted, such as rows without a pair or pseudo-labels: in the first and in the last epoch."""
    names = _names(folder, "counts")
    if not names:
        return ""
    rows = "".join(_count_row(name, [series(h, "counts", name) for h in folder.histories]) for name in names)
    head = '<th scope="col">counted</th><th scope="col">first epoch</th><th scope="col">last epoch</th>'
    drawn = [v for h in folder.histories for v in series(h, "counts", "pseudo_labels").values()]
    said = "No utterance without a label was sure enough in any epoch." if drawn and not any(drawn) else ""
    warning = f'<p class="warn" role="note">{said}</p>' if said else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    several = "Means over the models of all folds and members. " if len(folder.histories) > 1 else ""
    return section("Counted in training", f"{several}Utterances, per epoch.", warning + scrolling("counts", table))


def _names(folder: Folder, key: str) -> list[str]:
    """What the epochs' lines have under a key, in their order."""
    lines = (line for history in folder.histories for line in history.epochs.values())
    return list(dict.fromkeys(name for line in lines for name in mapping(line.get(key))))


def _count_row(name: str, each: list[dict[int, float]]) -> str:
    known = [found for found in each if found]
    first, last = (sum(found[pick(found)] for found in known) / len(known) for pick in (min, max))
    shown = escape(name.replace(".", ": ").replace("_", " "))
    return f'<tr><th scope="row">{shown}</th><td>{first:,.0f}</td><td>{last:,.0f}</td></tr>'


def series(history: History, *keys: str) -> dict[int, float]:
    """Epoch -> number at this path of the epoch's line, where there is one."""
    found = {}
    for epoch, line in history.epochs.items():
        value: Any = line
        for key in keys:
            value = mapping(value).get(key)
        if (v := number(value)) is not None:
            found[epoch] = v
    return found
