"""Balanced multimodal learning, in affuse's trainer or in any PyTorch loop: `from affuse.balance import OGM, Attached`.

Each method is one file of this folder; `affuse list balancers` lists them.
"""

from __future__ import annotations

from typing import Any

from affuse.balance.attach import Attached
from affuse.core import registry

__all__ = ["Attached"]


def __getattr__(name: str) -> Any:
    for part, card in registry.cards("balancers").items():
        if card["entry"] == name:
            return registry.load("balancers", part)
    raise AttributeError(f"affuse.balance has no {name}; see: affuse list balancers")
