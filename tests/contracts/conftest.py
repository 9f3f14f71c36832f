from __future__ import annotations

from pathlib import Path

import pytest

from affuse.core import registry

PARTS = Path(__file__).with_name("parts")


@pytest.fixture(autouse=True)
def _parts(monkeypatch):
    """The toy parts of this folder beside affuse's own."""
    monkeypatch.setenv("AFFUSE_PARTS", str(PARTS))
    registry.cards.cache_clear()
    yield
    registry.cards.cache_clear()
