"""Were features fitted with the labels of the rows they describe? A probe on rows whose labels may have been used.

A linear probe is cross-validated over groups INSIDE the touched rows (split=train: their labels may have shaped the
features) and INSIDE the untouched ones, each time trained on as many groups, rows and rows per class. Features that
were fitted with the labels make the touched rows too easy. What is tested is the difference of the two scores; its
interval is Student's t by the jackknife over the groups of either side, with the degrees of freedom of the poorer one.
It is a leak where the lower bound lies above MARGIN: honest splits differ in difficulty too, and
benchmarks/leak_power.py measures how often that is mistaken for a leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from affuse.core.errors import BadFeatures, ProtocolError
from affuse.evaluation.intervals import Spread, cluster_sums, over_groups, sizes_of, without_each
from affuse.metrics import metric, moments
from affuse.metrics.confusion import ratio

MARGIN = 0.05
FOLDS, DRAWS, MIN_GROUPS, MAX_TRAIN = 5, 4, 8, 1000
SHRINKAGE, BINS, HEAVIEST = 100.0, 12, 8.0


@dataclass(frozen=True)
class LeakReport:
    """Scores of the probe inside the touched and the untouched rows; difference with its 95 % interval.

    In the difference a score below chance counts as chance: it is no evidence against the other side.

    n, groups: usable rows and groups on either side; n_train: rows that a probe was trained on (mean over folds);
    dropped: rows without a label, without a finite feature, or of a class that one side lacks.
    """

    inside: float
    outside: float
    difference: float
    low: float
    high: float
    flagged: bool
    margin: float
    metric: str
    probe: str
    n_inside: int
    n_outside: int
    groups_inside: int
    groups_outside: int
    n_train: int
    dropped: int

    @property
    def decision(self) -> str:
        """What is found, in one sentence."""
        scores = f"{self.metric} {self.inside:.3f} inside the touched rows, {self.outside:.3f} inside the untouched"
        gap = f"difference {self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        if self.flagged:
            advice = "the features know these rows' labels; choose and test on untouched groups only"
            return f"leak: {scores}, {gap}: {advice}"
        if self.difference > self.margin:
            easier = "no leak shown, though the touched rows are easier"
            return f"{easier}: {scores}, {gap}, not above {self.margin:g} for certain"
        return f"no sign of a leak: {scores}, {gap}"

    def to_dict(self) -> dict[str, Any]:
        """All fields and the decision."""
        return {**asdict(self), "decision": self.decision}


def find_leak(
    values: np.ndarray,
    targets: np.ndarray | Sequence[Any],
    groups: np.ndarray | Sequence[Any],
    touched: np.ndarray | Sequence[bool],
    *,
    seed: int = 0,
    margin: float = MARGIN,
    draws: int = DRAWS,
) -> LeakReport:
    """Compare a probe inside the touched rows with one inside the others.

    values [N, D] (NaN: missing); targets [N] names or integers (classes; "" is missing) or floats [N] or [N, K] (NaN is
    missing); groups [N]: what must not cross folds; touched [N] bool: labels may have been used. Classes are scored by
    UAR, values by Pearson's r with every side weighted to the same spread of targets. Raises BadFeatures for shapes
    that do not fit, ProtocolError where a side is missing, has fewer than MIN_GROUPS groups, or shares no targets.
    """
    x, truth, numbers, side, lost = _usable(values, targets, groups, touched)
    classes = truth.dtype.kind == "i"
    rng = np.random.default_rng(seed)
    predicted, n_train = _cross_validated(x, truth, numbers, side, draws, rng)
    weight = np.ones(truth.shape) if classes else _balanced(truth, side)
    sides = [_left_out(truth[rows], predicted[:, rows], numbers[rows], weight[rows]) for rows in (side, ~side)]
    inside, outside = (float(left[0]) for left, _ in sides)
    chance = 1 / (int(truth.max()) + 1) if classes else 0.0
    gap = max(inside, chance) - max(outside, chance)
    spreads = [over_groups(left, sizes) for left, sizes in sides]
    low, high = Spread(sum(s.variance for s in spreads), min(s.df for s in spreads)).interval(gap)
    kind = "logistic" if classes else "ridge"
    return LeakReport(
        inside=inside,
        outside=outside,
        difference=gap,
        low=low,
        high=high,
        flagged=bool(low > margin),
        margin=margin,
        metric="uar" if classes else "pearson",
        probe=f"{kind} regression, L2 {SHRINKAGE:g}, {FOLDS} folds by group, {draws} draws",
        n_inside=int(side.sum()),
        n_outside=int((~side).sum()),
        groups_inside=len(np.unique(numbers[side])),
        groups_outside=len(np.unique(numbers[~side])),
        n_train=n_train,
        dropped=lost,
    )


def _usable(
    values: Any, targets: Any, groups: Any, touched: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows that can be used: x [n, D], truth (int [n] or float [n, K]), group codes [n], touched [n]; rows lost."""
    x, y, groups, side = np.asarray(values), np.asarray(targets), np.asarray(groups), np.asarray(touched, bool)
    if x.ndim != 2 or x.dtype.kind not in "fiu" or not len(x) == len(y) == len(groups) == len(side):
        shapes = f"values {x.dtype}{list(x.shape)}, {len(y)} targets, {len(groups)} groups, {len(side)} touched"
        remedy = "give one vector, target, group and mark per row; pool sequences"
        raise BadFeatures(f"{shapes} do not fit together", remedy)
    x = np.where(np.isfinite(x), x, np.nan).astype(np.float32)
    codes = np.unique(groups, return_inverse=True)[1]
    if y.dtype.kind == "f":
        truth = np.where(np.isfinite(y), y, np.nan).reshape(len(y), y.shape[1] if y.ndim > 1 else 1)
    else:
        truth = _class_codes(y)
    keep = np.isfinite(x).any(1) & ((truth >= 0) if truth.ndim == 1 else np.isfinite(truth).any(1))
    _check_groups(codes, side, keep)
    if truth.ndim == 1:
        keep &= _shared(truth, codes, side, keep)
        _check_groups(codes, side, keep)
        truth[keep] = np.unique(truth[keep], return_inverse=True)[1]
    return x[keep], truth[keep], codes[keep], side[keep], int((~keep).sum())


