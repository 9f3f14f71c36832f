"""One grid for all rates: means and neighbours, gaps stay gaps, and nothing moves in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affuse.core.errors import BadConfig
from affuse.core.types import Feature
from affuse.stores.align import at_rate, onto


def ramp(rate: float, seconds: float, t0: float = 0.0) -> Feature:
    """A feature whose value is the time of its step."""
    times = t0 + np.arange(round(seconds * rate)) / rate
    return Feature(times[:, None].astype(np.float32), None, t0)


def test_mean_of_the_steps_of_each_cell():
    found = at_rate(ramp(100, 2), 100, 5)
    assert found.values.shape == (10, 1)
    np.testing.assert_allclose(found.values[:, 0], np.arange(10) / 5 + 0.095, atol=1e-5)
    assert found.valid.all()


@pytest.mark.parametrize("how", ["mean", "nearest"])
def test_a_finer_grid_repeats_the_step_that_lasts_then(how):
    found = at_rate(ramp(5, 2), 5, 25, how)
    np.testing.assert_allclose(found.values[:, 0], np.repeat(np.arange(10) / 5, 5), atol=1e-6)


def test_gaps_late_starts_and_early_ends_are_not_valid():
    feature = Feature(np.ones((100, 2), np.float32), np.arange(100) % 100 < 50, t0=1.0)  # usable from 1.0 to 1.5 s
    found = at_rate(feature, 100, 10, end=3.0)
    assert np.flatnonzero(found.valid).tolist() == [10, 11, 12, 13, 14]
    assert (found.values[~found.valid] == 0).all()


def test_words_take_the_mean_over_their_own_time():
    found = onto(ramp(100, 3), 100, np.array([[0.5, 1.0], [1.0, 1.001], [5.0, 6.0]]))
    np.testing.assert_allclose(found.values[:, 0], [0.745, 1.0, 0.0], atol=1e-3)
    assert found.valid.tolist() == [True, True, False]
    assert len(onto(ramp(100, 3), 100, np.zeros((0, 2))).values) == 0


def test_pictures_are_never_averaged():
    frames = Feature(np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1))
    found = at_rate(frames, 10, 4)
    assert found.values.dtype == np.uint8
    assert set(found.values.ravel()) <= set(range(20))


@given(
    st.sampled_from([4.0, 10.0, 25.0, 29.97, 62.5, 100.0]),
    st.sampled_from([1.0, 5.0, 12.5, 25.0, 50.0]),
    st.floats(0.3, 4),
)
def test_time_is_kept_within_half_a_coarse_step_and_lengths_agree(rate, wanted, seconds):
    feature = ramp(rate, seconds)
    for how in ("mean", "nearest"):
        found = at_rate(feature, rate, wanted, how, end=seconds)
        assert len(found.values) == int(np.ceil(seconds * wanted - 1e-6))
        middle = (np.arange(len(found.values)) + 0.5) / wanted
        error = np.abs(found.values[found.valid, 0] - middle[found.valid])
        assert (error <= 1 / min(rate, wanted) + 1e-4).all()


def test_a_stream_without_time_is_refused():
    with pytest.raises(BadConfig, match="untimed"):
        at_rate(Feature(np.ones((1, 4))), 0.0, 5.0)


def test_a_missing_number_is_missing_in_its_own_cell_only():
    values = np.arange(20, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    values[3, 0] = values[6:8, 0] = np.nan
    found = at_rate(Feature(values), 10, 5)
    np.testing.assert_allclose(found.values[:, 1], np.arange(10) * 2 + 0.5)
    np.testing.assert_allclose(found.values[[0, 1, 2, 4, 9], 0], [0.5, 2, 4.5, 8.5, 18.5])
    assert np.isnan(found.values[3, 0])
    assert found.valid.all()
