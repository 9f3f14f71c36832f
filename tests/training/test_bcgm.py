"""The two recipes of BCGM's backbones, from raw media and from a MulT pickle to scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from affuse.cli.app import main
from affuse.corpora.cmu_mosi import import_cmu_mosi
from affuse.corpora.synthetic import make_synthetic
from affuse.stores.store import FeatureStore
from tests.corpora.sentiment_releases import dump, mult


def test_cremad_bcgm_from_clips_to_scores(tmp_path: Path) -> None:
    size = {"conversations": 4, "utterances": 2, "speakers": 8, "seconds": 1.0}
    missing = {"missing_audio": 0.1, "missing_vision": 0.2}
    corpus = make_synthetic(tmp_path / "corpus", labels="crema-d-6", **size, **missing)
    small = ["log_stft.encoder.width=2", "frames.encoder.width=2", "frames.extractor.size=40"]
    options = ["train.epochs=1", *(f"streams.{s}" for s in small)]
    where = ["--corpus", str(corpus.path), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["train", "cremad-bcgm", *options, *where]) == 0
    sound, picture = (FeatureStore(corpus.store_path(name)) for name in ("log_stft", "frames"))
    lengths = {sound.length(i) for i in sound.ids}
    assert lengths <= {0, 300} and 300 in lengths
    assert max(picture.length(i) for i in picture.ids) == 1
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["complete"] and run["group_by"] == "speaker+source"


def test_mosi_bcgm_from_a_pickle_to_scores(tmp_path: Path) -> None:
    release = dump(tmp_path / "mosi_data.pkl", mult((12, 4, 6), ids=False))
    corpus = import_cmu_mosi(release, tmp_path / "corpus", partial=True)
    shorter = [f"streams.mult_{m}.encoder.layers=1" for m in ("text", "audio", "vision")]
    where = ["--corpus", str(corpus.path), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["train", "mosi-bcgm", "train.epochs=3", *shorter, *where]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all(np.isfinite(line["valid"]["mae"]) for line in lines)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["selection"] == {"split": "valid", "task": "sentiment", "metric": "mae", "keep": "best"}
    assert sorted(run["streams"]) == ["mult_audio", "mult_text", "mult_vision"]
