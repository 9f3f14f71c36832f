"""How often the leak detector fires: on planted leaks, on honest features, on real ones. Writes docs/results/leaks.md.

python benchmarks/leak_power.py [--runs 40]     (one core, about five minutes; reads ../shared/data)

Every scene is drawn anew in each run. A scene's row counts the runs whose lower bound lies above a margin, so one
measurement shows every margin; MARGIN of affuse.evaluation.leaks is the one in use.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from affuse.core import io
from affuse.evaluation.leaks import DRAWS, FOLDS, MARGIN, MIN_GROUPS, LeakReport, find_leak

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("AFFUSE_SHARED") or ROOT.parent / "shared") / "data"
MARGINS = (0.0, 0.02, MARGIN, 0.1)
Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # values, targets, groups, touched


@dataclass(frozen=True)
class Scene:
    """Rows in groups; `signal`: distance of the class means in noise units; everything else is a nuisance.

    shift: spread of a group's own offset; uneven: class shares differ per side (Dirichlet 2) and group sizes vary
    (geometric); mixed: spread of the log signal between groups; harder: noise of the untouched rows; continuous:
    targets are values, `wider`: their spread on the touched side.
    """

    groups: tuple[int, int] = (40, 40)
    rows: int = 15
    dim: int = 100
    classes: int = 4
    signal: float = 1.5
    shift: float = 0.0
    uneven: bool = False
    mixed: float = 0.0
    harder: float = 1.0
    continuous: bool = False
    wider: float = 1.0

    def draw(self, rng: np.random.Generator) -> Rows:
        """values [N, D], targets [N], groups [N], touched [N]."""
        n = sum(self.groups)
        size = np.maximum(4, rng.geometric(1 / self.rows, n)) if self.uneven else np.full(n, self.rows)
        group = np.repeat(np.arange(n), size)
        touched = group < self.groups[0]
        strength = np.exp(rng.normal(0, self.mixed, n))[group, None] * self.signal
        noise = np.where(touched, 1.0, self.harder)[:, None]
        offset = self.shift * rng.normal(size=(n, self.dim))[group]
        centres = rng.normal(size=(self.classes, self.dim)) / np.sqrt(self.dim)
        if self.continuous:
            target = rng.normal(size=len(group)) * np.where(touched, self.wider, 1.0)
            mean = target[:, None] * centres[0]
        else:
            shares = [rng.dirichlet(np.full(self.classes, 2.0 if self.uneven else 1e6)) for _ in range(2)]
            target = np.array([rng.choice(self.classes, p=shares[0 if t else 1]) for t in touched])
            mean = centres[target]
        return strength * mean + noise * rng.normal(size=(len(group), self.dim)) + offset, target, group, touched


REAL = Scene(shift=0.5, uneven=True, mixed=0.3)
HONEST = {
    "no signal at all": Scene(signal=0),
    "signal": Scene(),
    "strong signal": Scene(signal=4),
    "+ shifted groups": Scene(shift=0.5),
    "+ other class shares and sizes": Scene(shift=0.5, uneven=True),
    "+ groups of mixed difficulty": REAL,
    "the same, 62 against 15 groups": replace(REAL, groups=(62, 15), rows=25),
    f"the same, {MIN_GROUPS} against {MIN_GROUPS} groups": replace(REAL, groups=(MIN_GROUPS, MIN_GROUPS), rows=30),
    "the same, 20 dimensions": replace(REAL, dim=20),
    "the same, 768 dimensions": replace(REAL, dim=768),
    "the same, two classes": replace(REAL, classes=2, signal=2),
    "the same, values": replace(REAL, continuous=True),
    "values, their spread inside x 1.4": replace(REAL, continuous=True, wider=1.4),
    "values, their spread inside x 0.7": replace(REAL, continuous=True, wider=0.7),
}


def direct(scene: Scene, strength: float) -> Callable[[np.random.Generator], Rows]:
    """Touched rows are moved by `strength` noise units along their class' own direction."""

    def draw(rng: np.random.Generator) -> Rows:
        x, y, group, touched = scene.draw(rng)
        axes = rng.normal(size=(scene.classes, scene.dim))
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
        return x + strength * axes[y] * touched[:, None], y, group, touched

    return draw


def network(scene: Scene, epochs: int) -> Callable[[np.random.Generator], Rows]:
    """Features are the 64 hidden units of a network trained for `epochs` on the labels of the touched rows."""

    def draw(rng: np.random.Generator) -> Rows:
        x, y, group, touched = scene.draw(rng)
        net = MLPClassifier((64,), alpha=0.0, batch_size=32, max_iter=epochs, random_state=int(rng.integers(1 << 31)))
        net.fit(x[touched], y[touched])
        return np.maximum(x @ net.coefs_[0] + net.intercepts_[0], 0), y, group, touched

    return draw


