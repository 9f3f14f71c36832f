"""Temperature scaling, and how well probabilities keep their word in bins of equal mass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of logits [N, C]."""
    z = logits - logits.max(1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(1, keepdims=True)))


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The T > 0 under which softmax(logits / T) is likeliest; logits [N, C] (or log-probabilities), truth [N].

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    from scipy.optimize import minimize_scalar

    def surprise(log_t: float) -> float:
        return float(-log_softmax(logits / np.exp(log_t))[np.arange(len(truth)), truth].mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(-3.0, 3.0), method="bounded").x))


def cross_fitted(
    logits: np.ndarray, truth: np.ndarray, groups: Sequence[Any] | np.ndarray, parts: int = 5
) -> np.ndarray:
    """Calibrated probabilities [N, C], each with a temperature fitted on other groups only."""
    from sklearn.model_selection import GroupKFold

    p = np.empty_like(logits, dtype=float)
    for rest, part in GroupKFold(min(parts, len(set(groups)))).split(logits, truth, groups):
        p[part] = np.exp(log_softmax(logits[part] / fit_temperature(logits[rest], truth[rest])))
    return p


def equal_mass_bins(p: np.ndarray, truth: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Confidence (of the winning class) and accuracy in `bins` bins of equally many items, a row per bin."""
    confidence, hit = p.max(1), p.argmax(1) == truth
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return [
        {
            "low": float(confidence[i].min()), "high": float(confidence[i].max()),
            "confidence": float(confidence[i].mean()), "accuracy": float(hit[i].mean()), "n": len(i),
        }
        for i in parts if len(i)
    ]  # fmt: skip


def calibration_error(p: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over bins of equal mass."""
    rows = equal_mass_bins(p, truth, bins)
    return sum(r["n"] * abs(r["confidence"] - r["accuracy"]) for r in rows) / sum(r["n"] for r in rows)
