from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.stores.windows import windows

ORACLE = {
    75: [(0, 75)],
    300: [(0, 300)],
    301: [(0, 300), (1, 301)],
    501: [(0, 300), (200, 500), (201, 501)],
    700: [(0, 300), (200, 500), (400, 700)],
}


@pytest.mark.parametrize("steps", ORACLE)
def test_published_windows(steps):
    found = windows(np.array([steps]), 300, 200)
    assert list(zip(found.start.tolist(), found.end.tolist(), strict=True)) == ORACLE[steps]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(1, 80), st.integers(1, 80))
def test_every_step_is_scored_from_one_window_that_holds_it(steps, length, hop):
    hop = min(hop, length)
    found = windows(np.array(steps), length, hop)
    for i, n in enumerate(steps):
        own = found.row == i
        scored = np.zeros(n, int)
        for start, end, first, last in zip(*(part[own] for part in found[1:]), strict=True):
            assert 0 <= start <= first < last <= end <= n
            assert end - start == min(length, n)
            scored[first:last] += 1
        assert (scored == 1).all()


def test_windows_of_a_corpus_are_made_at_once():
    """Published defect: every video was read to know its length; MELD has 13,708 clips."""
    steps = np.random.default_rng(0).integers(10, 9000, 13_700)
    started = time.perf_counter()
    windows(steps, 300, 200)
    assert time.perf_counter() - started < 1
