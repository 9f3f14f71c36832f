"""The recipes per frame from raw releases in miniature, by the commands of docs/frames.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.corpora.test_aff_wild2 import AU, EXPR, VA
from tests.corpora.test_aff_wild2 import release as aff_wild2_release
from tests.corpora.test_meld import HEADER as MELD_HEADER

from affuse.cli.app import main
from affuse.core import io
from affuse.corpora.aff_wild2 import UNITS
from affuse.corpora.c_expr_db import BEGIN, CLASSES, END
from affuse.corpora.meld import CLIPS, OFFICIAL
from affuse.corpora.synthetic import make_synthetic

FPS, SECONDS = 10, 3.0
SMALL = ["train.epochs=2", "train.batch_size=4", "train.window=1.2", "train.hop=0.8"]
WIDTHS = ["streams.face_expert.encoder.channels=[16, 8]", "streams.mfcc.encoder.channels=[8]"]
WORDS = "streams.word_frames.encoder.channels=[16, 8]"


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    """Ten talking faces of 3 s."""
    folder = tmp_path_factory.mktemp("clips")
    corpus = make_synthetic(folder, conversations=5, utterances=2, speakers=10, seconds=SECONDS, fps=FPS)
    return [corpus.path / video for video in corpus.table["video"]]


def run(*command: object) -> None:
    quiet = () if command[0] == "import" else ("--quiet",)
    assert main([*map(str, command), *quiet]) == 0


def analysed(run_folder: Path, clip: Path, capsys) -> dict:
    """The JSON of a clip's timeline."""
    capsys.readouterr()
    assert main(["analyze", str(clip), "--model", str(run_folder), "--format", "json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


def is_curve(timeline: dict, labels: int) -> bool:
    """Whether there is a step of 0.2 s for the whole clip, with probabilities or nothing."""
    (curve,) = timeline["curves"].values()
    known = [row for row in curve["values"] if row is not None]
    return (
        curve["rate"] == 5.0
        and abs(len(curve["values"]) - SECONDS * 5) <= 1
        and len(known) > 0.8 * len(curve["values"])
        and all(len(row) == labels for row in known)
    )


def place(clip: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(clip)


def test_meld(clips, tmp_path, capsys):
    src, emotions = tmp_path / "MELD", ["joy", "neutral", "anger", "sadness"]
    lines = {"train": range(6), "dev": range(6, 8), "test": range(8, 10)}
    for split, (key, chosen) in zip(("train", "dev", "test"), lines.items(), strict=True):
        rows = []
        for n, k in enumerate(chosen):
            spoken = f"1,This is line {k},Who{k},{emotions[k % 4]},neutral,{n},0,{k + 1},1,,"
            rows.append(spoken)
            own = next(s for s, name in OFFICIAL.items() if name == split)
            place(clips[k], src / OFFICIAL[own] / CLIPS[own] / f"dia{n}_utt0.mp4")
        (src / f"{key}_sent_emo.csv").write_text(MELD_HEADER + "\n".join(rows) + "\n")
    corpus, out = tmp_path / "corpus", tmp_path / "run"
    run("import", "meld", src, corpus, "--partial")
    run("train", "meld-lfan", *SMALL, *WIDTHS, WORDS, "--corpus", corpus, "--out", out)
    found = io.read_json(out / "evaluation.json")
    assert (found["resolution"], found["per_utterance"]["n"]) == ("frame", 2)
    assert abs(found["n"] - 2 * SECONDS * 5) <= 2  # sound may last a little longer
    assert is_curve(analysed(out, clips[0], capsys), 7)


def interval(start: float, end: float, label: str) -> str:
    marks = ",".join("1" if c == label else "" for c in CLASSES)
    return f"00:00:{start:06.3f},00:00:{end:06.3f},{marks}"


def test_c_expr_db(clips, tmp_path, capsys):
    src = tmp_path / "C-EXPR-DB"
    (src / "annotation").mkdir(parents=True)
    head = ",".join(f'"{name}"' for name in (BEGIN, END, *CLASSES))
    for k, clip in enumerate(clips, 1):
        place(clip, src / "videos" / f"{k:02d}.mp4")
        both = [interval(0.1, 1.4, CLASSES[k % 2]), interval(1.5, 2.9, CLASSES[2 + k % 2])]
        (src / "annotation" / f"{k:02d}.csv").write_text("\n".join([head, *both]) + "\n")
    corpus, out = tmp_path / "corpus", tmp_path / "run"
    run("import", "c_expr_db", src, corpus, "--partial", "other=false")
    only = ["--only", "vision", "audio"]  # this miniature has no transcripts
    run("train", "cexpr-lfan", *SMALL, *WIDTHS, *only, "--folds", 3, "--corpus", corpus, "--out", out)
    found = io.read_json(out / "evaluation.json")
    assert found["per_utterance"]["n"] == 20  # each interval is tested once
    split = io.read_table(next(out.rglob("split.parquet")))
    assert not set(split.query("split == 'test'")["source"]) & set(split.query("split == 'train'")["source"])
    assert is_curve(analysed(out, clips[0], capsys), 7)
    run("submit", "abaw-compound", out, *sorted((src / "videos").iterdir())[:2], "--out", tmp_path / "files")
    rows = (tmp_path / "files" / "predictions.txt").read_text().splitlines()[1:]
    assert len(rows) == 2 * SECONDS * FPS


def frames(track: str, k: int) -> list[str]:
    """A line per frame; every fifth frame has no label."""
    rng, n = np.random.default_rng(k), int(SECONDS * FPS)
    values = {
        VA: [",".join(f"{v:.2f}" for v in rng.uniform(-1, 1, 2)) for _ in range(n)],
        EXPR: [str(v) for v in rng.integers(0, 8, n)],
        AU: [",".join(map(str, rng.integers(0, 2, len(UNITS)))) for _ in range(n)],
    }[track]
    nothing = {VA: "-5,-5", EXPR: "-1", AU: ",".join(["-1"] * len(UNITS))}[track]
    return [nothing if i % 5 == 4 else line for i, line in enumerate(values)]


VARIANTS = {
    EXPR: ("expression", [], "macro_f1", 8),
    VA: (
        "valence_arousal",
        [
            "tasks.emotion.track=valence_arousal", "tasks.emotion.space=va", "objectives.frames=ccc",
            "objectives.stable={name: l1, weight: 0.1}", "train.selection=ccc",
        ],
        "ccc",
        2,
    ),
    AU: (
        "action_units",
        [
            "tasks.emotion.track=action_units", "tasks.emotion.space=action-units-12",
            "objectives.frames={name: binary_cross_entropy, positive_weight: balanced}", "train.selection=label_f1",
        ],
        "label_f1",
        12,
    ),
}  # fmt: skip


@pytest.mark.parametrize("challenge", VARIANTS)
def test_aff_wild2(clips, tmp_path, capsys, challenge):
    track, options, metric, labels = VARIANTS[challenge]
    files = {}
    for k in range(8):
        part = "Validation_Set" if k >= 5 else "Train_Set"
        files[f"{challenge}/{part}/video{k}"] = frames(challenge, k)
    src = aff_wild2_release(tmp_path / "Aff-Wild2", files)
    for k in range(8):
        place(clips[k], src / "batch1" / f"video{k}.mp4")
    corpus, out = tmp_path / "corpus", tmp_path / "run"
    run("import", "aff_wild2", src, corpus, f"task={track}", "--partial", f"rate={FPS}")
    run("train", "affwild2-lfan", *options, *SMALL, *WIDTHS, "--corpus", corpus, "--out", out, "--no-score")
    run("evaluate", out, "--corpus", corpus, "--split", "valid")
    found = io.read_json(out / "evaluation-valid.json")
    assert found["n"] == 3 * 4 * SECONDS * FPS / 5  # of three videos all frames that have a label
    assert found["metrics"][metric]["value"] == pytest.approx(
        io.read_json(out / "run.json")["best_score"] if metric != "label_f1" else found["metrics"][metric]["value"]
    )
    table = pd.read_parquet(out / "predictions-valid.parquet").query("full")
    assert not (table["frame"] % 5 == 4).any()
    assert is_curve(analysed(out, clips[0], capsys), labels)
