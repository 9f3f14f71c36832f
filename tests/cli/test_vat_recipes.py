"""The recipes of the video-audio transformer on miniature releases, by the commands of their head comments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.corpora.test_cheavd import OFFICIAL
from tests.corpora.test_muse_mimic import cell, feature_csv

from affuse.cli.app import main
from affuse.core import io
from affuse.core.labels import SPACES
from affuse.corpora.synthetic import make_synthetic

SMALL = [
    "train.epochs=2",
    "train.batch_size=4",
    "pretrain.train.epochs=2",
    "pretrain.train.batch_size=6",
    "pretrain.objectives.contrast.queue=5",
    "fusion.dim=16",
    "fusion.layers=1",
]
FROM_CLIPS = [
    "streams.log_mel.encoder.dim=16",
    "streams.log_mel.encoder.layers=1",
    "streams.face_crops.encoder={name: vit, dim: 16, layers: 1, heads: 2, temporal: 1, frames: 3}",
]


def run(*command: object) -> None:
    quiet = () if command[0] == "import" else ("--quiet",)
    assert main([*map(str, command), *quiet]) == 0


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    """Eighteen talking faces of 1.5 s."""
    folder = tmp_path_factory.mktemp("clips")
    corpus = make_synthetic(folder, conversations=6, utterances=3, speakers=6, seconds=1.5, fps=10)
    return [corpus.path / video for video in corpus.table["video"]]


def stages(recipe: str, corpus: Path, folder: Path, options: list[str]) -> dict:
    """Pretrain, train from it, and what the run scored; every term of both stages is logged."""
    run("pretrain", recipe, *options, "--corpus", corpus, "--out", folder / "pre")
    run("train", recipe, *options, f"init={folder / 'pre'}", "--corpus", corpus, "--out", folder / "run")
    first, second = (io.read_jsonl(folder / stage / "metrics.jsonl")[-1] for stage in ("pre", "run"))
    assert set(first["terms"]) == {"contrast", "match", "soft"} and "alone" in second["terms"]
    told = io.read_json(folder / "run" / "run.json")["init"]
    assert "fusion" in told["matched"] and len([p for p in told["matched"] if p.startswith("encoders")]) == 2
    found = io.read_json(folder / "run" / "evaluation.json")
    assert found["control"]["name"] == "audio trained alone"
    return found


def test_mer2023(clips, tmp_path):
    src, labels = tmp_path / "release", SPACES["mer2023-6"].labels
    parts = {"train": clips[:9], "test3": clips[9:13]}
    for part, chosen in parts.items():
        (src / part).mkdir(parents=True)
        lines = []
        for k, clip in enumerate(chosen):
            (src / part / f"sample_{part}{k}.mp4").symlink_to(clip)
            lines.append(f"sample_{part}{k},{labels[k % 6]},{-10 if part == 'test3' else k % 3 - 1}")
        (src / f"{part}-label.csv").write_text("\n".join(["name,discrete,valence", *lines]) + "\n")
    for k, clip in enumerate(clips[13:]):
        (src / "test3" / f"samplenew3_{k:08d}.mp4").symlink_to(clip)
    corpus = tmp_path / "corpus"
    run("import", "mer2023", src, corpus, "--partial", "test=semi", "unlabelled=true")
    found = stages("mer2023-vat", corpus, tmp_path, [*SMALL, *FROM_CLIPS, "split.valid=0.3"])
    assert found["n"] == 4 and "weighted_f1" in found["metrics"]
    row = io.read_jsonl(tmp_path / "run" / "metrics.jsonl")[-1]["counts"]
    assert row["taught.unsure"] + row["taught.sure"] > 0  # the pool teaches through the teacher alone
    run("submit", "mer2023", tmp_path / "run", "--corpus", corpus, "--part", "semi", "--out", tmp_path / "files")
    assert len((tmp_path / "files" / "predictions.csv").read_text().splitlines()) == 5


def test_cheavd(clips, tmp_path):
    src, at = tmp_path / "release", 0
    for split, n in {"train": 10, "val": 4, "test": 4}.items():
        (src / split).mkdir(parents=True)
        rows = []
        for k in range(n):
            (src / split / f"{split}_{k}.mp4").symlink_to(clips[at + k])
            rows.append(f"{split}_{k},{OFFICIAL[k % 8]}")
        (src / f"{split}.csv").write_text("\n".join(["name,label", *rows]) + "\n")
        at += n
    corpus = tmp_path / "corpus"
    run("import", "cheavd", src, corpus)
    found = stages("cheavd-vat", corpus, tmp_path, [*SMALL, *FROM_CLIPS])
    assert found["n"] == 4 and {"macro_precision", "accuracy"} <= set(found["metrics"])
    assert io.read_json(tmp_path / "run" / "run.json")["selection"]["metric"] == "macro_precision"


def test_muse_mimic(tmp_path):
    root, rng = tmp_path / "release" / "c1_muse_mimic", np.random.default_rng(0)
    root.mkdir(parents=True)
    split = {f"m{k:02d}": "train" if k < 12 else "devel" if k < 16 else "test" for k in range(20)}
    targets = {name: rng.random(3) for name in split}
    (root / "partition.csv").write_text("File_ID,partition\n" + "".join(f"{cell(n)},{s}\n" for n, s in split.items()))
    cells = {n: ",".join(f"{v:.3f}" for v in t) for n, t in targets.items()}
    head = "filename,Approval_,Disappointment_,Uncertainty_\n"
    (root / "labels.csv").write_text(head + "".join(f"{cell(n)},{c}\n" for n, c in cells.items()))
    for name, target in targets.items():
        for kind, step in (("w2v-msp", 500), ("faus", 250)):
            values = target + rng.normal(size=(6, 3)) / 10
            feature_csv(root / "features" / kind / f"{name}.csv", [step * t for t in range(6)], values)
    corpus = tmp_path / "corpus"
    run("import", "muse_mimic", tmp_path / "release", corpus)
    widths = [f"streams.{s}.encoder.{o}" for s in ("muse_w2v-msp", "muse_faus") for o in ("dim=16", "layers=1")]
    found = stages("muse-mimic-vat", corpus, tmp_path, [*SMALL, *widths])
    assert found["n"] == 4 and "pearson" in found["metrics"]
    run("submit", "muse-mimic", tmp_path / "run", "--corpus", corpus, "--out", tmp_path / "files")
    assert len((tmp_path / "files" / "predictions.csv").read_text().splitlines()) == 5
