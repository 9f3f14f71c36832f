"""Import rules: floors import downwards only, never in a cycle, and the packages that break here are never imported.

python benchmarks/imports.py

An import inside a function, or under TYPE_CHECKING, counts like any other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "src" / "affuse"
FLOORS = {
    "core": 0,
    "media": 1, "layers": 1, "metrics": 1,
    "models": 2, "objectives": 2, "balance": 2, "stores": 2,
    "corpora": 3, "features": 3,
    "training": 4, "evaluation": 4,
    "inference": 5, "reporting": 5,
    "cli": 6, "serving": 6,
}  # fmt: skip
FORBIDDEN = {
    "torchvision", "torchaudio", "torchcodec", "timm", "lightning", "mediapipe", "librosa", "parselmouth", "cv2",
}  # fmt: skip

Graph = Mapping[str, Iterable[str]]  # a module or a room -> those that it imports


def modules(root: Path) -> dict[str, Path]:
    """Every module below `root` by its dotted name; a package has the name of its folder."""
    paths = {path.relative_to(root).with_suffix(""): path for path in sorted(root.rglob("*.py"))}
    parts = {("affuse", *path.parts): file for path, file in paths.items()}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): file for p, file in parts.items()}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file; of `from a import b` it is a.b, which may be no module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def graph_of(files: Mapping[str, Path]) -> dict[str, list[str]]:
    """Which modules each module imports."""
    graph = {}
    for name, path in files.items():
        named = {target if target in files else target.rpartition(".")[0] for _, target in imported(path)}
        graph[name] = sorted(named & files.keys() - {name})
    return graph


def room(module: str) -> str:
    """The room of a module: the folder below `affuse`, or the file there."""
    return (module.split(".")[1:] or ["affuse"])[0]


def rooms_of(graph: Graph) -> dict[str, dict[str, str]]:
    """Which rooms each room imports, each with an import as the example."""
    rooms: dict[str, dict[str, str]] = {}
    for module, targets in graph.items():
        for target in targets:
            if room(module) != room(target):
                rooms.setdefault(room(module), {}).setdefault(room(target), f"{module} imports {target}")
    return rooms


def cycles(graph: Graph) -> list[list[str]]:
    """Cycles [a, b, ..., a], in which each imports the next, until one import of each taken away leaves none."""
    left = {name: list(targets) for name, targets in graph.items()}
    found = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            cycle = error.args[1][::-1]
            left[cycle[0]].remove(cycle[1])
            found.append(cycle)
        else:
            return found


def violations(root: Path = ROOT) -> list[str]:
    """One line per import that goes upwards or is forbidden, and per cycle of modules or of rooms."""
    files = modules(root)
    wrong = []
    for name, path in files.items():
        floor = FLOORS.get(room(name), 9)
        for line, target in dict.fromkeys((line, ".".join(target.split(".")[:2])) for line, target in imported(path)):
            package = target.split(".")[0]
            if package in FORBIDDEN:
                wrong.append(f"{path}:{line}: {package} must never be imported")
            if package == "affuse" and FLOORS.get(room(target), 0) > floor:
                above = FLOORS[room(target)]
                wrong.append(f"{path}:{line}: {room(name)} (floor {floor}) imports {target} (floor {above})")
    graph = graph_of(files)
    wrong += [f"cycle of modules: {' -> '.join(cycle)}" for cycle in cycles(graph)]
    rooms = rooms_of(graph)
    for cycle in cycles(rooms):
        examples = [rooms[a][b] for a, b in zip(cycle, cycle[1:], strict=False)]
        wrong.append(f"cycle of rooms: {' -> '.join(cycle)} ({'; '.join(examples)})")
    return wrong


if __name__ == "__main__":
    problems = violations()
    print("\n".join(problems) or "imports go downwards only, and in no cycle")
    sys.exit(bool(problems))
