"""The page: its frame, the answer first, what was run, the protocol and the configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

from affuse.core import run_files
from affuse.reporting import plots
from affuse.reporting.balance import balance
from affuse.reporting.folder import Folder, integer, mapping, number, sentences
from affuse.reporting.markup import (
    Absent,
    Metric,
    duration,
    facts,
    metric,
    metric_name,
    moment,
    scrolling,
    section,
    span,
    text,
    three,
)
from affuse.reporting.results import bars, calibration, counted, headline, intervals, learning, matrix, of_values, rows
from affuse.reporting.style import stylesheet

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
GLOSS = {
    "uar": "unweighted average recall: the mean of the recalls of the classes",
    "ccc": "concordance correlation coefficient",
    "mae": "mean absolute error, lower is better",
    "macro_f1": "mean of the F1 of the classes",
    "weighted_f1": "mean of the F1 of the classes, weighted by their support",
    "accuracy": "share of items whose class is right",
    "label_f1": "mean of the F1 of the labels",
    "mer_score": "weighted F1 of the emotion less 0.25 of the mean squared error of the valence",
}
TO_ONE = {"uar", "accuracy", "macro_f1", "weighted_f1", "ccc", "pearson"}


def page(folder: Folder) -> str:
    """The whole document."""
    sections = (hero, ran, rows, matrix, bars, calibration, others, learning, counted, balance, protocol, configuration)
    made = [make(folder) for make in sections]
    title = f"{text(mapping(folder.run).get('recipe') or folder.path.name)} · affuse report"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{title}</title><style>{stylesheet()}</style></head>\n<body><main>"
        + "\n".join(one for one in made if isinstance(one, str) and one)
        + f"\n{absences([one for one in made if isinstance(one, Absent)])}{footer(folder)}</main></body></html>\n"
    )


def absences(absent: list[Absent]) -> str:
    """What the page cannot show, and why, in one list."""
    items = "".join(f"<li><strong>{escape(one.title)}.</strong> {one.why}</li>" for one in absent)
    return section("Not in this report", "", f'<ul class="absent">{items}</ul>') if items else ""


# ---- the answer ------------------------------------------------------------------------------------------------


def hero(folder: Folder) -> str:
    """Warnings, the headline metric with its interval and n, and the other metrics."""
    run = mapping(folder.run)
    name = text(_scored_corpus(folder))
    title = text(run.get("recipe") or folder.path.name)
    key = headline(folder)
    body = _answer(folder, key) if key else _unscored(folder)
    line = f'<header class="run-line"><h1>{title} on {name}</h1><span class="muted">affuse run report</span></header>'
    return f'{line}{_warnings(folder)}<div class="box hero">{body}</div>'


def _scored_corpus(folder: Folder) -> Any:
    """The name of the corpus that was scored, else of the one trained on."""
    scored = mapping(folder.evaluation).get("corpus")
    return mapping(scored).get("name") or scored or mapping(mapping(folder.run).get("corpus")).get("name")


def _warnings(folder: Folder) -> str:
    run, evaluation = mapping(folder.run), mapping(folder.evaluation)
    n, whole = integer(evaluation.get("n")), integer(evaluation.get("n_split"))
    openings = integer(run.get("test_openings"))
    found = list(folder.notes)
    if mapping(run.get("corpus")).get("synthetic"):
        found.insert(0, "Synthetic corpus: these numbers say that the pipeline works, nothing about people.")
    if n is not None and whole is not None and n != whole:
        found.append(f"Only {n:,} of the {whole:,} items of the split were scored.")
    if openings is not None and openings > 1:
        found.append(f"The test split was opened {openings} times in the making of this run.")
    protocol = mapping(evaluation.get("protocol"))
    if protocol.get("crossing") or protocol.get("seen_in_training"):
        found += [f"{line}." for line in sentences(protocol.get("overlap"))]
    if protocol.get("interval_means"):
        found.append(f"{protocol['interval_means']}.")
    return "".join(f'<p class="warn" role="note">{escape(words)}</p>' for words in found)


def _answer(folder: Folder, key: str) -> str:
    evaluation = mapping(folder.evaluation)
    metrics = mapping(evaluation.get("metrics"))
    found = metric(metrics[key])
    method = mapping(evaluation.get("protocol")).get("interval")
    n = found.n if found.n is not None else integer(evaluation.get("n"))
    where = f"{text(evaluation.get('split'))} split" if evaluation.get("split") else "split not recorded"
    count = "n not recorded" if n is None else f"n = {n:,}"
    interval = f"<strong>{span(found)}</strong>" if span(found) else "<strong>no interval</strong>"
    tried = integer(mapping(folder.run).get("configurations_tried"))
    remarks = [GLOSS.get(key), f"best of {tried} configurations tried" if tried and tried > 1 else None]
    gloss = f'<p class="muted">{"; ".join(r for r in remarks if r)}</p>'
    big = f'<div><div class="metric">{escape(metric_name(key))}</div><div class="big">{three(found.value)}</div></div>'
    about = f"<p>{text(method)}</p>" if method else ""
    beside = f'<div class="beside"><p>{interval}, {count}, {where}</p>{about}{gloss}</div>'
    return f'<div class="answer">{big}{beside}</div>{_ruler(folder, key, found)}{_others(metrics, key)}'


def _ruler(folder: Folder, key: str, found: Metric) -> str:
    if found.value is None:
        return ""
    base = next((r for r in intervals(folder, key) if r.kind == "baseline"), None)
    row = plots.Row(metric_name(key), "full", found.value, found.low, found.high)
    ends = (0.0, 1.0) if key in TO_ONE else (0.0, found.value)
    return f'<div class="ruler">{plots.ruler(row, base, ends)}</div>'


def _others(metrics: Mapping[str, Any], key: str) -> str:
    items = []
    for other in (k for k in metrics if k != key):
        found = metric(metrics[other])
        note = span(found) or ("no value" if found.value is None else "no interval")
        items.append(
            f"<div><dt>{escape(metric_name(other))}</dt><dd>{three(found.value)}<small>{note}</small></dd></div>"
        )
    return f'<dl class="others">{"".join(items)}</dl>' if items else ""


def _unscored(folder: Folder) -> str:
    run = mapping(folder.run)
    name, score = mapping(run.get("selection")).get("metric"), number(run.get("best_score"))
    known = ""
    if score is not None:
        measure, last = escape(metric_name(str(name or "score"))), mapping(run.get("selection")).get("keep") == "last"
        known = f" After the last epoch its validation {measure} was {three(score)}."
        if not last:
            chosen = "that number chose the epoch, so it is not an estimate for new data"
            known = f" Its best validation {measure} was {three(score)}; {chosen}."
    why = "There is no evaluation.json" if folder.evaluation is None else "evaluation.json holds no metric with a value"
    return f"<h2>Not scored yet</h2><p>{why} in this run folder: run <code>affuse evaluate</code> on it.{known}</p>"


# ---- other tasks -----------------------------------------------------------------------------------------------


def others(folder: Folder) -> str:
    """The model's other tasks, and the utterances of one per frame: headline metric, rows, matrix, classes."""
    evaluation = mapping(folder.evaluation)
    found = {f"Task {name}": mapping(one) for name, one in mapping(evaluation.get("tasks")).items()}
    lead = {"Frames": evaluation} if evaluation.get("per_utterance") else {}
    for name, one in [*lead.items(), *found.items()]:
        if one.get("per_utterance"):
            found[f"{name} per utterance" if one is not evaluation else "Utterances, from their frames"] = mapping(
                one["per_utterance"]
            )
    return "".join(_other(folder, name, one) for name, one in found.items())


