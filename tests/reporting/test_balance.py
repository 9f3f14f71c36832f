"""The section on balance: drawn from what there is, gone where there is nothing, whole whatever is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.reporting.test_report import EMOTIONS, HOSTILE, evaluation, make, nulled, parse, said, score

from affuse.reporting.report import write_report


def diagnosed(names: tuple[str, ...] = ("audio", "vision", "text")) -> dict[str, Any]:
    """What an evaluation says of balance."""
    gap = {"value": 0.05, "low": -0.01, "high": 0.11, "p": 0.1, "n": 270}
    return {
        "shapley": {m: score(0.1 * i - 0.05, 270) for i, m in enumerate(names)},
        "imbalance": {"metric": "accuracy", **score(0.2, 270)},
        "probes": {m: {"joint": score(0.5, 270), "alone": score(0.55, 270), "gap": gap} for m in names},
        "protocol": {"probe": "accuracy of a logistic regression"},
    }


def traced(streams: int, epochs: int = 6, fold: int | None = None) -> str:
    traces = {f"{what}.stream{i}": i for what in ("score", "k") for i in range(streams)}
    lines = [
        {"fold": fold, "epoch": e, "loss": 1 / e, "balance": {k: i + e / 10 for k, i in traces.items()}}
        for e in range(1, epochs + 1)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def styles_of(parsed: Any, start: str) -> list[str]:
    return [v for k, v in parsed.attributes if k == "class" and v.startswith(start)]


def test_everything_is_drawn_and_k_comes_first(tmp_path: Path) -> None:
    parsed = parse(write_report(make(tmp_path, evaluation=evaluation(EMOTIONS) | diagnosed(), metrics=traced(2))))
    words = said(parsed)
    assert "text carries most of the accuracy (0.150), audio least (-0.050)" in words
    assert "audio least (-0.050); they are 0.200 apart (0.140 – 0.260)" in words
    assert "-0.010 to 0.110" in words
    assert "alone 0.550, joint 0.500" in words
    order = ["Learning curves", "Balance", "accuracy with every subset", "Probe gap"]
    order += ["k, factor", "score of the stream", "Protocol"]
    assert sorted(order, key=words.index) == order
    assert any("stream1 ends at 1.600" in v for k, v in parsed.attributes if k == "aria-label")


def test_there_is_no_section_where_there_is_nothing_to_show(tmp_path: Path) -> None:
    assert "Balance" not in said(parse(write_report(make(tmp_path))))


@pytest.mark.parametrize("streams", [2, 5, 9])
def test_every_stream_has_its_own_line_style(tmp_path: Path, streams: int) -> None:
    styles = styles_of(parse(write_report(make(tmp_path, metrics=traced(streams)))), "trace ")
    assert len(styles) == 3 * streams
    assert len(set(styles)) == streams


def test_a_line_is_the_mean_over_folds(tmp_path: Path) -> None:
    parsed = parse(write_report(make(tmp_path, metrics=traced(2, 4, fold=0) + traced(2, 6, fold=1))))
    assert len(styles_of(parsed, "trace ")) == 3 * 2
    assert "over 2 models" in said(parsed)
    assert any("stream1 ends at 1.400" in v for k, v in parsed.attributes if k == "aria-label")


def test_what_is_null_or_hostile_is_tolerated(tmp_path: Path) -> None:
    for i, broken in enumerate(nulled(diagnosed())):
        parse(write_report(make(tmp_path / f"{i}", evaluation=evaluation(EMOTIONS) | broken)))
    hostile = diagnosed((HOSTILE, "vision"))
    hostile |= {"imbalance": {"metric": HOSTILE, **score(0.2, 9)}, "protocol": {"probe": HOSTILE}}
    lines = json.dumps({"epoch": 1, "balance": {f"{HOSTILE}.{HOSTILE}": 1.0, "k.a": float("nan"), "plain": 2}}) + "\n"
    page = write_report(make(tmp_path / "hostile", evaluation=evaluation(EMOTIONS) | hostile, metrics=lines))
    assert "b" not in parse(page).tags
    assert "<b>" not in page.read_text()
