"""The house rules that a script can hold."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def load_rules():
    spec = importlib.util.spec_from_file_location("imports", ROOT / "benchmarks" / "imports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_go_downwards_only_and_in_no_cycle():
    assert load_rules().violations() == []


def test_a_planted_upward_or_forbidden_import_is_found(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("def f():\n    from affuse.cli import app\n    import torchvision\n")
    found = load_rules().violations(tmp_path)
    assert len(found) == 2
    assert "floor 0" in found[0] or "floor 0" in found[1]


def plant(root: Path, **files: str) -> list[str]:
    """What the rules find in a package of these files, `room__module="its text"`."""
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return load_rules().violations(root)


def test_a_planted_cycle_of_modules_is_found(tmp_path):
    lazy = "def f():\n    from affuse.core.a import x\n"
    typed = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import affuse.core.c\n"
    found = plant(tmp_path, core__a="from affuse.core import b\n", core__b=typed, core__c=lazy, core__d=lazy)
    assert found == ["cycle of modules: affuse.core.a -> affuse.core.b -> affuse.core.c -> affuse.core.a"]


def test_a_planted_cycle_of_rooms_is_found(tmp_path):
    found = plant(
        tmp_path,
        media__a="from affuse.layers.b import x\n",
        layers__b="x = 1\n",
        layers__c="def f():\n    import affuse.media.d\n",
        media__d="",
    )
    example = "affuse.media.a imports affuse.layers.b; affuse.layers.c imports affuse.media.d"
    (line,) = found
    assert line.startswith("cycle of rooms: ")
    assert all(part in line for part in example.split("; "))


def test_the_readme_opens_with_the_two_commands():
    lines = [line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    ")]
    assert lines[0].startswith("make demo")
    assert lines[1].startswith("make test")


def test_a_worker_that_dies_natively_names_its_test(tmp_path):
    (tmp_path / "test_dying.py").write_text("import ctypes\ndef test_dies():\n    ctypes.string_at(0)\n")
    command = [sys.executable, "-m", "pytest", "-n", "1", "-c", str(ROOT / "pyproject.toml")]
    command += ["--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "crashed while running 'test_dying.py::test_dies'" in done.stdout


def unusual_words(line: str, rules: list[tuple[str, str]]) -> list[str]:
    return [word for word, but in rules if re.search(word, line) and not (but and re.search(but, line))]


def test_names_messages_and_pages_use_the_glossary_s_words():
    lines = [line for line in (ROOT / "tests" / "words.txt").read_text().splitlines() if line and line[0] != "#"]
    rules = [(word.strip(), but.strip()) for word, _, but in (line.partition(" !! ") for line in lines)]
    assert unusual_words("what each stream heard in this stretch", rules) == [rules[1][0], rules[3][0]]
    named = ["README.md", "CONTRIBUTING.md"]
    files = [
        p for kind in ("*.py", "*.yaml", "*.md") for d in ("src", "benchmarks", "docs") for p in (ROOT / d).rglob(kind)
    ]
    found = []
    for path in [*files, *(ROOT / name for name in named)]:
        if path.is_relative_to(ROOT / "docs" / "results"):
            continue  # written by runs
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [
                f"{path.relative_to(ROOT)}:{number}: {word}: {line.strip()[:90]}" for word in unusual_words(line, rules)
            ]
    assert not found, "\n".join(found)
