"""Mean of the accuracies of each class against the rest."""

from __future__ import annotations

import numpy as np

from affuse.metrics import confusion

CARD = {
    "summary": "accuracy of each class against the rest, mean over the classes; on C classes never naming any already "
    "has 1 - 1/C (six: 83.3 %), so that it is no accuracy",
    "source": "scikit-learn: 1 - hamming_loss of one-hot labels; as reported by MME2E (Dai et al., NAACL 2021)",
    "entry": "OneVsRestAccuracy",
    "tasks": ["classes"],
    "better": "higher",
    "bounds": [0, 1],
    "licence": "Apache-2.0",
}


class OneVsRestAccuracy:
    """mean over the task's C classes of (n_cc + n_not-c,not-c) / n = 1 - 2 (1 - accuracy) / C.

    A wrong item is wrong for two classes, its own and the predicted one, and right for all others.
    """

    statistics = staticmethod(confusion.statistics)

    @staticmethod
    def compute(sums: np.ndarray) -> np.ndarray:
        """Summed statistics [..., C * C] -> metric [...]."""
        counts = confusion.matrix(sums)
        hits, n = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum((-2, -1))[..., None]
        absent = n - counts.sum(-1) - counts.sum(-2) + hits
        return confusion.ratio(hits + absent, np.broadcast_to(n, hits.shape)).mean(-1)
