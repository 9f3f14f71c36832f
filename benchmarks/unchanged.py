"""Does every recipe still give the same numbers? Two epochs of each on a small corpus, one source tree against another.

python benchmarks/unchanged.py record OUT.json [--src TREE/src] [--only dialogue-* ...] [--runs DIR]
python benchmarks/unchanged.py compare BEFORE.json AFTER.json

`record` trains through the command line with the sources of TREE, and writes the loss and the selection scores of both
epochs and the predictions of the test split; it names the recipes that this corpus or machine cannot train. `compare`
names every recipe that differs by more than 1e-6, and fails.
Record both on one machine: sums in float32 differ between processors.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-6
VECTORS = {"audio_features": ("audio", 69), "face_features": ("vision", 56)}
SEQUENCES = {"mult_text": ("text", 30), "mult_audio": ("audio", 5), "mult_vision": ("vision", 20)}
MAKE = """
import sys
from affuse.corpora.synthetic import make_synthetic
make_synthetic(sys.argv[1], conversations=8, utterances=4, speakers=16, labels="ekman-7", seconds=1.5)
"""


def base_corpus(path: Path, env: dict[str, str]) -> None:
    """32 clips by 16 speakers with columns of intensity and sentiment, and imported features of every kind."""
    subprocess.run([sys.executable, "-c", MAKE, str(path / "clips")], env=env, check=True)
    table = pd.read_parquet(path / "clips" / "manifest.parquet")
    rng = np.random.default_rng(7)
    code = table["label"].astype("category").cat.codes.to_numpy()
    table["intensity"] = np.where(np.arange(len(table)) % 2, "strong", "normal")
    table["sentiment"] = np.round(code - 3 + rng.normal(0, 0.3, len(table)), 2).clip(-3, 3)
    for column in ("video", "audio"):
        table[column] = [str(path / "clips" / v) if v and not Path(v).is_absolute() else v for v in table[column]]
    table.drop(columns="label").assign(label=table["label"]).to_csv(path / "table.csv", index=False)
    affuse(env, "import", "table", path / "table.csv", path / "corpus", "--name", "small", "--space", "ekman-7")
    ids = table["id"].to_numpy(str)
    for name, (modality, dim) in VECTORS.items():
        values = code[:, None] * 0.2 + rng.normal(size=(len(ids), dim))
        np.savez(path / f"{name}.npz", ids=ids, values=values.astype(np.float32))
        affuse(env, "import", "features", path / "corpus", name, path / f"{name}.npz", "--modality", modality)
    for name, (modality, dim) in SEQUENCES.items():
        lengths = rng.integers(4, 12, len(ids))
        values = np.repeat(code, lengths)[:, None] * 0.2 + rng.normal(size=(lengths.sum(), dim))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        np.savez(path / f"{name}.npz", ids=ids, values=values.astype(np.float32), offsets=offsets)
        affuse(env, "import", "features", path / "corpus", name, path / f"{name}.npz", "--modality", modality)


def faces(path: Path, env: dict[str, str]) -> None:
    """210 random pictures in FER2013's format."""
    rng = np.random.default_rng(3)
    rows = []
    for i in range(210):
        pixels = rng.integers(0, 120, (48, 48)) + 18 * (i % 7)
        usage = "Training" if i < 150 else "PublicTest" if i < 180 else "PrivateTest"
        rows.append({"emotion": i % 7, "pixels": " ".join(map(str, pixels.ravel())), "Usage": usage})
    path.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(path / "fer2013.csv", index=False)
    affuse(env, "import", "fer2013", path, path / "corpus", "--partial")


def affuse(env: dict[str, str], *arguments: object) -> None:
    """The command line of the tree that `env` names; its words only where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "affuse", *map(str, arguments)], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"affuse {' '.join(map(str, arguments))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def corpora_of(recipe: str) -> str:
    """Which of the two small corpora a recipe is trained on."""
    return "faces" if recipe in ("fer2013-faces", "vision-expert") else "small"


def features_of(recipe: str) -> set[str]:
    """The imported features that a recipe finds in its corpus: `*` takes all that are vectors."""
    if recipe.startswith(("mosi-",)):
        return set(SEQUENCES)
    return set(VECTORS)


def train(recipe: str, base: Path, out: Path, env: dict[str, str]) -> dict[str, Any]:
    """What two epochs of a recipe give: losses, selection scores, predictions of the test split."""
    corpus = base / "of" / recipe
    shutil.copytree(base / corpora_of(recipe) / "corpus", corpus)
    for store in (corpus / "features").glob("*"):
        if corpora_of(recipe) == "small" and store.name not in features_of(recipe):
            shutil.rmtree(store)
    run = out / recipe
    options = ["train.epochs=2", "train.batch_size=8"]
    affuse(env, "train", recipe, *options, "--corpus", corpus, "--out", run, "--quiet")
    rows = [json.loads(line) for path in sorted(run.rglob("metrics.jsonl")) for line in path.read_text().splitlines()]
    table = pd.read_parquet(run / "predictions.parquet").sort_values(["modalities", "id"], kind="stable")
    columns = [c for c in table if c.startswith("p:")]
    values = table[columns].to_numpy(float)
    return {
        "losses": [row["loss"] for row in rows],
        "selection": [row["valid"] for row in rows],
        "predictions": {"columns": columns, "values": values.tolist()},
    }


def record(path: Path, src: Path, only: list[str], runs: Path | None) -> None:
    """Write what every recipe of the tree gives."""
    env = os.environ | {"PYTHONPATH": str(src), "OMP_NUM_THREADS": "1"}
    names = sorted(p.stem for p in (src / "affuse" / "recipes").glob("*.yaml"))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        base = runs or Path(folder)
        base_corpus(base / "small", env)
        faces(base / "faces", env)
        for name in names:
            if only and not any(fnmatch(name, pattern) for pattern in only):
                continue
            try:
                found[name] = train(name, base, base / "runs", env)
            except SystemExit as error:  # of another corpus, or a model that is not on this machine
                print(f"{name}: not trained: {' '.join(str(error).split()[-30:])}", flush=True)
            else:
                print(name, *(f"{loss:.6f}" for loss in found[name]["losses"]), flush=True)
    path.write_text(json.dumps(found))


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A line per recipe that is missing or differs by more than the tolerance."""
    wrong = [f"{name}: not trained in both" for name in sorted(before.keys() ^ after.keys())]
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        pairs = [(old["losses"], new["losses"]), (old["predictions"]["values"], new["predictions"]["values"])]
        for one, other in zip(old["selection"], new["selection"], strict=False):
            pairs.append(([one[k] for k in one], [other.get(k, float("nan")) for k in one]))
        try:
            apart = max(float(np.abs(np.array(a, float) - np.array(b, float)).max(initial=0)) for a, b in pairs)
        except ValueError as error:
            wrong.append(f"{name}: {error}")
            continue
        if not apart <= TOLERANCE:
            wrong.append(f"{name}: differs by {apart:.3g}")
    return wrong


def main() -> int:
    """Run the verb that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["record", "compare"])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--src", type=Path, default=ROOT / "src")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--runs", type=Path, help="keep corpora and run folders here")
    given = parser.parse_args()
    if given.verb == "record":
        record(given.files[0], given.src, given.only, given.runs)
        return 0
    before, after = (json.loads(path.read_text()) for path in given.files)
    wrong = differences(before, after)
    print("\n".join(wrong) or f"{len(before)} recipes: losses, selection scores and predictions are the same")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
