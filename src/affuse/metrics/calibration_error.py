"""Expected calibration error."""

from __future__ import annotations

import numpy as np

from affuse.metrics.confusion import ratio

CARD = {
    "summary": "mean gap between confidence and accuracy over 10 equal-width bins (ECE)",
    "source": "Guo et al., On Calibration of Modern Neural Networks, ICML 2017",
    "entry": "CalibrationError",
    "tasks": ["classes"],
    "better": "lower",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}
BINS = 10


class CalibrationError:
    """sum_b (n_b / n) |accuracy_b - confidence_b|, bins of the winning class' probability."""

    @staticmethod
    def statistics(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """truth [N], probabilities [N, C] -> [N, 3 * BINS]: count, confidence and hit, in the item's bin."""
        confidence, n = predicted.max(1), len(truth)
        sums = np.zeros((n, BINS, 3))
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        sums[np.arange(n), bins] = np.stack([np.ones(n), confidence, predicted.argmax(1) == truth], axis=1)
        return sums.reshape(n, -1)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., 3 * BINS] -> ECE [...]."""
        count, confidence, hits = np.moveaxis(sums.reshape(*sums.shape[:-1], BINS, 3), -1, 0)
        return ratio(np.abs(hits - confidence).sum(-1), count.sum(-1))

    @staticmethod
    def table(sums: np.ndarray) -> list[dict[str, float]]:
        """The reliability diagram's rows: low, high, confidence, accuracy, n."""
        count, confidence, hits = sums.reshape(BINS, 3).T
        edges = np.linspace(0, 1, BINS + 1)
        rows = zip(edges, edges[1:], ratio(confidence, count), ratio(hits, count), count, strict=False)
        return [
            {"low": float(a), "high": float(b), "confidence": float(c), "accuracy": float(h), "n": int(n)}
            for a, b, c, h, n in rows
        ]
