"""The house rules that a script can hold."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
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


def test_a_worker_that_dies_natively_names_its_test(tmp_path):
    (tmp_path / "test_dying.py").write_text("import ctypes\ndef test_dies():\n    ctypes.string_at(0)\n")
    command = [sys.executable, "-m", "pytest", "-n", "1", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "crashed while running 'test_dying.py::test_dies'" in done.stdout
