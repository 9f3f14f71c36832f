"""Weighted accuracy: present and absent items count alike, mean over the labels."""

from __future__ import annotations

import numpy as np

from affuse.metrics import label_counts
from affuse.metrics.confusion import mean_present

CARD = {
    "summary": "weighted accuracy: present and absent items count alike, mean over the labels",
    "source": "Tong et al., ACL 2017; as reported on CMU-MOSEI emotions",
    "entry": "LabelWeightedAccuracy",
    "tasks": ["multilabel"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class LabelWeightedAccuracy:
    """mean over labels that occur of (recall + specificity) / 2."""

    statistics = staticmethod(label_counts.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * 4] -> metric [...]."""
        found = label_counts.counts(sums)
        return mean_present(label_counts.per_label(found)["balance"], found[..., :2].sum(-1) > 0)
