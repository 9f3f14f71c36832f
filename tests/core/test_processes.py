"""A process that dies costs its item only."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import active_children

import pytest
from tests.core import dying

from affuse.core.processes import spread


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_comes_back_once_and_the_deadly_ones_as_none(workers):
    items = [1, 2, -3, 4, 5, 6, -7, 8]
    found = dict(spread(dying.double, items, workers, dying.begin, ()))
    assert found == {n: 2 * n if n > 0 else None for n in items}


def test_no_items_start_no_process():
    assert list(spread(dying.double, [], 2, dying.begin, ())) == []


@pytest.mark.parametrize("how", ["ctrl-c", "close"])
def test_who_interrupts_does_not_wait_for_what_is_under_way(how):
    found = spread(dying.sleep, [0, 600, 600, 600], 2, dying.begin, ())
    assert next(found) == (0, 0)
    began = time.perf_counter()
    if how == "close":
        found.close()
    else:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(found)
    assert time.perf_counter() - began < 30
    assert active_children() == []
