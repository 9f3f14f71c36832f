"""The history: private from its creation, extended, never mixed, and clear about what is wrong with it."""

from __future__ import annotations

import os
import sqlite3
import stat
from datetime import datetime
from pathlib import Path

import pytest

from affuse.core.errors import BadRun, StorageError
from affuse.core.monitor import Summary
from affuse.inference.history import NAME, open_history

SUMMARY = Summary(9.0, 8.0, 7.0, {"happy": (0.4, 0.3, 0.5), "sad": (0.6, float("nan"), float("nan"))}, {"audio": 0.9})


def write(folder: Path, name: str, content: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\1" + content.encode())
    return str(path)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A history of two recordings."""
    with open_history(tmp_path / "out", "base", "hash") as history:
        for name in ("2026-11-03.mp4", "2026-11-10.mp4"):
            history.add(history.look(write(tmp_path / "anna", name, name), tmp_path / "anna"), SUMMARY)
    return tmp_path


def test_what_was_added_is_read_again(made: Path) -> None:
    with open_history(made / "out", "base", "hash") as history:
        first, _ = sorted(history.recordings().values(), key=lambda r: r.file)
    assert (first.file, first.date, first.dated) == ("2026-11-03.mp4", datetime(2026, 11, 3), "name")
    assert repr(first.summary) == repr(SUMMARY)


def test_it_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with open_history(tmp_path / "out", "base", "hash") as history:
            history.db.execute("BEGIN")
            history.db.execute("UPDATE model SET name = 'x'")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "out").iterdir()}
            history.db.rollback()
    finally:
        os.umask(old)
    assert modes == {NAME: 0o600, f"{NAME}-journal": 0o600}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_names_that_are_swapped_keep_their_numbers_and_a_changed_file_is_left(made: Path) -> None:
    a, b = made / "anna" / "2026-11-03.mp4", made / "anna" / "2026-11-10.mp4"
    a.rename(made / "x")
    b.rename(a)
    (made / "x").rename(b)
    with open_history(made / "out", "base", "hash") as history:
        found = [history.look(str(clip), made / "anna") for clip in (a, b)]
        assert history.left(found) == []
        dates = {f.content: f.date for f in found}
        assert {content: r.date for content, r in history.recordings().items()} == dates
        a.write_bytes(b"\0\1new")
        changed = history.look(str(a), made / "anna")
        assert history.left([changed]) == [changed]
        history.add(changed, SUMMARY)
        assert sorted(r.file for r in history.recordings().values()) == [a.name, b.name]


def test_new_subtitles_are_a_new_question(made: Path) -> None:
    (made / "anna" / "2026-11-03.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    with open_history(made / "out", "base", "hash") as history:
        found = [history.look(str(clip), made / "anna") for clip in sorted((made / "anna").glob("*.mp4"))]
        assert [f.file for f in history.left(found)] == ["2026-11-03.mp4"]


def test_names_of_any_bytes_are_kept(made: Path) -> None:
    odd = os.fsdecode(b"2026-11-17 caf\xe9.mp4")
    with open_history(made / "out", "base", "hash") as history:
        history.add(history.look(write(made / "anna", odd, "odd"), made / "anna"), SUMMARY)
        assert odd in {r.file for r in history.recordings().values()}


def test_numbers_of_two_models_are_not_mixed(made: Path) -> None:
    with pytest.raises(BadRun, match="of the model base") as error, open_history(made / "out", "other", "more"):
        pass
    assert "--out" in error.value.remedy
    with open_history(made / "empty", "base", "hash"):
        pass
    with open_history(made / "empty", "other", "more") as history:  # it holds no numbers yet
        assert history.recordings() == {}


def test_two_runs_at_once_do_not_write_one_history(tmp_path: Path) -> None:
    with (
        open_history(tmp_path, "base", "hash"),
        pytest.raises(StorageError, match="in use"),
        open_history(tmp_path, "base", "hash"),
    ):
        pass


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "text":
        path.write_text("no database " * 99)
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "zeros":
        path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    else:
        with sqlite3.connect(path) as db:
            db.execute("UPDATE recordings SET numbers = '{'")
        db.close()


@pytest.mark.parametrize("how", ["text", "cut", "zeros", "numbers"])
def test_a_damaged_history_is_named_and_left_as_it_is(made: Path, how: str) -> None:
    path = made / "out" / NAME
    damaged(path, how)
    before = path.read_bytes()
    with pytest.raises(BadRun, match="is damaged") as error, open_history(made / "out", "base", "hash") as history:
        history.recordings()
    assert "the recordings are untouched" in error.value.remedy
    assert "--forget" in error.value.remedy
    assert path.read_bytes() == before


def test_another_format_is_named(made: Path) -> None:
    with sqlite3.connect(made / "out" / NAME) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(BadRun, match="has format 7, and this affuse reads 1"), open_history(made / "out", "b", "hash"):
        pass


def test_a_place_that_is_no_folder_is_named(made: Path) -> None:
    with pytest.raises(StorageError, match="cannot make"), open_history(made / "out" / NAME / "x", "b", "hash"):
        pass
