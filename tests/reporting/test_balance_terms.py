"""The terms of the training loss in the section on balance."""

from __future__ import annotations

import json
from pathlib import Path

from tests.reporting.test_report import make, parse, said

from affuse.reporting.report import write_report


def lines(terms: dict[str, float]) -> str:
    rows = [{"epoch": e, "loss": 1.0, "terms": {k: v / e for k, v in terms.items()}} for e in (1, 2)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_what_a_balancer_adds_to_the_loss_is_drawn_next_to_the_objectives(tmp_path: Path) -> None:
    parsed = parse(write_report(make(tmp_path, metrics=lines({"l1": 0.5, "balance.guides": 3.0}))))
    assert "Terms of the loss" in said(parsed)
    labels = [v for k, v in parsed.attributes if k == "aria-label"]
    assert any("balance.guides ends at 1.5" in label and "l1 ends at 0.25" in label for label in labels)


def test_the_terms_of_plain_training_are_no_matter_of_balance(tmp_path: Path) -> None:
    report = write_report(make(tmp_path, metrics=lines({"l1": 0.5, "focal": 1.0})))
    assert "Terms of the loss" not in said(parse(report))
