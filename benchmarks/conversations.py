"""Context models beside none and bcLSTM on real dialogues: docs/results/conversations-CORPUS.md, from run folders.

python benchmarks/conversations.py iemocap|meld [--out runs] [--seeds 5] [--recipes dialogue-gcn ...] [--table]

IEMOCAP: six classes, sessions 1-3 to train, session 4 to test, 47 audio statistics and MiniLM vectors of the words. MELD: its train
split to train, its dev split to test, MiniLM vectors alone. A tenth of the training dialogues is held out to select the epoch on.
Everything is trained on cached features, one process (`--jobs 2` for two); what is complete is not trained again.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
import experts
from results import DATA, ROOT, _cell, _value, affuse

from affuse.core import io
from affuse.core.config import recipe_names
from affuse.evaluation.compare import compare

METRICS = ("weighted_f1", "macro_f1", "accuracy")
BASELINES = ("dialogue-none", "dialogue-bclstm")
LABELS = ("happy", "sad", "neutral", "angry", "excited", "frustrated")  # the order of iemocap_conv


def corpus_iemocap(path: Path) -> None:
    """The dialogues of the six-class protocol, by `import table` and `import features`."""
    rows = []
    for name, dialogue in io.read_json(DATA / "iemocap_conv" / "dialogues_6way_sessions1-4.json").items():
        parts = zip(dialogue["utt_ids"], dialogue["speakers"], dialogue["label6"], dialogue["text"], strict=True)
        for k, (utterance, speaker, label, text) in enumerate(parts):
            split = "test" if name.startswith("Ses04") else "train"
            row = {"id": utterance, "conversation": name, "position": k, "speaker": name[:5] + speaker, "source": name}
            rows.append(row | {"split": split, "label": LABELS[label], "text": text})
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path.with_suffix(".csv"), index=False)
    affuse("import", "table", path.with_suffix(".csv"), path, "--name", "iemocap-6", "--space", "iemocap-6")
    with np.load(DATA / "iemocap_conv" / "iemocap_utterances_sessions1-4.npz") as arrays:
        kept = np.isin(arrays["utt_id"], [row["id"] for row in rows])
        np.savez(path.with_suffix(".npz"), ids=arrays["utt_id"][kept], values=arrays["audio47"][kept])
    affuse("import", "features", path, "audio", path.with_suffix(".npz"), "--modality", "audio")


def corpus_meld(path: Path) -> None:
    """MELD's words: its train split, and its dev split as `test`."""
    experts.text_corpus(path, held_out=0.1)


CORPORA = {"iemocap": corpus_iemocap, "meld": corpus_meld}


def train_all(name: str, out: Path, recipes: list[str], seeds: int, jobs: int) -> None:
    """The corpus, its text vectors, and every run that is missing."""
    corpus = out / "corpus"
    if not (corpus / "corpus.json").is_file():
        CORPORA[name](corpus)
    affuse("extract", corpus, "text", "layers=[2,4,6]", "--quiet")
    todo = [(r, s) for s in range(seeds) for r in recipes if not (out / r / f"seed{s}" / "evaluation.json").is_file()]

    def job(item: tuple[str, int]) -> None:
        recipe, seed = item
        folder = out / recipe / f"seed{seed}"
        affuse("train", recipe, f"train.seed={seed}", "split.group_by=conversation", "--corpus", corpus, "--out", folder, "--threads", 1, "--quiet", "--no-score")
        affuse("evaluate", folder, "--corpus", corpus, "--quiet")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(job, todo))


def page(name: str, out: Path) -> str:
    """The page of a corpus, from the run folders that are complete."""
    runs = {r: sorted((out / r).glob("seed*/evaluation.json")) for r in recipes_of() if (out / r).is_dir()}
    runs = {r: paths for r, paths in runs.items() if paths}
    tables = {r: [_full(p) for p in paths] for r, paths in runs.items()}
    first = io.read_json(next(iter(runs.values()))[0])
    n = len(next(iter(tables.values()))[0])
    text = [
        f"# conversations: {name}",
        "",
        f"`python benchmarks/conversations.py {name}`: {n} utterances scored, {len(first['labels'])} classes. Selection: "
        f"{first['protocol']['selection']}. Intervals: {first['protocol']['interval']}; for several seeds the mean over seeds within each resample.",
        "",
        f"| recipe | {' | '.join(METRICS)} | per seed (weighted_f1) | parameters | s per run | less none (weighted_f1) | less bclstm |",
        "|---|" + "---|" * (len(METRICS) + 5),
    ]
    better: dict[str, list[str]] = {b: [] for b in BASELINES}
    worse: dict[str, list[str]] = {b: [] for b in BASELINES}
    for recipe, paths in runs.items():
        run = io.read_json(paths[0].with_name("run.json"))
        full = tables[recipe][0]["modalities"].iloc[0]
        cells = [_cell(tables[recipe], full, m, "source") for m in METRICS]
        each = ", ".join(f"{_value(t, full, 'weighted_f1'):.3f}" for t in tables[recipe])
        seconds = np.mean([io.read_json(p.with_name("run.json"))["train_seconds"] for p in paths])
        gaps = {b: _gap(out, recipe, b) for b in BASELINES if b in runs and b != recipe}
        for b, gap in gaps.items():
            better[b] += [recipe] * (gap["low"] > 0)
            worse[b] += [recipe] * (gap["high"] < 0)
        shown = [f"{gaps[b]['value']:+.3f} [{gaps[b]['low']:+.3f}, {gaps[b]['high']:+.3f}]" if b in gaps else "" for b in BASELINES]
        text.append(f"| {recipe} | {' | '.join(cells)} | {each} | {run['parameters']:,} | {seconds:.0f} | {' | '.join(shown)} |")
    text.append("")
    for b in BASELINES:
        text.append(f"Above {b} by a paired interval that excludes 0: {', '.join(better[b]) or 'none'}. Below it: {', '.join(worse[b]) or 'none'}.")
    return "\n".join(text) + "\n"


def _full(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path.with_name("predictions.parquet"))
    return table[table["full"]]


def _gap(out: Path, recipe: str, baseline: str) -> dict[str, float]:
    difference: dict[str, float] = compare(out / recipe, out / baseline, "weighted_f1")["difference"]
    return difference


def recipes_of() -> list[str]:
    """The recipes of dialogues, the baselines first."""
    found = [name for name in recipe_names() if name.startswith("dialogue-")]
    return [*BASELINES, *(name for name in found if name not in BASELINES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CORPORA)
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipes", nargs="*", default=None)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    out = given.out / f"conversations-{given.name}"
    if not given.table:
        train_all(given.name, out, given.recipes or recipes_of(), given.seeds, given.jobs)
    target = ROOT / "docs" / "results" / f"conversations-{given.name}.md"
    io.write_text(target, page(given.name, out))
    print(target)


if __name__ == "__main__":
    main()
