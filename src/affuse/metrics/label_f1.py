"""F1 of each label, mean over the labels that occur."""

from __future__ import annotations

import numpy as np

from affuse.metrics import label_counts
from affuse.metrics.confusion import mean_present

CARD = {
    "summary": "F1 of each label, mean over the labels that occur",
    "source": "scikit-learn: f1_score(average=macro) of a label matrix",
    "entry": "LabelF1",
    "tasks": ["multilabel"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class LabelF1:
    """mean over labels with a present item of 2 hits / (2 hits + misses + false alarms)."""

    statistics = staticmethod(label_counts.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * 4] -> metric [...]."""
        found = label_counts.counts(sums)
        return mean_present(label_counts.per_label(found)["f1"], found[..., :2].sum(-1) > 0)
