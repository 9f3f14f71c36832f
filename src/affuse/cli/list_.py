"""affuse list KIND: what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from affuse.cli.console import output
from affuse.core import registry
from affuse.core.errors import UnknownName

ALL = (*registry.KINDS, "recipes", "models")


def cards_of(kind: str) -> list[dict[str, Any]]:
    """The cards of a kind, each with at least name, summary, source."""
    if kind == "recipes":
        return recipe_cards()
    if kind == "models":
        return model_cards()
    if kind not in registry.KINDS:
        raise UnknownName.among("kind", kind, ALL)
    return [{**card, "available": registry.available(card)} for card in registry.cards(kind).values()]


def recipe_cards() -> list[dict[str, Any]]:
    """Name, summary, source and file of every recipe."""
    from affuse.core.config import read_yaml, recipe_names

    found = ((name, path, read_yaml(path)) for name, path in recipe_names().items())
    return [
        {"name": name, "summary": card.get("summary", ""), "source": card.get("source", ""), "path": str(path)}
        for name, path, card in found
    ]


def model_cards() -> list[dict[str, Any]]:
    """The models that ship inside the package (folders with a card.json)."""
    shipped = Path(__file__).resolve().parents[1] / "pretrained"
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(shipped.glob("*/card.json"))]


def run(
    kind: str,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="one JSON list")] = False,
) -> int:
    """List what there is of a kind.

    Kinds: corpora, extractors, encoders, fusions, contexts, objectives, balancers, metrics, writers, recipes, models.
    """
    cards = cards_of(kind)
    if as_json:
        print(json.dumps(cards, ensure_ascii=False, indent=1))
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(kind, no_wrap=True, style="bold cyan")
    table.add_column("")
    for card in cards:
        absent = "" if card.get("available", True) else f" [yellow](pip install 'affuse\\[{card.get('extra')}]')[/]"
        table.add_row(card["name"], card["summary"] + absent)
    output.print(table if cards else f"no {kind} in this installation")
    return 0
