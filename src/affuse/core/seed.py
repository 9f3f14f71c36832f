"""One seed per run, set once."""

from __future__ import annotations

import os
import random


def seed_all(seed: int) -> None:
    """Seed python, numpy and torch; called once, at the start of a run."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def default_threads() -> int:
    """Torch threads when the user names none: 1 on small machines, where two threads are slower than one."""
    cores = os.cpu_count() or 1
    return 1 if cores <= 2 else min(cores // 2, 8)


def set_threads(threads: int | None) -> None:
    """Set torch's intra-op threads (None: `default_threads`); raises BadConfig for a number below 0."""
    import torch

    from affuse.core.errors import BadConfig

    if threads is not None and threads < 0:
        raise BadConfig(f"--threads {threads}", "give at least 1")
    torch.set_num_threads(threads or default_threads())