def untouched_network(scene: Scene, epochs: int) -> Callable[[np.random.Generator], Rows]:
    """The same network trained on other groups than any of the rows: learned features without a leak."""

    def draw(rng: np.random.Generator) -> Rows:
        more = replace(scene, groups=(2 * scene.groups[0], scene.groups[1]))
        x, y, group, side = more.draw(rng)
        fitted = group < scene.groups[0]
        net = MLPClassifier((64,), alpha=0.0, batch_size=32, max_iter=epochs, random_state=int(rng.integers(1 << 31)))
        net.fit(x[fitted], y[fitted])
        hidden = np.maximum(x @ net.coefs_[0] + net.intercepts_[0], 0)
        return hidden[~fitted], y[~fitted], group[~fitted], side[~fitted]

    return draw


def regroup(x: np.ndarray, y: np.ndarray, group: np.ndarray, share: float) -> Callable[[np.random.Generator], Rows]:
    """Real rows whose groups go to two sides at random: there can be no leak between them."""
    names, index = np.unique(group, return_inverse=True)

    def draw(rng: np.random.Generator) -> Rows:
        return x, y, index, (rng.permutation(len(names)) < round(share * len(names)))[index]

    return draw


def repeated(draw: Callable[[np.random.Generator], Rows], runs: int) -> list[LeakReport]:
    """The detector's reports on `runs` draws."""
    return [find_leak(*draw(np.random.default_rng([11, run])), seed=run) for run in range(runs)]


def mosi() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays of mosi_utterance and the video of each row."""
    with np.load(DATA / "mosi_utterance" / "mosi_utterance_train_cleanvalid.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, np.array([i.rsplit("_", 1)[0] for i in arrays["ids"]])


def real_scenes() -> Iterator[tuple[str, Callable[[np.random.Generator], Rows]]]:
    """Published features whose groups go to two sides at random."""
    arrays, video = mosi()
    train = arrays["split"] == "train"
    yield "CMU-MOSI audio, 77 videos", regroup(arrays["audio"], arrays["label2"], video, 0.7)
    for name, column in (("62 train videos (all touched)", "label2"), ("62 train videos, valence", "valence")):
        yield f"CMU-MOSI text, {name}", regroup(arrays["text"][train], arrays[column][train], video[train], 0.7)
    table = pd.read_csv(DATA / "ravdess_av_features" / "combined_actors01-18.csv")
    x = table.drop(columns=["file", "emotion", "intensity", "actor", "gender"]).to_numpy(float)
    yield "RAVDESS face and voice, 18 actors", regroup(x, table["emotion"].to_numpy(), table["actor"].to_numpy(), 0.5)
    x, label, vad, dialogue = iemocap()
    known = label >= 0
    yield "IEMOCAP audio, 120 dialogues", regroup(x[known], label[known], dialogue[known], 0.7)
    yield "IEMOCAP audio, 120 dialogues, valence and arousal", regroup(x, vad[:, :2], dialogue, 0.7)


def iemocap() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """audio47, label4, valence-arousal-dominance and dialogue of sessions 1 to 4."""
    with np.load(DATA / "iemocap_conv" / "iemocap_utterances_sessions1-4.npz") as file:
        return file["audio47"], file["label4"], file["vad"], np.array([i.rsplit("_", 1)[0] for i in file["utt_id"]])


def published() -> Iterator[tuple[str, Rows]]:
    """Published splits, of features that were made without labels; and CMU-MOSI's, whose text and video did."""
    arrays, video = mosi()
    for stream in ("text", "video", "audio"):
        for target in ("label2", "valence"):
            yield f"CMU-MOSI {stream}, {target}", (arrays[stream], arrays[target], video, arrays["split"] == "train")
    x, label, _, dialogue = iemocap()
    known = label >= 0
    for session in ("Ses01", "Ses02", "Ses03", "Ses04"):
        touched = ~np.char.startswith(dialogue, session)
        yield f"IEMOCAP audio, all but {session} / {session}", (x[known], label[known], dialogue[known], touched[known])
    with np.load(DATA / "mfn_sequences" / "pom_mmmo_youtube_seq20_train_valid.npz") as file:
        for name, streams in (("pom", ("audio", "video")), ("mmmo", ("audio", "video"))):
            for stream in streams:
                parts = [file[f"{name}__{stream}__{split}"].mean(1) for split in ("train", "valid")]
                target = np.concatenate([file[f"{name}__y__{split}"].astype(float) for split in ("train", "valid")])
                x, touched = np.concatenate(parts), np.arange(sum(map(len, parts))) < len(parts[0])
                yield f"{name.upper()} {stream}, train / valid", (x, target, np.arange(len(x)), touched)


def fired(reports: list[LeakReport], margin: float) -> float:
    """Share of the reports whose lower bound lies above the margin."""
    return float(np.mean([r.low > margin for r in reports]))


def line(name: str, reports: list[LeakReport]) -> str:
    """A table row: scene, sizes, mean scores, share flagged at every margin."""
    first = reports[0]
    sizes = f"{first.groups_inside} + {first.groups_outside} | {first.n_inside + first.n_outside:,}"
    scores = " | ".join(f"{np.mean([getattr(r, k) for r in reports]):.3f}" for k in ("inside", "outside"))
    rates = " | ".join(f"{fired(reports, m):.0%}" for m in MARGINS)
    return f"| {name} | {sizes} | {scores} | {rates} | {len(reports)} |"


