"""report.html: well-formed, self-contained, escaped, and whole whatever is missing."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affuse.core import run_files
from affuse.core.errors import BadRun, MissingFile
from affuse.reporting import style
from affuse.reporting.folder import read
from affuse.reporting.plots import axis, between, decimals
from affuse.reporting.report import write_report

EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
HOSTILE = '<b>"x"&\''
VOID = {"meta", "br", "link", "img", "hr", "input"}
METRICS = ("accuracy", "uar", "macro_f1", "weighted_f1", "calibration_error")


class Balance(HTMLParser):
    """Fails on a tag that closes nothing or stays open; collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(k, v or "") for k, v in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(k, v or "") for k, v in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def parse(page: Path) -> Balance:
    """The page, checked: balanced, and nothing in it points outside."""
    source = page.read_text(encoding="utf-8")
    parsed = Balance()
    parsed.feed(source)
    parsed.close()
    assert parsed.open == []
    assert not re.search(r"url\(|@import|<script|<link|<iframe|<img", source)
    assert not [a for a in parsed.attributes if a[0] in ("src", "href", "srcset") or "://" in a[1]]
    assert "nan" not in re.findall(r'[\w:-]+="([^"]*)"', source)
    return parsed


def said(parsed: Balance) -> str:
    return " ".join(" ".join(parsed.words).split())


def score(value: float, n: int, half: float = 0.06) -> dict[str, Any]:
    return {"value": value, "low": max(value - half, 0.0), "high": value + half, "n": n}


