"""The ideal observer of the planted benchmark is Bayes' rule: it equals the sum over every label and every speaker."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "planted.py"


@pytest.fixture(scope="module")
def planted():
    spec = importlib.util.spec_from_file_location("planted", SCRIPT)
    module = sys.modules["planted"] = importlib.util.module_from_spec(spec)  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


def _chance(chain, labels, who) -> float:
    """p(labels | who speaks), turn by turn."""
    last, p = {}, 1.0
    for label, speaker in zip(labels, who, strict=True):
        own, other = last.get(speaker), last.get(1 - speaker)
        uniform = 1 / chain.classes
        p *= (
            (1 - chain.inertia - chain.contagion) * uniform
            + chain.inertia * (uniform if own is None else own == label)
            + chain.contagion * (uniform if other is None else (other + chain.answer) % chain.classes == label)
        )
        last[speaker] = label
    return p


def _enumerated(chain, likelihood, speakers) -> np.ndarray:
    """p(label | vectors) [L, C], summed over all label sequences and all the `speakers` sequences."""
    length, classes = likelihood.shape
    found = np.zeros((length, classes))
    for labels in itertools.product(range(classes), repeat=length):
        p = np.prod(likelihood[range(length), labels]) * sum(_chance(chain, labels, who) for who in speakers)
        found[range(length), labels] += p
    return found / found.sum(1, keepdims=True)


@pytest.mark.parametrize(("inertia", "contagion", "answer"), [(0.5, 0.3, 0), (0.9, 0.0, 0), (0.2, 0.7, 1)])
def test_the_observer_is_the_sum_over_all_labels_and_speakers(planted, inertia, contagion, answer):
    chain, rng = planted.Chain(3, inertia, contagion, answer), np.random.default_rng(0)
    n, length = 4, 5
    likelihood, who = rng.random((n, length, 3)), rng.integers(2, size=(n, length))
    switched = np.concatenate([np.zeros((n, 1)), who[:, 1:] != who[:, :-1]], axis=1)
    anyone = list(itertools.product((0, 1), repeat=length))
    knowing, blind = chain.posterior(likelihood, switched), chain.posterior(likelihood, np.full((n, length), 0.5))
    causal = chain.posterior(likelihood, switched, future=False)
    for k in range(n):
        assert knowing[k] == pytest.approx(_enumerated(chain, likelihood[k], [who[k]]), abs=1e-12)
        assert blind[k] == pytest.approx(_enumerated(chain, likelihood[k], anyone), abs=1e-12)
        for t in range(length):
            past = _enumerated(chain, likelihood[k, : t + 1], [who[k, : t + 1]])
            assert causal[k, t] == pytest.approx(past[t], abs=1e-12)


@pytest.mark.parametrize("answer", [0, 1])
def test_on_a_generated_corpus_the_observer_is_as_often_right_as_it_predicts(planted, tmp_path, answer):
    knobs = planted.KNOBS | {"conversations": 150, "speakers": 60}
    best = planted.ideal(planted.make_synthetic(tmp_path, answer=answer, **knobs), split="train")
    right = {name: (p.argmax(1) == best.truth).mean() for name, p in best.answers.items()}
    for name, p in best.answers.items():
        assert p.sum(1) == pytest.approx(1.0)
        assert p.max(1).mean() == pytest.approx(right[name], abs=0.03)
    assert right["alone"] + 0.03 < right["blind, causal"] < right["who, causal"] < right["who"]
    assert right["who"] - right["blind"] == pytest.approx(0.13 if answer else 0.01, abs=0.03)