def _other(folder: Folder, title: str, evaluation: Mapping[str, Any]) -> str:
    part = replace(folder, evaluation=dict(evaluation), run=None)
    key = headline(part)
    if key is None:
        return section(title, "No metric of this task has a value.", "")
    found = metric(mapping(evaluation.get("metrics"))[key])
    n = integer(evaluation.get("n"))
    lead = f"{escape(metric_name(key))} {three(found.value)} {span(found)}, n = {n:,}." if n else ""
    made = [make(part) for make in (rows, matrix, bars)]
    return section(title, lead, "") + "".join(one for one in made if isinstance(one, str))


# ---- what was run ----------------------------------------------------------------------------------------------


def ran(folder: Folder) -> str | Absent:
    """What was run, in one grid."""
    if folder.run is None:
        return Absent("What was run", "There is no run.json in this run folder, so the report cannot say what was run.")
    run, corpus, task = folder.run, mapping(folder.run.get("corpus")), mapping(folder.run.get("task"))
    labels, n, streams = task.get("labels"), mapping(run.get("n")), mapping(run.get("streams"))
    folds, fold, seconds = run.get("folds"), run.get("fold"), number(run.get("train_seconds"))
    chosen, score = integer(run.get("best_epoch")), number(run.get("best_score"))
    selector = escape(metric_name(str(mapping(run.get("selection")).get("metric") or "score")))
    coverage = mapping(mapping(folder.evaluation).get("coverage"))
    name = text(task.get("name"))
    classes = f"{name}, {len(labels)} classes" if isinstance(labels, list) and not of_values(folder) else name
    validation = "" if score is None else f" <small>(validation {selector} {three(score)})</small>"
    pairs = [
        ("Recipe", text(run.get("recipe"))),
        ("Corpus", text(corpus.get("name"))),
        ("Task", classes),
        ("Streams", "<br>".join(f"{escape(str(s))} <small>({text(m)})</small>" for s, m in streams.items())),
        ("Items", "<br>".join(f"{escape(str(k))} {text(v)}" for k, v in n.items() if v is not None)),
        ("Folds", "" if folds is None else text(folds) + ("" if fold is None else f", this is fold {text(fold)}")),
        ("Split grouped by", text(run.get("group_by"))),
        ("Kept epoch", "" if chosen is None else f"{chosen}{validation}"),
        ("Parameters", text(run.get("parameters"))),
        ("Training time", "" if seconds is None else duration(seconds)),
        ("Device", text(run.get("device"))),
        ("Seed", "" if run.get("seed") is None else escape(str(run["seed"]))),
        ("Created", moment(run.get("created"))),
        ("Coverage", "<br>".join(f"{escape(str(m))} {_percent(v)}" for m, v in coverage.items())),
        ("Labels", text(labels)),
        ("Note on the corpus", text(corpus.get("note"))),
    ]
    return section("What was run", "", f'<div class="box">{facts(pairs)}</div>')