HEAD = [
    "| scene | groups | rows | inside | outside | " + " | ".join(f"fires at {m:g}" for m in MARGINS) + " | runs |",
    "|---|---|---|---|---|" + "---|" * (len(MARGINS) + 1),
]


def false_alarms(runs: int) -> dict[str, list[LeakReport]]:
    """Reports on the honest scenes, drawn and real."""
    scenes = [(name, scene.draw) for name, scene in HONEST.items()]
    scenes += [("network trained on other groups, 40 epochs", untouched_network(REAL, 40))]
    scenes += real_scenes()
    return {name: repeated(draw, runs if "network" not in name else runs // 2) for name, draw in scenes}


def alarm_rates(honest: dict[str, list[LeakReport]]) -> str:
    """How often honest features are flagged at each margin: what the margin was chosen by."""
    pooled = [r for reports in honest.values() for r in reports]
    rates = [f"{fired(pooled, m):.1%} ({max(fired(r, m) for r in honest.values()):.1%}) at {m:g}" for m in MARGINS]
    share = f"share of {len(pooled):,} runs that fire (worst scene)"
    return f"{share}: {', '.join(rates)}. The margin in use is {MARGIN:g}."


def gaps(runs: int) -> list[str]:
    """Untouched rows that are truly harder: what no detector of this kind can distinguish from a leak."""
    harder = {f"noise of the untouched rows x {h:g}": replace(REAL, harder=h, signal=3) for h in (1.1, 1.25, 1.5)}
    return [*HEAD, *(line(name, repeated(scene.draw, runs)) for name, scene in harder.items())]


def power(runs: int) -> list[str]:
    """Table of the planted leaks."""
    rows = list(HEAD)
    for groups, size in (((20, 20), 15), ((62, 15), 25), ((60, 60), 15)):
        for dim, strength in ((20, 2.0), (100, 1.0), (100, 2.0), (100, 3.0), (768, 3.0)):
            scene = replace(REAL, groups=groups, rows=size, dim=dim)
            rows.append(line(f"direction x {strength:g}, {dim} dimensions", repeated(direct(scene, strength), runs)))
        for epochs in (3, 10, 40):
            scene = replace(REAL, groups=groups, rows=size)
            rows.append(line(f"network, {epochs} epochs", repeated(network(scene, epochs), runs // 2)))
    return rows


def page(runs: int) -> str:
    """The page, from a fresh measurement."""
    started = time.process_time()
    checked = [(name, find_leak(*rows)) for name, rows in published()]
    each = (time.process_time() - started) / len(checked)
    honest = false_alarms(runs)
    text = [
        "# Leak detector: power and false alarms",
        "",
        f"`python benchmarks/leak_power.py --runs {runs}`. A linear probe is cross-validated ({FOLDS} folds by "
        f"group, {DRAWS} draws) "
        "inside the touched groups and inside the untouched ones, with as many training groups, rows and rows per "
        "class. It fires where "
        "the lower bound of the 95 % interval of the difference (Student's t, jackknife over the groups of either "
        f"side) lies above the margin, {MARGIN:g}. "
        "Scores are UAR for classes, Pearson's r for values.",
        "",
        "## Published splits",
        "",
        "CMU-MOSI's text and video features were learned with the labels of the train videos; its audio and all "
        "other rows without any.",
        "",
        "| features | groups | rows | inside | outside | difference | leak |",
        "|---|---|---|---|---|---|---|",
    ]
    text += [
        f"| {name} | {r.groups_inside} + {r.groups_outside} | {r.n_inside + r.n_outside:,} | {r.inside:.3f} | "
        f"{r.outside:.3f} | "
        f"{r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}] | {'**yes**' if r.flagged else 'no'} |"
        for name, r in checked
    ]
    text += [
        "",
        f"{each:.2f} s of processor time per check.",
        "",
        "## False alarms",
        "",
        f"No leak in any scene; {alarm_rates(honest)} Real features: their groups go to the two sides at "
        "random. Generated ones: "
        "means of four classes in 100 dimensions, 15 rows a group, unless the row states otherwise.",
        "",
        *HEAD,
        *(line(name, reports) for name, reports in honest.items()),
        "",
        "## Planted leaks",
        "",
        "In the scene with every nuisance. Direction: touched rows are moved along a direction of their class by so "
        "many standard "
        "deviations of the noise. Network: the features are the hidden units of a network that was trained on the "
        "touched rows for so many epochs.",
        "",
        *power(runs // 2),
        "",
        "## What it cannot distinguish",
        "",
        "An untouched side that is truly harder looks like a leak, once the difference is certainly above the "
        "margin; a leak too small "
        "to raise the score by more than the margin is not reported.",
        "",
        *gaps(runs // 2),
    ]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=40)
    given = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no development data in {DATA}: set AFFUSE_SHARED")
    target = ROOT / "docs" / "results" / "leaks.md"
    io.write_text(target, page(given.runs))
    print(target)
