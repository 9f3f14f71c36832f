"""What importers share: folders that are links, copies of macOS, links that lead nowhere."""

from __future__ import annotations

import pytest

from affuse.core.errors import BadCorpus
from affuse.corpora.cheavd import import_cheavd
from affuse.corpora.reading.release import below, first, media, read_csv, read_json, seconds


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(folder, pattern="*"):
    return [str(p.relative_to(folder)) for p in below(folder, pattern)]


def test_linked_folders_are_entered_once(tmp_path):
    touch(tmp_path / "disk" / "clips" / "a.mp4")
    src = tmp_path / "src"
    touch(src / "z" / "b.mp4")
    (src / "clips").symlink_to(tmp_path / "disk" / "clips")
    (src / "again").symlink_to(src / "z")  # a folder that is there anyway
    (src / "z" / "round").symlink_to(src / "z")
    (src / "z" / "up").symlink_to(tmp_path)
    assert names(src, "*.mp4") == ["clips/a.mp4", "z/b.mp4"]
    assert media(src) == {"a": tmp_path / "disk" / "clips" / "a.mp4", "b": src / "z" / "b.mp4"}
    (tmp_path / "as a link").symlink_to(src)
    assert names(tmp_path / "as a link", "*.mp4") == ["clips/a.mp4", "z/b.mp4"]


def test_clips_of_a_linked_folder_are_not_left_out(tmp_path):
    src = tmp_path / "r"
    src.mkdir()
    (src / "labels.csv").write_text("name,label,split\na,sad,train\nb,sad,val\nc,,test\n")
    for name in "abc":
        touch(tmp_path / "disk" / f"{name}.avi")
    (src / "clips").symlink_to(tmp_path / "disk")
    table = import_cheavd(src, tmp_path / "c").table
    assert list(table["video"]) == [str(tmp_path / "disk" / f"{name}.avi") for name in "abc"]


def test_copies_of_macos_are_no_files_of_the_release(tmp_path):
    touch(tmp_path / "__MACOSX" / "labels.csv")
    touch(tmp_path / "._labels.csv")
    wanted = touch(tmp_path / "labels.csv")
    assert names(tmp_path) == ["labels.csv"]
    assert first(tmp_path, "*labels.csv") == wanted


def test_dead_links_and_folders_are_no_media(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "not fetched")
    (tmp_path / "b.mp4").mkdir()
    touch(tmp_path / "c.mp4")
    assert list(media(tmp_path)) == ["c"]


def test_half_a_character_is_no_json(tmp_path):
    (tmp_path / "x.json").write_text('{"text": "\\ud83d\\ude00"}')
    assert read_json(tmp_path / "x.json") == {"text": "\U0001f600"}
    (tmp_path / "x.json").write_text('{"text": "\\ud83d"}')
    with pytest.raises(BadCorpus, match=r"x.json is not readable JSON"):
        read_json(tmp_path / "x.json")


def test_numbers_without_a_unit_are_no_times(tmp_path):
    (tmp_path / "x.csv").write_text("t\n12500\n12.5\n0:00:12.5\n\n")
    assert [t if t == t else None for t in seconds(read_csv(tmp_path / "x.csv"), "t")] == [None, None, 12.5]