def _class_codes(y: np.ndarray) -> np.ndarray:
    """Class numbers [N] of names or integers; -1 where the label is missing."""
    import pandas as pd

    names = pd.Series(y, dtype=object if y.dtype.kind in "OU" else None)
    return np.asarray(pd.factorize(names.mask(names == ""), sort=True)[0], dtype=int)


def _shared(truth: np.ndarray, codes: np.ndarray, side: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Rows [N] of the classes that occur in three groups of either side: the others cannot be compared."""
    counts = []
    for rows in (keep & side, keep & ~side):
        pairs = np.unique(np.stack([truth[rows], codes[rows]]), axis=1)
        counts.append(np.bincount(pairs[0], minlength=truth.max() + 1))
    fine = np.minimum(*counts) >= 3
    if fine.sum() < 2:
        raise ProtocolError(
            "fewer than two classes occur in three groups of either side", "give more labels, or other targets"
        )
    return fine[truth] & (truth >= 0)


def _check_groups(codes: np.ndarray, side: np.ndarray, keep: np.ndarray) -> None:
    """Raises ProtocolError where a side is missing, or too small to be compared."""
    if not len(side):
        message = "no row has a split, so nobody knows whose labels the features may know"
        raise ProtocolError(message, "import the published split")
    if side.all() or not side.any():
        raise ProtocolError(
            f"every row counts as {'touched' if side.any() else 'untouched'}: a leak shows only against the other kind",
            "give the split whose labels the features may know (the published train split) and rows outside it",
        )
    for name, rows in (("touched", side & keep), ("untouched", ~side & keep)):
        n = len(np.unique(codes[rows]))
        if n < MIN_GROUPS:
            raise ProtocolError(
                f"{n} {name} groups with features and labels: a leak cannot be distinguished from chance",
                f"give {MIN_GROUPS} on either side: group by a finer column (conversation), or compare other splits",
            )


def _cross_validated(
    x: np.ndarray, truth: np.ndarray, codes: np.ndarray, side: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Predictions [draws, N, C or K] by probes of either side trained without the row's group; mean training rows."""
    columns = truth.shape[1] if truth.ndim == 2 else truth.max() + 1
    predicted, sizes = np.zeros((draws, len(x), columns)), []
    sides = [np.flatnonzero(side), np.flatnonzero(~side)]
    classes = truth if truth.ndim == 1 else _bins(truth)[:, 0]
    for d in range(draws):
        folds = [_folds(codes[rows], rng) for rows in sides]
        for k in range(FOLDS):
            train = _matched([rows[f != k] for rows, f in zip(sides, folds, strict=True)], codes, classes, rng)
            sizes.append(len(train[0]))
            for rows, f, chosen in zip(sides, folds, train, strict=True):
                held = rows[f == k]
                predicted[d, held] = _probe(x[chosen], truth[chosen], x[held], columns)
    return predicted, round(float(np.mean(sizes)))


def _folds(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fold numbers [n] of rows: the groups are shuffled and given to the folds in turn."""
    _, index = np.unique(codes, return_inverse=True)
    return rng.permutation(index.max() + 1)[index] % FOLDS


def _matched(
    sides: list[np.ndarray], codes: np.ndarray, classes: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
    """Training rows of either side: as many groups, and as many rows of every class or bin, as the poorer one has."""
    groups = [np.unique(codes[rows]) for rows in sides]
    n = min(map(len, groups))
    sides = [rows[np.isin(codes[rows], rng.permutation(g)[:n])] for rows, g in zip(sides, groups, strict=True)]
    counts = np.minimum(*(np.bincount(classes[rows], minlength=classes.max() + 1) for rows in sides))
    if not counts.any():
        raise ProtocolError("no range of targets is common to both sides", "compare splits whose targets overlap")
    counts = np.ceil(counts * min(1.0, MAX_TRAIN / max(1, counts.sum()))).astype(int)
    return [_first(rng.permutation(rows), classes, counts) for rows in sides]


def _first(rows: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The first counts[c] rows of every class c."""
    rows = rows[np.argsort(classes[rows], kind="stable")]
    ranked = classes[rows]
    place = np.arange(len(rows)) - np.searchsorted(ranked, ranked)
    return rows[place < counts[ranked]]


def _probe(x: np.ndarray, truth: np.ndarray, new: np.ndarray, columns: int) -> np.ndarray:
    """Strongly shrunken linear model of standardised features, fitted on x, applied to `new` -> [n, columns].

    Missing numbers count as the training mean. The shrinkage is fixed: a search would favour the stronger side. Values
    are predicted as deviations: a fold's training mean is low where the held-out mean is high, which is no skill.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    known = np.isfinite(x)
    n = np.maximum(known.sum(0), 1)
    mean = np.where(known, x, 0).sum(0) / n
    scale = np.sqrt(np.where(known, (x - mean) ** 2, 0).sum(0) / n)
    x, new = (np.nan_to_num((v - mean) / np.where(scale > 1e-6 * np.abs(mean), scale, np.inf)) for v in (x, new))
    if truth.ndim == 2:
        model = Ridge(alpha=SHRINKAGE, fit_intercept=False).fit(x, np.nan_to_num(truth - np.nanmean(truth, axis=0)))
        return model.predict(new).reshape(len(new), columns)
    if len(occurring := np.unique(truth)) > 1:
        model = LogisticRegression(C=1 / SHRINKAGE, class_weight="balanced", max_iter=300, tol=1e-3)
        return np.eye(columns)[model.fit(x, truth).predict(new)]
    return np.tile(np.isin(np.arange(columns), occurring).astype(float), (len(new), 1))


def _bins(truth: np.ndarray) -> np.ndarray:
    """Quantile bin [N, K] of every target among all rows."""
    edges = np.nanquantile(truth, np.arange(1, BINS) / BINS, axis=0)
    return (truth[None] > edges[:, None]).sum(0)


def _balanced(truth: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Weights [N, K] that give either side the same spread of targets: equal shares of the pooled quantile bins."""
    bins = _bins(truth)
    weight = np.ones(truth.shape)
    for rows in (side, ~side):
        share = np.stack([(bins[rows] == b).mean(0) for b in range(BINS)])
        weight[rows] = np.minimum(np.take_along_axis(1 / (BINS * np.maximum(share, 1e-9)), bins[rows], 0), HEAVIEST)
    return weight


def _left_out(
    truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(the score, mean over draws, of all and without each group [1 + G], rows of each group [G])."""
    if truth.ndim == 1:
        uar = metric("uar")
        values, score = [uar.statistics(truth, p) for p in predicted], uar.compute
    else:
        times = np.repeat(weight, 6, axis=1)
        values, score = [moments.statistics(truth, p) * times for p in predicted], _pearson
    return np.mean([score(without_each(cluster_sums(v, groups))) for v in values], axis=0), sizes_of(groups)


def _pearson(sums: np.ndarray) -> np.ndarray:
    """Summed statistics [..., K * 6] -> Pearson's r, mean over the K targets."""
    _, _, vt, vp, cov = moments.moments(sums)
    return ratio(cov, np.sqrt(np.maximum(vt, 0) * np.maximum(vp, 0))).mean(-1)
