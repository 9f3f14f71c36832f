"""The pages about corpora and extractors agree with the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from affuse.core import registry

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("cards", ROOT / "benchmarks" / "cards.py")
assert spec is not None
assert spec.loader is not None
cards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cards)


def test_the_pages_are_those_of_the_code():
    wanted = cards.pages()
    there = {f"{kind}/{p.name}" for kind in cards.COLUMNS for p in (ROOT / "docs" / kind).glob("*.md")}
    assert there == set(wanted)
    stale = [name for name, text in wanted.items() if (ROOT / "docs" / name).read_text(encoding="utf-8") != text]
    assert stale == [], "run: python benchmarks/cards.py"


@pytest.mark.parametrize("kind", ["corpora", "extractors"])
def test_every_card_has_what_its_table_asks(kind):
    for name, card in registry.cards(kind).items():
        for key in filter(None, cards.COLUMNS[kind].values()):
            assert key in card, f"{name} has no {key}"
