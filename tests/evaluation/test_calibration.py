"""Temperature scaling finds what was planted; bins of equal mass."""

from __future__ import annotations

import numpy as np
import pytest

from affuse.evaluation.calibration import calibration_error, cross_fitted, equal_mass_bins, fit_temperature, log_softmax


def drawn(n: int, sharper: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `sharper` times what the labels were drawn from."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 1.5, (n, 7))
    truth = (honest + rng.gumbel(size=honest.shape)).argmax(1)
    return honest * sharper, truth


@pytest.mark.parametrize("sharper", [0.4, 1.0, 3.0])
def test_the_planted_temperature_is_found(sharper: float) -> None:
    logits, truth = drawn(20000, sharper)
    assert fit_temperature(logits, truth) == pytest.approx(sharper, rel=0.05)
    assert fit_temperature(log_softmax(logits), truth) == pytest.approx(sharper, rel=0.05)


def test_cross_fitting_calibrates_without_changing_the_decision() -> None:
    logits, truth = drawn(4000, 3.0)
    before = np.exp(log_softmax(logits))
    after = cross_fitted(logits, truth, np.arange(4000) % 40)
    assert (after.argmax(1) == before.argmax(1)).all()
    assert calibration_error(after, truth) < 0.03 < 0.15 < calibration_error(before, truth)


def test_bins_hold_equal_mass() -> None:
    logits, truth = drawn(1003, 1.0)
    p = np.exp(log_softmax(logits))
    rows = equal_mass_bins(p, truth)
    assert {r["n"] for r in rows} == {100, 101}
    assert sum(r["n"] for r in rows) == 1003
    assert all(a["high"] <= b["low"] for a, b in zip(rows, rows[1:], strict=False))
    sure = np.eye(7)[truth]
    assert calibration_error(sure, truth) == 0
    assert calibration_error(sure, (truth + 1) % 7) == 1