def _percent(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{100 * found:.0f} %"


# ---- protocol, configuration -------------------------------------------------------------------------------------


def protocol(folder: Folder) -> str:
    """How the score was made: everything that someone needs to repeat or to doubt it."""
    run, evaluation = mapping(folder.run), mapping(folder.evaluation)
    found, selection = mapping(evaluation.get("protocol")), mapping(run.get("selection"))
    known = {"folds", "group_by", "groups", "selection", "interval", "seed", "mapping", "n", "split", "split_hash"}
    known |= {"configurations_tried", "crossing", "overlap", "seen_in_training", "left_out", "seen_scored"}
    n, whole = integer(evaluation.get("n")), integer(evaluation.get("n_split"))
    scored = "" if n is None else f"{n:,}" + ("" if whole is None else f" of {whole:,}")
    pairs = [
        ("Split scored", text(evaluation.get("split"))),
        ("Items scored", scored),
        ("Folds", text(found.get("folds"))),
        ("Interval grouped by", text(found.get("group_by") or run.get("group_by"))),
        ("Groups", text(found.get("groups"))),
        ("Interval", text(found.get("interval"))),
        ("Trained on and scored", "<br>".join(text(line) for line in sentences(found.get("overlap")))),
        ("Seed of the training", text(found.get("seed"))),
        ("Selection", text(found.get("selection"))),
        *((f"Selection: {k}", text(v)) for k, v in selection.items()),
        ("Configurations tried", text(run.get("configurations_tried"))),
        ("Times the test split was opened", text(run.get("test_openings"))),
        *((k.replace("_", " "), text(v)) for k, v in found.items() if k not in known),
        ("Label mapping", _mapping(found.get("mapping"))),
        ("Corpus hash", _code(mapping(run.get("corpus")).get("hash"))),
        ("Split hash", _code(run.get("split_hash"))),
        *((f"Store hash: {k}", _code(v)) for k, v in mapping(run.get("store_hashes")).items()),
        ("Versions", text(mapping(run.get("versions")))),
    ]
    grid = facts(pairs)
    lead = "" if folder.evaluation is not None else "There is no evaluation.json, hence only the training side."
    body = f'<div class="box">{grid}</div>' if grid else "<p>No protocol is recorded.</p>"
    return section("Protocol", lead, body)


def _mapping(value: Any) -> str:
    return "<br>".join(f"{escape(str(k))} → {text(v)}" for k, v in mapping(value).items())


def _code(value: Any) -> str:
    return f"<code>{text(value)}</code>" if value else ""


def configuration(folder: Folder) -> str:
    """config.yaml and run.json as they are, folded away."""
    if folder.config is None:
        body = "<p>There is no config.yaml in this run folder.</p>"
    else:
        shown = scrolling(run_files.CONFIG, f"<pre>{escape(folder.config)}</pre>")
        body = f"<details><summary>config.yaml, resolved</summary>{shown}</details>"
    if folder.run is not None:
        shown = scrolling(run_files.INFO, f"<pre>{escape(json.dumps(folder.run, indent=2, ensure_ascii=False))}</pre>")
        body += f"<details><summary>run.json</summary>{shown}</details>"
    return section("Configuration", "", body)


def footer(folder: Folder) -> str:
    """Where the page comes from."""
    version = mapping(mapping(folder.run).get("versions")).get("affuse")
    made = f"affuse {text(version)}" if version else "affuse"
    return f"<footer>Written by {made} from the files of the run folder {escape(folder.path.resolve().name)}.</footer>"
