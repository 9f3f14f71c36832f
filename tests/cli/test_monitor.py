"""affuse monitor: what is analysed, what is named, and that nothing is lost between two runs."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from affuse.cli.app import main
from affuse.cli.console import output
from affuse.core.timeline import FaceTrack, ModalityView, Segment, Timeline
from affuse.inference.history import NAME

LABELS = ("neutral", "happy", "sad")
DAYS = ("2026-11-03", "20261110", "2026-11-17T18-30", "2026-11-24_1830", "2026-12-01")


class Fake:
    """A recogniser that answers what the file says; `asked`: the clips that it was given."""

    name, labels, task = "fake", LABELS, SimpleNamespace(kind="classes")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, clip: str, **options) -> Timeline:
        self.asked.append(Path(clip).name)
        said = json.loads(Path(clip).read_bytes()[2:])
        if said.get("interrupt"):
            raise KeyboardInterrupt
        if said.get("broken"):
            raise ValueError("no keyframe")
        faces = [FaceTrack(k + 1, [(0.0, 20.0)]) for k in range(said.get("faces", 1))]
        return Timeline(clip, 20.0, self.name, LABELS, [self.segment(k, said) for k in range(4)], faces)

    @staticmethod
    def segment(k: int, said: dict) -> Segment:
        happy = said.get("happy")
        views = {m: ModalityView(happy is not None, 0.8 if happy is not None else 0.0, {}) for m in ("audio", "vision")}
        who = f"face {k % said.get('faces', 1) + 1}"
        if happy is None:
            return Segment(5.0 * k, 5.0 * k + 5, None, None, {}, views, None, "no speech, no face")
        p = {"neutral": 0.5 - happy / 2, "happy": happy, "sad": 0.5 - happy / 2}
        return Segment(5.0 * k, 5.0 * k + 5, who, "happy", p, views)


@pytest.fixture
def fake(monkeypatch) -> Fake:
    found = Fake()
    monkeypatch.setattr("affuse.inference.recognizer.load", lambda *_: found)
    monkeypatch.setattr(output, "width", 80)
    return found


def record(folder: Path, name: str, **said) -> Path:
    path = folder / f"{name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\1" + json.dumps({"name": name, **said}).encode())
    return path


@pytest.fixture
def anna(tmp_path: Path) -> Path:
    """A folder with five recordings, a week apart."""
    for k, name in enumerate(reversed(DAYS)):
        record(tmp_path / "anna", name, happy=0.4 + k / 50)
    return tmp_path / "anna"


def monitor(folder: Path, *more: object) -> int:
    return main(["monitor", str(folder), *map(str, more), "--quiet"])


def words(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").split())


def test_a_second_run_analyses_only_what_is_new_or_changed(fake: Fake, anna: Path, capsys) -> None:
    assert monitor(anna) == 0
    assert fake.asked == [f"{day}.mp4" for day in DAYS]  # in order of time
    first = words(capsys.readouterr().out)
    assert "5 recordings, 2026-11-03 to 2026-12-01" in first
    assert "This is not a diagnosis" in first
    fake.asked.clear()
    record(anna, "2026-12-08", happy=0.6)
    assert monitor(anna) == 0
    assert fake.asked == ["2026-12-08.mp4"]
    assert "6 recordings, 2026-11-03 to 2026-12-08" in words(capsys.readouterr().out)
    fake.asked.clear()
    record(anna, "20261110", happy=0.3)
    (anna / "2026-12-01.mp4").unlink()
    assert monitor(anna) == 0
    assert fake.asked == ["20261110.mp4"]
    last = words(capsys.readouterr().out)
    assert "1 of 6 recordings are no longer in the folder: their numbers are kept" in last
    assert "2026-12-01" in last


def test_files_are_private_and_the_page_is_there(fake: Fake, anna: Path) -> None:
    old = os.umask(0)
    try:
        assert monitor(anna, "--picture", "svg") == 0
    finally:
        os.umask(old)
    out = anna / ".affuse-monitor"
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in out.iterdir()}
    assert modes == dict.fromkeys((NAME, "monitor.html", "monitor.svg"), 0o600)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    page = (out / "monitor.html").read_text()
    assert page.index("said-first") < page.index("<svg")
    assert "not a diagnosis" in page


def test_gaps_doubles_two_people_and_the_undated_are_named(fake: Fake, anna: Path, capsys) -> None:
    record(anna, "2026-12-08")
    record(anna, "2026-12-15", happy=0.9, faces=2)
    record(anna, "holiday", happy=0.9)
    shutil.copy(anna / "20261110.mp4", anna / "z copy.mp4")
    assert monitor(anna) == 0
    shown = words(capsys.readouterr().out)
    assert "not enough to tell: no speech, no face" in shown
    assert "not enough to tell: several people speak" in shown
    assert "2 of 7 recordings with a date: not enough to tell" in shown
    assert "1 recording without a date, not in the trend: holiday.mp4 (no date in its name or container)" in shown
    assert "z copy.mp4 is the same recording as 20261110.mp4: counted once" in shown
    assert "not enough to tell: trends" not in shown
    assert "5 days with an answer, 9 are needed" in shown  # for change points; a gap is no day
    page = (anna / ".affuse-monitor" / "monitor.html").read_text()
    assert all(word in page for word in ("holiday.mp4", "z copy.mp4", "several people speak", "no speech, no face"))


def test_the_time_of_a_file_is_a_date_only_when_asked(fake: Fake, tmp_path: Path, capsys) -> None:
    path = record(tmp_path / "anna", "holiday", happy=0.5)
    os.utime(path, (1.7e9, 1.7e9))
    assert monitor(tmp_path / "anna") == 0
    assert "2023-11-" not in capsys.readouterr().out
    assert monitor(tmp_path / "anna", "--dates", "mtime") == 0
    assert "2023-11-14" in capsys.readouterr().out
    assert len(fake.asked) == 1


def test_what_fails_is_listed_and_the_others_are_kept(fake: Fake, anna: Path, capsys) -> None:
    record(anna, "2026-12-08", broken=True)
    (anna / "2026-12-15.mp4").write_text("text")
    (anna / "2026-12-22.mp4").symlink_to("nowhere")
    (anna / "notes.txt").write_text("x")
    assert main(["monitor", str(anna)]) == 1
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if line.startswith("error")]
    assert len(errors) == 3
    assert all(any(day in e for e in errors) for day in ("2026-12-08", "2026-12-15", "2026-12-22"))
    assert "skipped 1 file that is no clip: 1 .txt" in shown.err
    assert words(shown.out).count("failed: ") == 3
    assert "5 recordings, " in shown.out
    fake.asked.clear()
    record(anna, "2026-12-08", happy=0.5)
    for name in ("2026-12-15.mp4", "2026-12-22.mp4"):
        (anna / name).unlink()
    assert monitor(anna) == 0
    assert fake.asked == ["2026-12-08.mp4"]


def test_an_interrupted_run_keeps_what_is_finished(fake: Fake, anna: Path, capsys) -> None:
    record(anna, "2026-11-20", interrupt=True)
    assert monitor(anna) == 130
    fake.asked.clear()
    record(anna, "2026-11-20", happy=0.5)
    assert monitor(anna) == 0
    assert fake.asked == ["2026-11-20.mp4", "2026-11-24_1830.mp4", "2026-12-01.mp4"]


def test_a_damaged_history_is_one_error_and_forgetting_it_rebuilds(fake: Fake, anna: Path, capsys) -> None:
    assert monitor(anna) == 0
    history = anna / ".affuse-monitor" / NAME
    history.write_bytes(b"\0" * 5000)
    assert monitor(anna) == 1
    shown = capsys.readouterr().err
    assert "is damaged" in shown
    assert "the recordings are untouched" in words(shown)
    assert history.read_bytes() == b"\0" * 5000
    (history.parent / f"{NAME}-wal").touch()
    (history.parent / "mine.txt").touch()
    assert monitor(anna, "--forget") == 0
    assert capsys.readouterr().out.count("deleted ") == 3
    assert [file.name for file in history.parent.iterdir()] == ["mine.txt"]
    assert monitor(anna) == 0
    assert len(fake.asked) == 10
    (history.parent / "mine.txt").unlink()
    assert monitor(anna, "--forget") == 0
    assert not history.parent.exists()
    assert len(list(anna.glob("*.mp4"))) == 5


def test_nothing_to_forget_is_fine_and_nothing_to_follow_is_named(tmp_path: Path, capsys) -> None:
    assert monitor(tmp_path, "--forget") == 0
    assert "there is no history in" in capsys.readouterr().out
    assert monitor(tmp_path) == 2
    assert "there is no recording in" in capsys.readouterr().err
    assert monitor(tmp_path / "none") == 2
    assert "is no folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_model_and_a_model_of_values_are_refused(fake: Fake, anna: Path, monkeypatch, capsys) -> None:
    out = anna.parent / "out"
    monkeypatch.setattr(Fake, "task", SimpleNamespace(kind="values"))
    assert monitor(anna, "--out", out) == 2
    assert "predicts values" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr("affuse.inference.recognizer.load", lambda *_: fake)
    assert monitor(anna, "--out", out) == 0
    monkeypatch.setattr("affuse.inference.history.fingerprint", lambda _: ("other", "0"))
    assert monitor(anna, "--out", out) == 1
    assert "holds numbers of the model affuse-base" in words(capsys.readouterr().err)


def test_the_help_says_what_it_is_not(capsys) -> None:
    main(["monitor", "--help"])
    assert "not a diagnosis" in words(capsys.readouterr().out)


def test_real_recordings_of_five_days_and_a_sixth(shared_data: Path, tmp_path: Path, capsys) -> None:
    """A clip without a face and a voice is a gap; the page needs nothing from outside."""
    clips = sorted((shared_data / "composite_av" / "clips").glob("*.mp4"))
    empty = shared_data / "av_clips" / "pyfeat__no_face.mp4"
    if len(clips) < 5 or not empty.is_file():
        pytest.skip("composite_av or av_clips is not here")
    folder = tmp_path / "anna"
    folder.mkdir()
    for clip, day in zip(clips, DAYS[:4]):
        shutil.copy(clip, folder / f"{day}.mp4")
    shutil.copy(empty, folder / f"{DAYS[4]}.mp4")
    assert main(["monitor", str(folder)]) == 0
    first = words(capsys.readouterr().out)
    assert "4 days with an answer, 6 are needed" in first
    assert "not enough to tell: no speech, no face, no words" in first
    shutil.copy(clips[4], folder / "2026-12-08.mp4")
    assert main(["monitor", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "5 of 6 recordings are in the history already" in shown.err
    assert "6 recordings, 2026-11-03 to 2026-12-08" in words(shown.out)
    page = (folder / ".affuse-monitor" / "monitor.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
