"""Many clips: how they are found, what is written, and that the same command goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from affuse.cli.app import main
from affuse.core.errors import BadRun
from affuse.inference.many import Job, analyze_many, find_clips
from affuse.inference.recognizer import load


@pytest.fixture
def folder(demo_run, tmp_path: Path) -> Path:
    """A folder with a nested one: three clips of which one is damaged, and a file that is no clip."""
    first, second, *_ = sorted((demo_run[1] / "clips").glob("*.mp4"))
    (tmp_path / "in" / "nested").mkdir(parents=True)
    shutil.copy(first, tmp_path / "in" / "a.mp4")
    shutil.copy(second, tmp_path / "in" / "nested" / "b.mp4")
    (tmp_path / "in" / "c.mp4").write_bytes(b"no clip")
    (tmp_path / "in" / "notes.txt").write_text("words")
    return tmp_path / "in"


def test_folders_and_globs_name_clips_once(folder: Path) -> None:
    names = [Path(p).name for p in find_clips([str(folder), str(folder / "*.mp4"), str(folder / "notes.txt")])]
    assert names == ["a.mp4", "c.mp4", "b.mp4", "notes.txt"]
    assert find_clips([str(folder / "none.mp4")]) == [str(folder / "none.mp4")]


def test_answers_are_files_failures_are_listed_and_the_rest_is_not_done_again(demo_run, folder: Path, tmp_path: Path, capsys) -> None:
    command = ["analyze", str(folder), "--model", str(demo_run[0]), "--format", "json", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "c.mp4" in capsys.readouterr().err
    a, b = tmp_path / "out" / "a.json", tmp_path / "out" / "nested" / "b.json"
    assert json.loads(a.read_text())["segments"]
    assert list(json.loads((tmp_path / "out" / "failures.json").read_text())) == [str(folder / "c.mp4")]
    stamp = a.stat().st_mtime_ns
    b.unlink()
    assert main([*command, "--quiet"]) == 1
    assert a.stat().st_mtime_ns == stamp
    assert b.is_file()
    os.utime(folder / "a.mp4", (2e9, 2e9))
    assert main([*command, "--quiet"]) == 1
    assert a.stat().st_mtime_ns != stamp
    with pytest.raises(BadRun, match="holds answers"):
        from affuse.cli.analyze import run

        run(str(folder), model=str(demo_run[0]), format="csv", out=tmp_path / "out", quiet=True)


@pytest.mark.parametrize(("format", "suffix"), [("html", ".html"), ("elan", ".eaf"), ("textgrid", ".TextGrid"), ("webvtt", ".vtt")])
def test_every_format_is_written(demo_run, folder: Path, tmp_path: Path, format: str, suffix: str) -> None:
    out = tmp_path / "out"
    assert main(["analyze", str(folder / "a.mp4"), "--model", str(demo_run[0]), "--format", format, "--out", str(out), "--quiet"]) == 0
    assert (out / f"a{suffix}").stat().st_size > 80


def test_processes_answer_what_one_process_answers(demo_run, folder: Path) -> None:
    clips = find_clips([str(folder)])
    recognizer = load(demo_run[0])
    alone = {t.clip: t for t in analyze_many(recognizer, Job(str(demo_run[0])), clips)}
    shared = {t.clip: t for t in analyze_many(recognizer, Job(str(demo_run[0])), clips, workers=2)}
    assert shared == alone
    assert [bool(alone[c].error) for c in clips] == [False, True, False]


@pytest.mark.parametrize("options", [["--workers", "0"], ["--every", "0"], ["--out", "x"], ["--transcript", "a.srt"]])
def test_impossible_options_are_refused(demo_run, folder: Path, options: list[str], capsys) -> None:
    assert main(["analyze", str(folder), "--model", str(demo_run[0]), *options]) == 2
    assert "->" in capsys.readouterr().err
