"""The house rules that a script can hold."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def load_rules():
    spec = importlib.util.spec_from_file_location("imports", ROOT / "benchmarks" / "imports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_go_downwards_only():
    assert load_rules().violations() == []


def test_a_planted_upward_or_forbidden_import_is_found(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("def f():\n    from affuse.cli import app\n    import torchvision\n")
    found = load_rules().violations(tmp_path)
    assert len(found) == 2
    assert "floor 0" in found[0] or "floor 0" in found[1]


def test_the_readme_opens_with_the_two_commands():
    lines = [line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    ")]
    assert lines[0].startswith("make demo")
    assert lines[1].startswith("make test")
