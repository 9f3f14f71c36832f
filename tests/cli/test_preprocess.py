"""affuse preprocess on the command line: what it says, its exit codes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from affuse.cli.app import main
from affuse.corpora.clip_files import ClipFiles
from affuse.corpora.manifest import write_corpus
from affuse.corpora.preprocess import COMPLETE
from affuse.media.write import write_clip


@pytest.fixture
def corpus(tmp_path) -> str:
    """Three clips of 1 s without a face, the last one without sound, and one that is no clip."""
    tone = np.sin(np.arange(16000) / 10).astype(np.float32) / 2
    for name in "abc":
        frames = [np.full((48, 64, 3), 100, np.uint8)] * 25
        write_clip(tmp_path / f"{name}.mp4", frames, audio=None if name == "c" else tone)
    (tmp_path / "d.mp4").write_bytes(b"not a film")
    rows = [{"id": name, "video": str(tmp_path / f"{name}.mp4"), "label": "sad"} for name in "abcd"]
    return str(write_corpus(tmp_path / "corpus", rows, "small", "ekman-7").path)


def test_it_goes_on_after_a_broken_clip_and_says_what_is_missing(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["preprocess", corpus, str(out), "--workers", "0", "--rate", "2"]) == 1
    said = capsys.readouterr()
    assert "1 of 4 clips have no sound" in said.err
    assert "d.mp4" in said.err
    assert f"1 of 4 failed, see {out / 'failures.json'}" in said.out
    assert f"3 new, 3 of 4 clips in all: {out / 'index.csv'}" in said.out
    assert set(json.loads((out / "failures.json").read_text())["d"]) == {"type", "message", "remedy"}
    assert sorted(p.name for p in (out / "frames" / "c").iterdir()) == ["00001.jpg", "00002.jpg"]


def test_only_what_is_asked_is_written(corpus, tmp_path):
    out = str(tmp_path / "out")
    assert main(["preprocess", corpus, out, "--only", "audio", "--workers", "0", "--quiet"]) == 1
    assert sorted(p.name for p in Path(out).iterdir()) == [
        "audio", "clips.jsonl", "failures.json", "index.csv", "preprocess.json",
    ]  # fmt: skip
    assert "frame" not in (Path(out) / "index.csv").read_text()
    both = ["--only", "audio", "vision", "--workers", "0", "--quiet"]
    assert main(["preprocess", corpus, out, *both]) == 1
    assert main(["preprocess", corpus, str(tmp_path / "both"), *both]) == 1
    assert (tmp_path / "both" / "frames" / "a").is_dir()


def test_ctrl_c_keeps_what_is_complete(corpus, tmp_path, monkeypatch, capsys):
    out, real = tmp_path / "out", ClipFiles.write

    def interrupted(self, name, clip):
        if name == "b":
            raise KeyboardInterrupt
        return real(self, name, clip)

    monkeypatch.setattr(ClipFiles, "write", interrupted)
    command = ["preprocess", corpus, str(out), "--workers", "0", "--quiet"]
    assert main(command) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert len((out / COMPLETE).read_text().splitlines()) == 1
    monkeypatch.setattr(ClipFiles, "write", real)
    assert main(command) == 1
    assert "2 new, 3 of 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--workers", "-1"], 2, "--workers -1"),
        (["--rate", "0"], 2, "rate 0"),
        (["--size", "1.5"], 2, "1.5"),
        (["--quality", "90"], 2, "quality 90"),
        (["--only", "text"], 2, "text"),
        (["--only", "audio", "--faces"], 2, "face crops without vision"),
        (["--rate", "3"], 1, "rate 5.0, not with rate 3.0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, code, named, corpus, tmp_path, capsys):
    out = str(tmp_path / "out")
    if code == 1:
        main(["preprocess", corpus, out, "--workers", "0", "--quiet"])
        capsys.readouterr()
    assert main(["preprocess", corpus, out, *options]) == code
    said = capsys.readouterr().err
    assert named in said
    assert "Traceback" not in said


def test_a_folder_of_something_else_and_what_is_no_corpus_are_refused(corpus, tmp_path, capsys):
    assert main(["preprocess", corpus, str(tmp_path)]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert main(["preprocess", corpus, str(tmp_path / "a.mp4")]) == 1
    assert "cannot make" in capsys.readouterr().err
    assert main(["preprocess", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "is not a corpus" in capsys.readouterr().err
