"""Import rules: floors import downwards only, and the packages that break here are never imported.

python benchmarks/imports.py
"""

from __future__ import annotations

import ast
import sys
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
FORBIDDEN = {"torchvision", "torchaudio", "torchcodec", "timm", "lightning", "mediapipe", "librosa", "parselmouth", "cv2"}


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, module) of every import in a file, lazy ones included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.lineno, node.module))
    return found


def violations(root: Path = ROOT) -> list[str]:
    """One line per import that goes upwards or is forbidden."""
    wrong = []
    for path in sorted(root.rglob("*.py")):
        room = path.relative_to(root).parts[0]
        floor = FLOORS.get(room, 9)
        for line, module in imported(path):
            parts = module.split(".")
            if parts[0] in FORBIDDEN:
                wrong.append(f"{path}:{line}: {module} must never be imported")
            if parts[0] == "affuse" and len(parts) > 1 and FLOORS.get(parts[1], 0) > floor:
                wrong.append(f"{path}:{line}: {room} (floor {floor}) imports {module} (floor {FLOORS[parts[1]]})")
    return wrong


if __name__ == "__main__":
    problems = violations()
    print("\n".join(problems) or "imports go downwards only")
    sys.exit(bool(problems))
