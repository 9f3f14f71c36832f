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


@pytest.mark.parametrize(("format", "suffix"), [("html", ".html"), ("elan", ".eaf"), ("textgrid", ".TextGrid"), ("webvtt", ".emotion.vtt")])
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


def command(run: Path, *more: object) -> int:
    return main(["analyze", *map(str, more), "--model", str(run), "--quiet"])


def test_an_answer_belongs_to_its_clip(demo_run, folder: Path, tmp_path: Path, capsys) -> None:
    """A clip of the same name elsewhere is never taken for one that has an answer."""
    ask = ("--format", "json", "--out", tmp_path / "out")
    assert command(demo_run[0], folder / "a.mp4", *ask) == 0
    other = tmp_path / "day2" / "a.mp4"
    other.parent.mkdir()
    shutil.copy(folder / "nested" / "b.mp4", other)
    assert command(demo_run[0], other, *ask) == 1
    assert "is the answer for" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["sidecar", "transcript", "run"])
def test_new_words_or_a_new_run_are_a_new_question(demo_run, folder: Path, tmp_path: Path, change: str) -> None:
    run = shutil.copytree(demo_run[0], tmp_path / "run")
    ask = (folder / "a.mp4", "--format", "json", "--out", tmp_path / "out")
    assert command(run, *ask) == 0
    answer = tmp_path / "out" / "a.json"
    stamp = answer.stat().st_mtime_ns
    assert command(run, *ask) == 0
    assert answer.stat().st_mtime_ns == stamp
    words = folder / ("a.srt" if change == "sidecar" else "other.srt")
    words.write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    if change == "run":
        told = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(told | {"created": "later"}))
    assert command(run, *ask, *(("--transcript", words) if change == "transcript" else ())) == 0
    assert answer.stat().st_mtime_ns != stamp


def test_captions_do_not_replace_subtitles_and_are_no_words(demo_run, folder: Path, tmp_path: Path, monkeypatch) -> None:
    from affuse.media.subtitles import sidecar

    monkeypatch.chdir(folder)
    (folder / "a.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nthe user's own\n")
    assert command(demo_run[0], "a.mp4", "--format", "webvtt") == 0
    assert "the user's own" in (folder / "a.vtt").read_text()
    assert "NOTE affuse" in (folder / "a.emotion.vtt").read_text()
    (folder / "a.vtt").unlink()
    assert sidecar(folder / "a.mp4") is None


def test_what_breaks_on_one_clip_leaves_the_others(demo_run, folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    from affuse.inference import many

    recognizer = load(demo_run[0])
    whole = type(recognizer).__call__

    def broken(self, clip, **asked):
        if Path(clip).name == "a.mp4":
            raise ValueError("zero-size array")
        return whole(self, clip, **asked)

    monkeypatch.setattr(type(recognizer), "__call__", broken)
    found = list(many.analyze_many(recognizer, Job(str(demo_run[0])), find_clips([str(folder)])))
    assert [t.error is None for t in found] == [False, False, True]
    assert "ValueError: zero-size array" in found[0].error["message"]


def test_one_answer_that_cannot_be_written_is_listed(demo_run, folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    (out / "nested" / "b.json").mkdir(parents=True)  # in the way
    assert command(demo_run[0], folder, "--format", "json", "--out", out) == 1
    assert (out / "a.json").is_file()
    assert {Path(c).name for c in json.loads((out / "failures.json").read_text())} == {"b.mp4", "c.mp4"}


def test_out_that_is_a_file_and_names_that_are_too_long(demo_run, folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "out.json").write_text("{}")
    assert command(demo_run[0], folder / "a.mp4", "--format", "json", "--out", tmp_path / "out.json") == 1
    assert "cannot write" in capsys.readouterr().err
    assert command(demo_run[0], "x" * 300 + ".mp4") == 1
    assert "too long" in capsys.readouterr().err


def test_answers_stay_below_out(demo_run, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder / "nested")
    assert command(demo_run[0], "b.mp4", "../a.mp4", "--format", "json", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "nested" / "b.json").is_file()
    assert (tmp_path / "out" / "a.json").is_file()


def test_a_table_has_its_header_after_a_failure_and_names_of_any_bytes(demo_run, folder: Path, capfdbinary) -> None:
    odd = folder / os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(folder / "a.mp4", odd)
    assert command(demo_run[0], folder / "c.mp4", odd, folder / "a.mp4", "--format", "csv") == 1
    lines = capfdbinary.readouterr().out.splitlines()
    assert lines[0].startswith(b"clip,start,end")
    assert sum(line.startswith(b"clip,") for line in lines) == 1
    assert b"/caf" in lines[1]
    for format in ("html", "json", "elan", "textgrid"):
        assert command(demo_run[0], odd, "--format", format, "--out", folder / format) == 0
