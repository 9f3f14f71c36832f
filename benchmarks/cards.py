"""The pages docs/corpora/ and docs/extractors/: one per part, and a table of all, from the cards in the code.

python benchmarks/cards.py
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from affuse.core import io, registry

DOCS = Path(__file__).resolve().parents[1] / "docs"
MARK = "<!-- written by benchmarks/cards.py from the code -->\n"
TITLES = {"corpora": "Corpora", "extractors": "Extractors"}
COLUMNS = {
    "corpora": {"corpus": "", "what": "summary", "licence": "licence"},
    "extractors": {
        "extractor": "", "what": "summary", "licence": "licence", "needs download": "download", "rate": "rate",
        "dim": "dim",
    },
}
LINES = ("source", "licence", "download", "layout", "splits", "rate", "dim")


def pages() -> dict[str, str]:
    """Path below docs/ -> text of every page."""
    found = {}
    for kind in COLUMNS:
        cards = registry.cards(kind)
        found[f"{kind}/README.md"] = _index(kind, cards)
        found |= {f"{kind}/{name}.md": _page(kind, name, card) for name, card in cards.items()}
    return found


def _index(kind: str, cards: dict[str, dict[str, Any]]) -> str:
    columns = COLUMNS[kind]
    lines = [f"# {TITLES[kind]}", "", MARK, f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, card in cards.items():
        cells = [f"[{name}]({name}.md)" if not key else _cell(card[key]) for key in columns.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _page(kind: str, name: str, card: dict[str, Any]) -> str:
    entry = registry.load(kind, name)
    verb = card.get("usage") or (
        f"affuse import {name} SRC DST" if kind == "corpora" else f"affuse extract CORPUS {name}"
    )
    lines = [f"# {name}", "", MARK, card["summary"][0].upper() + card["summary"][1:] + ".", "", "```", verb, "```", ""]
    lines += [f"- **{key}**: {_cell(card[key])}" for key in LINES if card.get(key)]
    if card.get("counts"):
        lines.append(f"- **counts**: {_counts(card['counts'])}")
    if card.get("extra"):
        lines.append(f"- **extra**: `pip install 'affuse[{card['extra']}]'`")
    lines += ["", inspect.getdoc(entry) or "", ""]
    options = {k: v for k, v in registry.schema(entry).items() if k != "partial"}
    if options:
        lines += ["| option | kind | default |", "|---|---|---|"]
        lines += [f"| {k} | {_kind(kind_)} | {_default(default)} |" for k, (kind_, default) in options.items()]
    return "\n".join(lines).rstrip() + "\n"


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{k} ({_counts(v)})" if isinstance(v, dict) else f"{k} {v:,}" for k, v in counts.items())


def _kind(annotation: Any) -> str:
    text = annotation.__name__ if inspect.isclass(annotation) and "[" not in str(annotation) else str(annotation)
    for long in ("typing.", "pathlib.", "_local.", "collections.abc."):
        text = text.replace(long, "")
    return _cell(text)


def _default(value: Any) -> str:
    return "needed" if value is inspect.Parameter.empty else f"`{value!r}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    wanted = pages()
    for kind in COLUMNS:
        for old in (DOCS / kind).glob("*.md"):
            if f"{kind}/{old.name}" not in wanted:
                old.unlink()
    for name, text in wanted.items():
        io.write_text(DOCS / name, text)
    print(f"{len(wanted)} pages -> {DOCS}")
