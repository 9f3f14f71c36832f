from __future__ import annotations

import errno
import json
import os

import pytest
import torch

from affuse.core import io
from affuse.core.errors import BadRun, MissingFile, StorageError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    io.write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="midway"), io.atomic(path) as tmp:
        tmp.write_text("half")
        raise ValueError("midway")
    assert json.loads(path.read_text()) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="no space left"):
        io.write_json(tmp_path / "a.json", {})
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        io.write_text(tmp_path / "file" / "a.txt", "")


def test_tensors_round_trip_and_name_damage(tmp_path):
    path = tmp_path / "w.safetensors"
    shared = torch.arange(6.0).view(2, 3)
    io.write_tensors(path, {"a": shared, "b": shared.T})
    found = io.read_tensors(path)
    assert torch.equal(found["b"], shared.T)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadRun, match="damaged"):
        io.read_tensors(path)
    with pytest.raises(MissingFile):
        io.read_tensors(tmp_path / "none")


def test_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "m.jsonl"
    io.append_jsonl(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": 2')
    assert io.read_jsonl(path) == [{"a": 1}]
    assert io.read_jsonl(tmp_path / "none") == []


def test_a_folder_takes_its_place_whole_or_not_at_all(tmp_path):
    for number in (1, 2):
        with io.atomic_folder(tmp_path / "f") as tmp:
            (tmp / f"{number}.txt").write_text("new")
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["2.txt"]
    with pytest.raises(ValueError, match="midway"), io.atomic_folder(tmp_path / "f") as tmp:
        (tmp / "3.txt").write_text("half")
        raise ValueError("midway")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["f", "f/2.txt"]
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="cannot write"), io.atomic_folder(tmp_path / "file" / "f"):
        pass
