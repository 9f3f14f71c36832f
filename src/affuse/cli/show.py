"""affuse show NAME: one thing in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from affuse.cli.console import output
from affuse.cli.list_ import ALL, cards_of
from affuse.core import io, registry, run_files
from affuse.core.config import load_recipe, to_yaml
from affuse.core.errors import UnknownName


def find(name: str) -> list[dict[str, Any]]:
    """Every card of that name (several kinds may have it), or what a corpus or run folder holds."""
    path = Path(name)
    if (path / "corpus.json").is_file():
        return [{"kind": "corpus folder", "name": name, **io.read_json(path / "corpus.json")}]
    if (path / run_files.INFO).is_file():
        return [{"kind": "run", "name": name, **io.read_json(path / run_files.INFO)}]
    kinds = {kind: {card["name"]: card for card in cards_of(kind)} for kind in ALL}
    found = [{"kind": kind, **cards[name]} for kind, cards in kinds.items() if name in cards]
    if not found:
        raise UnknownName.among("name", name, [n for cards in kinds.values() for n in cards])
    return [_with_parameters(card) for card in found]


def _with_parameters(card: dict[str, Any]) -> dict[str, Any]:
    if card["kind"] == "recipes":
        return card | {"recipe": Path(card["path"]).read_text(encoding="utf-8")}
    if card["kind"] in registry.KINDS and card.get("available", True):
        fields = registry.schema(registry.load(card["kind"], card["name"]))
        return card | {"parameters": {k: _default(v[1]) for k, v in fields.items()}}
    return card


def _default(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def run(
    name: str,
    *overrides: str,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="JSON")] = False,
) -> int:
    """Show a part, corpus, recipe or model by name, or a corpus or run folder by path.

    Of a recipe's YAML file, or with key=value OVERRIDES, all values of the recipe.
    """
    if overrides or Path(name).suffix in (".yaml", ".yml"):
        recipe = load_recipe(name, overrides)
        print(json.dumps(recipe.to_dict(), ensure_ascii=False, indent=1) if as_json else to_yaml(recipe))
        return 0
    found = find(name)
    if as_json:
        print(json.dumps(found[0] if len(found) == 1 else found, ensure_ascii=False, indent=1))
        return 0
    for card in found:
        for key, value in card.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            output.print(f"[bold]{key}[/]:", end="\n" if "\n" in text else " ")
            output.print(text, markup=False, soft_wrap=True)
    return 0
