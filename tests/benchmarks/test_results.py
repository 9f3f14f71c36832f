"""The pages of measured results come from run folders, and again from their sums."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from affuse.cli.app import main
from affuse.core import io

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "results.py"
spec = importlib.util.spec_from_file_location("results", SCRIPT)
assert spec is not None
assert spec.loader is not None
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)


def made_up(run: Path, subsets: list[str], seed: int) -> None:
    """An evaluated run of 120 made-up predictions by 12 speakers, as far as a page reads it."""
    rng, truth = np.random.default_rng(seed), np.arange(120) % 4
    protocol = {"split": "test", "split_hash": "s", "folds": 6, "group_by": "source", "groups": 12, "n": 120}
    protocol |= {"same_corpus": True, "selection": "none", "configurations_tried": 1}
    rows = [{"name": "majority class", "metrics": {m: {"value": 0.25} for m in results.METRICS}}]
    io.write_json(
        run / "evaluation.json",
        {"corpus": {"hash": "c"}, "labels": list("abcd"), "metrics": {}, "rows": rows, "protocol": protocol},
    )
    io.write_json(run / "run.json", {"parameters": 1234, "train_seconds": 60.0})
    (run / "metrics.jsonl").write_text('{"seconds": 0.5}\n')
    frames = []
    for subset in subsets:
        p = rng.dirichlet(np.ones(4), 120) + 0.3 * np.eye(4)[truth]
        columns = {f"p:{label}": p[:, c] for c, label in enumerate("abcd")}
        items = {"id": [f"u{i:03d}" for i in range(120)], "source": [f"s{i // 10}" for i in range(120)], "truth": truth}
        frames.append(pd.DataFrame({**items, "modalities": subset, "full": subset == subsets[0], **columns}))
    io.write_table(run / "predictions.parquet", pd.concat(frames, ignore_index=True))


def test_the_page_of_a_plan_and_its_table(tmp_path, capsys):
    base = tmp_path / "ravdess-av"
    io.write_json(base / "corpus" / "corpus.json", {"counts": {"all": {"utterances": 120, "speakers": 12}}})
    variants = {"fused": ["audio+vision", "audio", "vision"], "audio": ["audio"], "vision": ["vision"]}
    for variant, subsets in variants.items():
        for seed in range(3):
            made_up(base / variant / f"seed{seed}", subsets, seed)
    path = results.write(results.collect("ravdess-av", tmp_path), tmp_path / "ravdess-av")
    text = path.read_text()
    assert "| fused, seeds averaged | " in text
    assert "| fused with vision only - vision trained alone | " in text
    assert "jackknife over 12 groups by source, and 3 seeds" in text
    assert "about that seed only: fused, seeds averaged" in text
    path.unlink()
    assert main(["bench", "--table", str(tmp_path / "ravdess-av.parquet")]) == 0
    assert path.read_text() == text
    assert (tmp_path / "ravdess-av.parquet").stat().st_size < 300_000
