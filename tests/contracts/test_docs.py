"""The examples of docs/parts.md work together: import, extract, train, score and analyse with nothing but them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from affuse.cli.app import main
from affuse.core import io, registry
from affuse.corpora.synthetic import make_synthetic

PAGE = Path(__file__).resolve().parents[2] / "docs" / "parts.md"
BLOCKS = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A folder with every example of the page, which affuse takes its parts from."""
    for name, code in BLOCKS:
        path = tmp_path / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    monkeypatch.setenv("AFFUSE_PARTS", str(tmp_path / "parts"))
    registry.cards.cache_clear()


def test_every_kind_of_part_has_a_short_example():
    kinds = {name.split("/")[0]: code for name, code in BLOCKS}
    assert kinds.keys() == registry.KINDS.keys()
    assert all(len([line for line in code.splitlines() if line.strip()]) <= 20 for code in kinds.values())


def test_the_examples_import_extract_train_score_and_write(parts, tmp_path, capsys):
    made = make_synthetic(
        tmp_path / "made", conversations=6, utterances=4, speakers=12, labels="iemocap-4", seconds=1.0
    )
    for name, label, video in made.table[["id", "label", "video"]].itertuples(index=False):
        (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
        os.symlink(made.path / video, tmp_path / "clips" / label / f"{name}.mp4")
    corpus = str(tmp_path / "corpus")
    assert main(["import", "folder_of_labels", str(tmp_path / "clips"), corpus]) == 0
    recipe = {
        "streams": {"loudness": {"encoder": "moving"}, "mfcc": {"encoder": "moving", "rate": 10}},
        "fusion": "mean_of_steps",
        "context": ["previous"],
        "objectives": {"error": {"name": "squared"}},
        "balance": "halved",
        "train": {"epochs": 2, "selection": "worst_recall", "batch_size": 8},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    run = str(tmp_path / "run")
    assert main(["train", str(tmp_path / "mine.yaml"), "--corpus", corpus, "--out", run, "--quiet"]) == 0
    assert "worst_recall" in io.read_json(Path(run) / "evaluation.json")["metrics"]
    clip = str(next((tmp_path / "clips").rglob("*.mp4")))
    assert main(["analyze", clip, "--model", run, "--format", "lines", "--out", str(tmp_path / "answers")]) == 0
    assert list((tmp_path / "answers").glob("*.lines"))
