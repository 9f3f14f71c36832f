"""Shared fixtures: one torch thread, the development data, an own cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the development data; skipped in a public clone, required where AFFUSE_REQUIRE_SHARED=1."""
    root = Path(os.environ.get("AFFUSE_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "data"
    if root.is_dir():
        return root
    if os.environ.get("AFFUSE_REQUIRE_SHARED") == "1":
        pytest.fail(f"AFFUSE_REQUIRE_SHARED=1 but {root} is missing: set AFFUSE_SHARED")
    pytest.skip("development data not here (set AFFUSE_SHARED); this is normal in a public clone")
