"""A prediction per frame on real clips: docs/results/frames-SETTING.md, by affuse bench.

python benchmarks/frames.py [--out runs/frames] [--workers 1] [--only composite/lfan ...] [--table]

Makes the corpora of benchmarks/suites/frames.yaml below OUT, then runs the suite: the composite clips, and clips
spliced from them whose emotion changes at known times, for which the page also says how long each model takes to
follow.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from results import DATA, corpus_composite_av
from suite import run_suite

from affuse.core import io
from affuse.corpora.manifest import write_corpus
from affuse.evaluation.suite import Suite
from affuse.media.clip import Clip
from affuse.media.write import write_clip
from affuse.stores.store import import_arrays

FPS, RATE, PARTS, SOUND = 10.0, 5.0, 3, 16000
TRACK = "emotion"


def corpus_spliced(path: Path) -> None:
    """Clips of one voice, three emotions each, none next to itself, as one mp4; every composite clip is used once."""
    table = pd.read_csv(DATA / "composite_av" / "labels.csv")
    space = sorted(set(table["emotion"]))
    rows, tracks = [], {}
    for actor, own in table.groupby("actor"):
        for k, chosen in enumerate(triples(own.reset_index(drop=True), int(actor))):
            name = f"actor{actor:02d}_{k}"
            times = splice(path / "clips" / f"{name}.mp4", [DATA / "composite_av" / p for p in chosen["path"]])
            at = np.searchsorted(times[1:], (np.arange(int(times[-1] * RATE)) + 0.5) / RATE, side="right")
            tracks[name] = chosen["emotion"].map(space.index).to_numpy(np.float32)[at]
            rows.append({"id": name, "speaker": f"actor{actor:02d}", "video": str(Path("clips") / f"{name}.mp4")})
    corpus = write_corpus(path, rows, "spliced", "ekman-7", tracks={TRACK: space})
    offsets = np.cumsum([0, *map(len, tracks.values())])
    values = np.concatenate(list(tracks.values()))[:, None]
    import_arrays(corpus.annotation_path(TRACK), list(tracks), values, offsets, "vision", RATE)


def triples(clips: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """Groups of three clips in a random order in which no emotion follows itself; what is left over is not used."""
    order = clips.sample(frac=1, random_state=seed).reset_index(drop=True)
    found: list[pd.DataFrame] = []
    while len(order) >= PARTS:
        first = [0]
        for i in range(1, len(order)):
            if len(first) < PARTS and order["emotion"][i] != order["emotion"][first[-1]]:
                first.append(i)
        if len(first) < PARTS:
            break
        found.append(order.loc[first])
        order = order.drop(index=first).reset_index(drop=True)
    return found


def splice(path: Path, clips: list[Path]) -> list[float]:
    """Write the clips one after the other; the times (s) at which each begins, and the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures, sound, times = [], [], [0.0]
    for clip in map(Clip, clips):
        frames = [frame.image for frame in clip.frames(FPS)]
        pictures += frames
        wave = clip.read_audio(SOUND).samples
        wanted = round(len(frames) / FPS * SOUND)
        sound.append(np.pad(wave[:wanted], (0, max(0, wanted - len(wave)))))
        times.append(times[-1] + len(frames) / FPS)
    write_clip(path, pictures, FPS, np.concatenate(sound), SOUND)
    return times


def delays(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """(seconds from each change of emotion to the first frame that is right [K]; NaN: never before the next change),
    (share of right frames [K] from then on).
    """
    table = io.read_table(run / "predictions.parquet").query("full").sort_values(["id", "frame"])
    labels = [c.removeprefix("p:") for c in table if c.startswith("p:")]
    right = table[[f"p:{label}" for label in labels]].to_numpy().argmax(1) == table["truth"].to_numpy()
    found, after = [], []
    for _, rows in table.assign(right=right).groupby("id"):
        changes = np.flatnonzero(np.diff(rows["truth"].to_numpy())) + 1
        for start, end in zip(changes, [*changes[1:], len(rows)], strict=True):
            hits = np.flatnonzero(rows["right"].to_numpy()[start:end])
            found.append(hits[0] / RATE if len(hits) else np.nan)
            after.append(rows["right"].to_numpy()[start + hits[0] : end].mean() if len(hits) else np.nan)
    return np.array(found), np.array(after)


def followed(suite: Suite, setting: str, out: Path) -> str:
    """How soon each arm follows a change of emotion, over all seeds; empty for a setting without changes."""
    if setting != "spliced":
        return ""
    lines = [
        "## After a change",
        "",
        f"Seconds from a change of emotion to the first frame of {RATE:g} Hz with the new one, over all changes and "
        "seeds; a change that is not followed before the next one is missed. The last column: the share of right "
        "frames from that one on.",
        "",
        "| arm | changes | median delay, s | within 1 s | missed | stays right |",
        "|---|---|---|---|---|---|",
    ]
    for arm in suite.arms_of(setting):
        runs = sorted(path.parent for path in (out / setting / arm).glob("seed*/predictions.parquet"))
        if runs:
            found, after = (np.concatenate(values) for values in zip(*map(delays, runs), strict=True))
            median, soon, missed = np.nanmedian(found), (found <= 1).mean(), np.isnan(found).mean()
            shares = f"{soon:.2f} | {missed:.2f} | {np.nanmean(after):.2f}"
            lines.append(f"| {arm} | {len(found)} | {median:.1f} | {shares} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    corpora = {"composite": corpus_composite_av, "spliced": corpus_spliced, "text": corpus_composite_av}
    sys.exit(run_suite("frames", corpora, __doc__, followed))
