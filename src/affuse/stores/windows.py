"""Windows over long sequences: overlapping ones to train on, and for scoring one window per step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """W windows: the row of each [W], its steps [start, end), and the steps [first, last) that are scored from it."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    first: np.ndarray
    last: np.ndarray


def windows(steps: np.ndarray, length: int, hop: int) -> Windows:
    """Windows of `length` steps every `hop` steps over sequences of steps [N]; the last one of each ends where it ends.

    A sequence of at most `length` is one window. Every step is scored from exactly one window, the one in which it is
    farthest from the borders.
    """
    steps = np.asarray(steps, dtype=np.int64)
    rest = np.maximum(steps - length, 0)
    count = 1 + -(-rest // hop)
    row = np.repeat(np.arange(len(steps)), count)
    k = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    start = np.minimum(k * hop, rest[row])
    end = np.minimum(start + length, steps[row])
    middle = (end[:-1] + start[1:]) // 2  # between a window and the next one
    inner = row[1:] == row[:-1]
    first, last = np.zeros_like(start), steps[row]
    first[1:][inner], last[:-1][inner] = middle[inner], middle[inner]
    return Windows(row, start, end, first, last)