def evaluation(labels: list[str], seed: int = 0) -> dict[str, Any]:
    """A coherent evaluation: the matrix is drawn, everything else is computed from it."""
    rng = np.random.default_rng(seed)
    c = len(labels)
    share = rng.dirichlet(np.ones(c), c) * 0.45 + np.eye(c) * rng.uniform(0.3, 0.6, c)[:, None]
    counts = np.stack([rng.multinomial(270 // c, row / row.sum()) for row in share])
    n, hits = int(counts.sum()), np.diag(counts)
    recall, precision = hits / counts.sum(1), hits / np.maximum(counts.sum(0), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    values = {
        "accuracy": hits.sum() / n,
        "uar": recall.mean(),
        "macro_f1": f1.mean(),
        "weighted_f1": f1.mean(),
        "calibration_error": 0.081,
    }
    full = {k: score(float(v), n) for k, v in values.items()}

    def row(name: str, kind: str, modalities: list[str], factor: float) -> dict[str, Any]:
        metrics = {k: score(float(values[k]) * factor, n) for k in METRICS[:4]}
        return {"name": name, "kind": kind, "modalities": modalities, "metrics": metrics}

    edges = np.linspace(0, 1, 11)
    bins = [
        {"low": lo, "high": hi, "confidence": (lo + hi) / 2, "accuracy": ((lo + hi) / 2) ** 1.2, "n": 10 + 7 * i}
        if i > 1
        else {"low": lo, "high": hi, "confidence": None, "accuracy": None, "n": 0}
        for i, (lo, hi) in enumerate(itertools.pairwise(edges))
    ]
    protocol = {
        "folds": 5,
        "group_by": "speaker",
        "groups": 18,
        "selection": "UAR on 20 % of train, carved by speaker",
        "interval": "95 % bootstrap, 2000 resamples, clustered by speaker",
        "seed": 0,
        "mapping": None,
    }
    return {
        "run": "runs/ravdess-audio-0",
        "corpus": "RAVDESS speech",
        "split": "test",
        "n": n,
        "n_split": n,
        "protocol": protocol,
        "task": "emotion",
        "labels": labels,
        "metrics": full,
        "per_class": [
            {
                "label": name,
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(counts[i].sum()),
            }
            for i, name in enumerate(labels)
        ],
        "confusion_matrix": counts.tolist(),
        "calibration": bins,
        "rows": [
            row("majority class", "baseline", [], 1 / c / values["uar"]),
            row("audio", "unimodal", ["audio"], 0.86),
            row("vision", "unimodal", ["vision"], 0.74),
            {"name": "audio + vision", "kind": "full", "modalities": ["audio", "vision"], "metrics": full},
        ],
        "coverage": {"audio": 0.99, "vision": 0.8},
    }


def run_json(labels: list[str] | None, folds: int | None = None) -> dict[str, Any]:
    return {
        "format": 2,
        "recipe": "ravdess-audio-vision",
        "seed": 0,
        "folds": folds,
        "fold": None,
        "group_by": "speaker",
        "corpus": {
            "name": "RAVDESS speech",
            "path": "corpora/ravdess",
            "hash": "9f1c2ab0",
            "synthetic": False,
            "note": "",
        },
        "task": {"name": "emotion", "labels": labels},
        "streams": {"waveform": "audio", "face_crops": "vision"},
        "selection": {"carved": 0.2, "groups": ["03", "11", "17"], "metric": "uar" if labels else "ccc"},
        "split_hash": "5be0cd19",
        "store_hashes": {"waveform": "1f83d9ab", "face_crops": "a54ff53a"},
        "configurations_tried": 1,
        "test_openings": 1,
        "parameters": 1_234_567,
        "train_seconds": 321.0,
        "created": "2026-01-12T09:30:00+00:00",
        "versions": {"affuse": "0.1.0", "torch": "2.9.0", "numpy": "2.3.4"},
        "device": "cpu",
        "n": {"train": 648, "valid": 162, "test": 270},
        "best_epoch": 22,
        "best_score": 0.583,
    }


def history(epochs: int, fold: int | None, metric: str = "uar") -> str:
    rng = np.random.default_rng(fold or 0)
    lines = []
    for e in range(1, epochs + 1):
        value = 0.62 - 0.5 * np.exp(-e / 8) + rng.normal(0, 0.015)
        lines.append(
            {
                "fold": fold,
                "epoch": e,
                "loss": 2.1 * np.exp(-e / 12) + rng.normal(0, 0.03) + 0.2,
                "lr": 1e-3 * 0.5 * (1 + np.cos(np.pi * e / epochs)),
                "seconds": 3.1,
                "valid": {metric: value, "accuracy": value, "loss": 1.2},
            }
        )
    return "".join(json.dumps(line) + "\n" for line in lines)


def make(path: Path, labels: list[str] | None = EMOTIONS, folds: int | None = None, **files: Any) -> Path:
    """A run folder; `files` replaces run, evaluation, config or metrics, None leaves the file out."""
    path.mkdir(parents=True, exist_ok=True)
    parts = {
        "run": run_json(labels, folds),
        "evaluation": evaluation(labels) if labels else regression(),
        "config": "recipe: ravdess-audio-vision\noptim:\n  lr: 0.001\n",
        "metrics": None if folds else history(30, None, "uar" if labels else "ccc"),
        **files,
    }
    for name, value in parts.items():
        suffix = {"config": "yaml", "metrics": "jsonl"}.get(name, "json")
        if value is not None:
            target = path / f"{name}.{suffix}"
            target.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    for fold in range(folds or 0):
        sub = path / f"fold{fold}"
        sub.mkdir(exist_ok=True)
        (sub / "metrics.jsonl").write_text(history(24 + 2 * fold, fold))
        (sub / "run.json").write_text(json.dumps({"format": 1, "fold": fold, "best_epoch": 14 + 2 * fold}))
    return path


def regression() -> dict[str, Any]:
    metrics = {"ccc": score(0.412, 500), "mae": score(1.37, 500), "pearson": score(0.44, 500)}
    base = {
        "ccc": score(0.0, 500, 0.01),
        "mae": score(1.71, 500),
        "pearson": {"value": None, "low": None, "high": None, "n": 500},
    }
    return {
        "split": "test",
        "n": 500,
        "n_split": 500,
        "protocol": {"interval": "95 % bootstrap"},
        "task": "valence",
        "labels": ["valence"],
        "metrics": metrics,
        "per_class": None,
        "confusion_matrix": None,
        "calibration": None,
        "rows": [
            {"name": "train mean", "kind": "baseline", "modalities": [], "metrics": base},
            {"name": "audio", "kind": "full", "modalities": ["audio"], "metrics": metrics},
        ],
        "coverage": None,
    }


def poisoned(value: Any) -> Any:
    """`value` with every text in it, and every key nobody looks up, made hostile."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, list):
        return [poisoned(v) for v in value]
    if isinstance(value, dict):
        open_ended = {"streams", "store_hashes", "versions", "n", "coverage"}
        return {
            k: {f"{HOSTILE}{i}": poisoned(inner) for i, inner in enumerate(v.values())}
            if k in open_ended and isinstance(v, dict)
            else poisoned(v)
            for k, v in value.items()
        }
    return value


def test_the_answer_stands_first(tmp_path: Path) -> None:
    words = said(parse(write_report(make(tmp_path / "run"))))
    shown = evaluation(EMOTIONS)["metrics"]["uar"]
    head = words[: words.index("What was run")]
    assert f"{shown['value']:.3f}" in head
    assert f"{shown['low']:.3f} – {shown['high']:.3f}" in head
    assert f"n = {shown['n']}" in head
    assert "clustered by speaker" in head
    order = [
        "What was run",
        "Rows:",
        "Confusion matrix",
        "Classes",
        "Calibration",
        "Learning curves",
        "Protocol",
        "Configuration",
    ]
    assert sorted(order, key=words.index) == order


def test_writes_only_the_report_and_twice_the_same(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    before = {p.name for p in run.iterdir()}
    first = write_report(run)
    content = first.read_bytes()
    assert first == run / "report.html"
    assert write_report(run).read_bytes() == content
    assert {p.name for p in run.iterdir()} == before | {"report.html"}


@pytest.mark.parametrize("classes", [2, 3, 8, 11, 17, 25])
def test_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    labels = [f"class {i}" for i in range(classes)]
    parsed = parse(write_report(make(tmp_path / "run", labels)))
    assert f"confusion matrix of {classes} classes" in dict.fromkeys(v for _, v in parsed.attributes)
    assert sum(v == "class" for k, v in parsed.attributes if k == "class") == classes


@pytest.mark.parametrize("label", [HOSTILE, "a" * 120, "très fâché · 怒り", "", "</style></svg></main>"])
def test_any_label(tmp_path: Path, label: str) -> None:
    page = write_report(make(tmp_path / "run", [label, "other", "third"]))
    parsed = parse(page)
    assert "b" not in parsed.tags
    assert label in [w.strip() for w in parsed.words] or not label


def test_everything_from_files_is_escaped(tmp_path: Path) -> None:
    metrics = history(5, None).replace('"uar"', json.dumps(HOSTILE))
    run = make(
        tmp_path / "run",
        config=f"name: {HOSTILE}\n",
        metrics=metrics,
        run=poisoned(run_json(EMOTIONS)),
        evaluation=poisoned(evaluation(EMOTIONS)),
    )
    scores = json.loads((run / "evaluation.json").read_text())
    scores["metrics"][HOSTILE] = score(0.5, 9)
    scores["rows"][0]["metrics"][HOSTILE] = score(0.5, 9)
    scores["protocol"][HOSTILE], scores["protocol"]["mapping"] = HOSTILE, {HOSTILE: HOSTILE}
    (run / "evaluation.json").write_text(json.dumps(scores))
    page = write_report(run)
    assert "b" not in parse(page).tags
    assert "<b>" not in page.read_text()


@pytest.mark.parametrize("absent", ["run", "evaluation", "config", "metrics"])
def test_a_missing_file_is_said_in_words(tmp_path: Path, absent: str) -> None:
    words = said(parse(write_report(make(tmp_path / "run", **{absent: None}))))
    name = {"config": "config.yaml", "metrics": "metrics.jsonl"}.get(absent, f"{absent}.json")
    assert f"There is no {name} in this run folder" in words


def test_an_unscored_run_shows_its_selection_score_as_such(tmp_path: Path) -> None:
    words = said(parse(write_report(make(tmp_path / "run", evaluation=None))))
    assert "Not scored yet" in words
    assert "best validation UAR was 0.583" in words
    assert "not an estimate" in words


def nulled(value: Any) -> list[Any]:
    """Copies of `value`, each with one entry of its first two levels null."""
    copies = []
    for key in value:
        copies.append({**value, key: None})
        if isinstance(value[key], dict):
            copies += [{**value, key: {**value[key], inner: None}} for inner in value[key]]
        if isinstance(value[key], list) and value[key] and isinstance(value[key][0], dict):
            copies += [{**value, key: [{**one, inner: None} for one in value[key]]} for inner in value[key][0]]
    return copies


def test_any_null_is_tolerated(tmp_path: Path) -> None:
    for i, broken in enumerate(nulled(evaluation(EMOTIONS[:3]))):
        parse(write_report(make(tmp_path / f"e{i}", EMOTIONS[:3], evaluation=broken)))
    for i, broken in enumerate(nulled(run_json(EMOTIONS[:3]))):
        parse(write_report(make(tmp_path / f"r{i}", EMOTIONS[:3], run=broken)))


def test_values_that_are_not_numbers_are_dashes(tmp_path: Path) -> None:
    scores = evaluation(EMOTIONS[:3])
    scores["metrics"]["uar"]["low"] = float("nan")
    scores["per_class"][0]["f1"] = None
    scores["confusion_matrix"][0] = [0, 0, 0]
    scores["rows"][1]["metrics"]["uar"] = {"value": None, "low": None, "high": None, "n": 0}
    words = said(parse(write_report(make(tmp_path / "run", EMOTIONS[:3], evaluation=scores))))
    assert "no interval" in words
    assert "–" in words
    assert "nan" not in words.lower().split()


def test_dimensions_are_no_classes(tmp_path: Path) -> None:
    info = run_json(None) | {"task": {"name": "valence", "labels": ["valence"]}}
    words = " ".join(parse(write_report(make(tmp_path / "run", None, run=info))).words)
    assert "1 classes" not in words and "This task has no classes" in words


def test_a_class_that_does_not_occur_is_not_the_weakest(tmp_path: Path) -> None:
    scores = evaluation(EMOTIONS)
    scores["per_class"][2] |= {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    page = write_report(make(tmp_path / "run", evaluation=scores)).read_text()
    assert "weakest: " in page and f"weakest: {EMOTIONS[2]}" not in page


def test_the_seed_of_the_run_is_not_called_that_of_the_interval(tmp_path: Path) -> None:
    assert "Seed of the interval" not in write_report(make(tmp_path / "run")).read_text()


def test_nothing_is_less_than_nothing() -> None:
    assert decimals(-1e-9) == "0.000" and between(-1e-9, 0.1) == "0.000 to 0.100"


def test_regression_has_no_matrix_and_leads_with_ccc(tmp_path: Path) -> None:
    words = said(parse(write_report(make(tmp_path / "run", None))))
    assert "no classes, so there is no confusion matrix" in words
    assert "0.412" in words[: words.index("What was run")]
    assert "CCC" in words


def test_folds_are_all_drawn_with_their_mean(tmp_path: Path) -> None:
    parsed = parse(write_report(make(tmp_path / "run", folds=5)))
    styles = [v for k, v in parsed.attributes if k == "class"]
    assert styles.count("one") == 3 * 5
    assert styles.count("mean") == 3
    assert styles.count("chosen") == 3 * 5
    assert "5 models" in said(parsed)


def test_folds_in_one_file_are_the_same_picture(tmp_path: Path) -> None:
    lines = "".join(history(20, fold) for fold in range(3))
    parsed = parse(write_report(make(tmp_path / "run", metrics=lines)))
    assert [v for k, v in parsed.attributes if k == "class"].count("one") == 3 * 3


def test_a_cut_off_line_is_named_and_a_repeated_epoch_counts_once(tmp_path: Path) -> None:
    lines = history(3, None) + history(4, None) + '{"epoch": 5, "lo'
    words = said(parse(write_report(make(tmp_path / "run", metrics=lines))))
    assert "Line 8 of metrics.jsonl is not an epoch" in words
    assert "4 epochs" in words


def test_a_single_epoch_is_a_point(tmp_path: Path) -> None:
    parse(write_report(make(tmp_path / "run", metrics=history(1, None))))


def test_the_synthetic_corpus_is_flagged_before_the_answer(tmp_path: Path) -> None:
    run = run_json(EMOTIONS)
    run["corpus"]["synthetic"] = True
    words = said(parse(write_report(make(tmp_path / "run", run=run))))
    flag = words.index("Synthetic corpus: these numbers say that the pipeline works, nothing about people")
    assert flag < words.index("n = ")
    assert "Synthetic corpus" not in said(parse(write_report(make(tmp_path / "real"))))


def test_an_incomplete_score_and_a_reopened_test_split_are_warned_of(tmp_path: Path) -> None:
    words = said(
        parse(
            write_report(
                make(
                    tmp_path / "run",
                    run={**run_json(EMOTIONS), "test_openings": 4, "configurations_tried": 12},
                    evaluation={**evaluation(EMOTIONS), "n": 250, "n_split": 270},
                )
            )
        )
    )
    assert "Only 250 of the 270 items" in words
    assert "opened 4 times" in words
    assert "best of 12 configurations tried" in words[: words.index("What was run")]


def test_runs_of_every_format_that_is_read_give_the_same_page(tmp_path: Path) -> None:
    runs = {f: make(tmp_path / str(f) / "run", run=run_json(EMOTIONS) | {"format": f}) for f in run_files.READ}
    pages = {said(parse(write_report(run))).replace(f'"format": {f}', "") for f, run in runs.items()}
    assert len(pages) == 1


def test_what_cannot_be_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="nowhere"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(BadRun, match=r"no run\.json"):
        write_report(tmp_path)
    with pytest.raises(BadRun, match="not valid JSON"):
        write_report(make(tmp_path / "damaged", evaluation="{"))
    with pytest.raises(BadRun, match="format 3"):
        write_report(make(tmp_path / "newer", run={"format": 3}))


@pytest.mark.parametrize("palette", [style.LIGHT, style.DARK])
def test_text_contrast_is_aa(palette: dict[str, str]) -> None:
    for ground in ("page", "surface"):
        for ink in ("ink", "muted", "accent"):
            assert style.contrast(palette[ground], palette[ink]) >= 4.5, (ground, ink)
        for mark in ("accent", "second", "third"):
            assert style.contrast(palette[ground], palette[mark]) >= 3, (ground, mark)
    assert style.contrast(palette["warn"], palette["warn-ink"]) >= 4.5
    assert style.contrast(palette["soft"], palette["ink"]) >= 4.5


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_heat_map_text_contrast_is_aa_at_every_step(mode: str) -> None:
    assert min(style.contrast(fill, ink) for fill, ink in style.heat(mode)) >= 4.5


def test_contrast_is_wcags() -> None:
    assert style.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert style.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize(
    "values", [[0.0], [0.1, 0.97], [-0.3, 0.4], [1e-5, 1e-3], [3.0], [0.5, 0.5], [12000, 480000.0]]
)
def test_an_axis_holds_its_values_and_has_distinct_round_ticks(values: list[float]) -> None:
    found = axis(values)
    assert found.ticks[0] <= min(values)
    assert found.ticks[-1] >= max(values) - 1e-9
    assert 2 <= len(found.ticks) <= 9
    assert len({found.label(t) for t in found.ticks}) == len(found.ticks)
    assert all(0 <= found.share(v) <= 1 for v in values)


def test_models_of_folds_and_members_are_all_found(tmp_path: Path) -> None:
    for place in ("fold0/member0", "fold0/member1", "fold1/member0", "fold1/member1", "on-other", "fold0x"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "metrics.jsonl").write_text('{"epoch": 1, "loss": 1.0}\n')
    (tmp_path / "run.json").write_text('{"format": 1}')
    assert [h.fold for h in read(tmp_path).histories] == [0, 0, 1, 1]
    assert "4 models" in write_report(tmp_path).read_text()
