"""The next batch is read while the current one is computed, in order and once each."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from affuse.core.config import AugmentConfig
from affuse.core.errors import BadFeatures
from affuse.core.types import Batch, StreamSpec
from affuse.training.augment import augment
from affuse.training.data import ahead


def test_items_come_in_order_and_the_next_one_is_read_meanwhile():
    read: list[tuple[int, str]] = []

    def make(item: int) -> int:
        read.append((item, threading.current_thread().name))
        return 10 * item

    found = []
    for value in ahead(make, range(4)):
        time.sleep(0.05)
        found.append(value)
        assert len(read) == min(len(found) + 1, 4)  # one ahead, never more
    assert found == [0, 10, 20, 30]
    assert all(name.startswith("reader") for _, name in read)
    assert list(ahead(make, [])) == []


def test_an_error_of_reading_comes_where_its_item_would():
    def make(item: int) -> int:
        if item == 2:
            raise BadFeatures("damaged", "extract again")
        return item

    found = []
    with pytest.raises(BadFeatures):
        for value in ahead(make, range(5)):
            found.append(value)
    assert found == [0, 1]


def test_reading_may_be_left_in_the_middle():
    for value in ahead(lambda i: i, range(100)):
        if value == 3:
            break
    assert not [t for t in threading.enumerate() if t.name.startswith("reader") and t.is_alive() and not t.daemon]


@pytest.mark.parametrize("rate", [8000.0, 16000.0])
def test_a_crop_has_its_seconds_at_any_rate(rate):
    spec = StreamSpec("waveform", "audio", (), rate)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, int(3 * rate))).astype(np.float32))
    batch = Batch(
        (spec,), {"waveform": x}, {"waveform": torch.ones_like(x, dtype=torch.bool)}, torch.ones(2, 1, dtype=torch.bool)
    )
    cut = augment(batch, AugmentConfig(crop_seconds=1.5), {})
    assert cut.x["waveform"].shape[1] == int(1.5 * rate)
