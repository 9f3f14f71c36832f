"""torch's files come in as arrays, in both of its formats, and nothing of them runs."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from affuse.core import checkpoints
from affuse.core.errors import BadFeatures, MissingFile

STATE = OrderedDict(
    weight=torch.arange(12.0).reshape(3, 4),
    turned=torch.arange(12.0).reshape(3, 4).t()[1:],
    half=torch.tensor([1.5, -2.0]).half(),
    count=torch.tensor(7),
    mask=torch.tensor([True, False]),
    none=torch.zeros(0, 3),
    frozen=torch.nn.Parameter(torch.ones(2)),
)


@pytest.fixture(params=[True, False], ids=["zip", "stream"])
def save(request, tmp_path):
    def write(value, name="a.pth") -> Path:
        torch.save(value, tmp_path / name, _use_new_zipfile_serialization=request.param)
        return tmp_path / name

    return write


def test_tensors_come_back_as_arrays(save):
    found = checkpoints.load_state(save({"state_dict": STATE, "epoch": 3, "note": "x"}))
    assert set(found) == set(STATE)
    for name, tensor in STATE.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())
        assert found[name].dtype == tensor.detach().numpy().dtype


def test_bfloat16_becomes_float32(tmp_path):
    torch.save({"w": torch.tensor([1.0, -0.5, 3.25]).bfloat16()}, tmp_path / "a.pth")
    np.testing.assert_array_equal(
        checkpoints.load_state(tmp_path / "a.pth")["w"], np.array([1, -0.5, 3.25], np.float32)
    )


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("place", ["alone", "next to it", "deep"])
def test_code_is_refused_and_never_runs(save, tmp_path, place):
    harm = Harm(tmp_path / "harmed")
    value = {
        "alone": harm,
        "next to it": {**STATE, "x": harm},
        "deep": {"state_dict": STATE, "optimizer": [{"y": (harm,)}]},
    }[place]
    with pytest.raises(BadFeatures, match="could run code"):
        checkpoints.load(save(value))
    assert not (tmp_path / "harmed").exists()


def test_whole_models_raise(save):
    with pytest.raises(BadFeatures, match="Linear"):
        checkpoints.load(save(torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("cut", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_what_is_cut_off_is_named(save, cut):
    path = save(dict(STATE))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(BadFeatures, match=r"a\.pth"):
        checkpoints.load(path)


def test_a_forged_shape_reads_no_stray_memory(tmp_path, monkeypatch):
    with pytest.raises(BadFeatures, match="outside its storage"):
        checkpoints._tensor(np.zeros(4, np.float32), 0, (2, 3), (3, 1))
    with pytest.raises(BadFeatures, match="forged"):
        checkpoints._tensor(np.zeros(4, np.float32), -1, (2,), (1,))


def test_other_files_raise(tmp_path):
    with pytest.raises(MissingFile):
        checkpoints.load(tmp_path / "none.pth")
    for content in (b"", b"text", pickle.dumps({"a": 1}), b"PK\x03\x04"):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(BadFeatures):
            checkpoints.load(tmp_path / "a.pth")
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(BadFeatures, match="no named tensors"):
        checkpoints.load_state(tmp_path / "a.pth")
