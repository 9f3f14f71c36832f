"""affuse-base: three experts, trained apart on the development data, calibrated and joined.

python benchmarks/affuse_base.py [--out runs/base] [--table]

Makes the corpora, trains what is not complete yet (about three hours on two cores), writes the model below
src/affuse/pretrained/affuse-base and its card, docs/affuse-base.md. `--table` writes both from the run folders alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from results import DATA, ROOT, affuse, write_composite_faces

from affuse.core import io
from affuse.core.labels import SPACES
from affuse.core.parts import Part
from affuse.core.tasks import Task
from affuse.corpora.emodb import import_emodb
from affuse.corpora.emorynlp import import_emorynlp
from affuse.corpora.extraction.extract import extract
from affuse.corpora.fer2013 import import_fer2013
from affuse.corpora.manifest import Corpus, make_splits, write_corpus
from affuse.corpora.meld import import_meld
from affuse.corpora.ravdess import import_ravdess
from affuse.corpora.table import import_table
from affuse.evaluation.calibration import calibration_error, cross_fitted, equal_mass_bins, fit_temperature
from affuse.evaluation.intervals import estimate, paired_difference
from affuse.features.extractor import make_extractor
from affuse.models.build import Architecture
from affuse.models.model import Model
from affuse.models.predict import predict
from affuse.models.saved import describe
from affuse.reporting.plots import Bin, reliability
from affuse.training.data import Dataset, open_stores
from affuse.training.run_folder import open_run, run_model, split_of

SPACE = "ekman-7"
TASKS = {"emotion": Task("emotion", SPACES[SPACE])}
BASE = ROOT / "src" / "affuse" / "pretrained" / "affuse-base"
PAGE = ROOT / "docs" / "affuse-base.md"
# The expert of every stream of affuse-base, the stream's name in that expert's run, and the usable steps (80 ms of
# sound, pictures) at which it counts half.
STREAMS = {
    "waveform": ("audio", "waveform", 4.0),
    "functionals": ("audio", "functionals", 0.0),
    "face_crops": ("vision", "faces", 0.5),
    "text": ("text", "text", 0.0),
}
EXTRACTORS: dict[str, dict[str, Any]] = {
    "waveform": {},
    "functionals": {"relative": True},
    "face_crops": {"margin": 0.0},
    "text": {"layers": (2, 4, 6)},
}
SHARED = 0.4  # how much the experts only repeat each other; of 0, 0.2, ... 1 the likeliest on the composite clips
RULES = {"voice": True, "language": "en", "least": 0.25}


def audio_corpus(out: Path, data: Path = DATA) -> Corpus:
    """RAVDESS and EmoDB in ekman-7 (calm becomes neutral, boredom is left out), to part by speaker."""
    parts = []
    for name, release, read in (("ravdess", "ravdess_speech/opus", import_ravdess), ("emodb", "emodb", import_emodb)):
        corpus = read(data / release, out.with_name(f"{out.name}-{name}"), partial=True)
        table = corpus.table.replace({"label": {"calm": "neutral"}})
        table = table[table["label"].isin(SPACES[SPACE].labels)]
        named = {c: f"{name}_" + table[c] for c in ("id", "speaker", "source")}
        parts.append(table.assign(**named, audio=[str((corpus.path / a).resolve()) for a in table["audio"]]))
    return write_corpus(out, pd.concat(parts, ignore_index=True), "audio-expert", SPACE)


def text_corpus(out: Path, held_out: float = 0.0, emorynlp: bool = False, data: Path = DATA) -> Corpus:
    """MELD's words in ekman-7: its train split to train on, its dev split as `test`, reported and never selected on.

    `held_out`: the share of the train split, whole dialogues, that becomes `valid` to select on. `emorynlp` adds the
    train split of EmoryNLP (peaceful and powerful left out), less the episodes that are scored: both are made from the
    same series.
    """
    meld = import_meld(data / "meld_text" / "MELD", out.with_name(f"{out.name}-meld"), partial=True).table
    table = meld[meld["split"] != "test"].copy()
    table["split"] = table["split"].replace({"valid": "test"})
    (table["split"],) = make_splits(table, "conversation", held_out, 0.0, None, 0)
    if emorynlp:
        table = pd.concat([table, _emorynlp(out, data, table)], ignore_index=True)
    table["text"] = [straight(text) for text in table["text"]]
    # Intervals resample whole sources: here the dialogue, by which MELD is split; the episode is kept as well.
    table = table.assign(episode=table["source"], source=table["conversation"])
    return write_corpus(out, table, "text-expert", SPACE, language="en")


def _emorynlp(out: Path, data: Path, table: pd.DataFrame) -> pd.DataFrame:
    """EmoryNLP's training utterances of the seven emotions, without the episodes that `table` is scored on."""
    other = import_emorynlp(data / "meld_text" / "emorynlp", out.with_name(f"{out.name}-emorynlp"), partial=True).table
    scored = set(table.loc[table["split"] != "train", "source"])
    keep = (other["split"] == "train") & other["label"].isin(SPACES[SPACE].labels) & ~other["source"].isin(scored)
    return other[np.asarray(keep)]


def straight(text: str) -> str:
    """Text with straight quotes, as transcripts of speech are written."""
    return text.translate(str.maketrans("‘’“”", "''\"\""))


def vision_corpus(out: Path, data: Path = DATA) -> Corpus:
    """FER2013 less the faces of the composite clips, on which the joined model is scored."""
    without = write_composite_faces(out.with_name("without.txt"), data)
    return import_fer2013(data / "fer2013", out, partial=True, without=without)


def composite_corpus(out: Path, data: Path = DATA) -> Corpus:
    """A real voice with a real face of the same emotion (artificial pairing): 234 clips by 18 actors."""
    table = pd.read_csv(data / "composite_av" / "labels.csv")
    rows = {"id": [Path(p).stem for p in table["path"]], "video": table["path"], "label": table["emotion"]}
    csv = out.with_suffix(".csv")
    pd.DataFrame(rows | {"speaker": [f"ravdess_actor{a:02d}" for a in table["actor"]]}).to_csv(csv, index=False)
    return import_table(csv, out, root=data / "composite_av", space=SPACE, name="composite-av")


def train_all(out: Path) -> None:
    """Every corpus, store and run that is not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Path], Corpus]] = {
        "audio": audio_corpus,
        "vision": vision_corpus,
        "text": text_corpus,
        "composite": composite_corpus,
    }
    stores = {
        "audio": ["waveform", "functionals"],
        "text": ["text"],
        "composite": ["waveform", "functionals", "face_crops"],
    }
    for name, make in makers.items():
        corpus = out / f"{name}-corpus"
        if not (corpus / "corpus.json").is_file():
            make(corpus)
        for store in stores.get(name, []):
            extract(Corpus.open(corpus), store, EXTRACTORS[store])
    # A run goes on where it stopped, and nothing is done where it is complete.
    for recipe, run, *more in (
        ("audio", "audio-cv", "--folds", 5),
        ("audio", "audio-run", "split.test=0.0"),
        ("vision", "vision-run"),
        ("text", "text-run"),
    ):
        corpus = out / f"{recipe}-corpus"
        options = ("--corpus", corpus, "--out", out / run, "--threads", 1, "--quiet", "--no-score")
        affuse("train", f"{recipe}-expert", *more, *options)


def members(run: Path, fold: int = 0) -> list[Model]:
    """The models of a run, or of one of its folds: an expert is all of them."""
    return [run_model(folder) for folder in open_run(run)[2][fold]]


def held_out(out: Path) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Per expert (log-probabilities [N, 7], truth [N], groups [N]) of what it was not trained on."""
    found = {}
    for name, run, streams, split, group in (
        ("audio", "audio-cv", ("waveform", "functionals"), "test", "source"),
        ("vision", "vision-run", ("faces",), "valid", "id"),
        ("text", "text-run", ("text",), "test", "source"),
    ):
        corpus, folds = Corpus.open(out / f"{name}-corpus"), open_run(out / run)[2]
        stores = open_stores(corpus, dict.fromkeys(streams, (0.0, "mean")))
        parts = []
        for k, folders in enumerate(folds):
            table = corpus.table[split_of(folders[0], corpus) == split].reset_index(drop=True)
            data = Dataset(table, stores, {"emotion": "label"}, TASKS)
            logits = log_probabilities(members(out / run, k), data)
            parts.append((logits, data.labels("emotion")[0].numpy(), table[group].to_numpy()))
        logits, truth, groups = (np.concatenate(part) for part in zip(*parts, strict=True))
        found[name] = (logits, truth, groups)
    return found


def log_probabilities(models: Sequence[Model], data: Dataset) -> np.ndarray:
    """Log-probabilities [N, 7] of an expert's models together, as `join` puts them: the mean of their logits."""
    order = [models[0].tasks["emotion"].space.labels.index(label) for label in SPACES[SPACE].labels]
    each = [np.log(predict(model, data, torch.device("cpu"))["emotion"][:, order] + 1e-9) for model in models]
    mean = np.mean(each, axis=0)
    return np.asarray(mean - np.logaddexp.reduce(mean, axis=1, keepdims=True))


def join(
    experts: Mapping[str, Sequence[Model]], temperature: Mapping[str, float], reliable: Mapping[str, float]
) -> Model:
    """The experts given, each one or several models, as one model by calibrated late fusion."""
    specs, parts, state = [], {}, {}
    streams = {name: row for name, row in STREAMS.items() if row[0] in experts}
    for name, (kind, source, _) in streams.items():
        donors = experts[kind]
        specs.append(make_extractor(name, EXTRACTORS[name]).spec)
        part = donors[0].parts.streams[source]
        several = len(donors) > 1
        parts[name] = Part("ensemble", {"members": len(donors), "of": part.to_dict()}) if several else part
        order = [donors[0].tasks["emotion"].space.labels.index(label) for label in SPACES[SPACE].labels]
        for k, donor in enumerate(donors):
            prefix = f"encoders.{name}.members.{k}." if several else f"encoders.{name}."
            state |= {prefix + key: value for key, value in donor.encoders[source].state_dict().items()}
        heads: list[Any] = [donor.stream_heads[source]["emotion"] for donor in donors]  # type: ignore[index]
        # One head on the members' vectors side by side, whose answer is the mean of theirs.
        state[f"stream_heads.{name}.emotion.weight"] = torch.cat([h.weight[order] for h in heads], 1) / len(donors)
        state[f"stream_heads.{name}.emotion.bias"] = torch.stack([h.bias[order] for h in heads]).mean(0)
    fusion = {
        "temperature": {s: temperature[kind] for s, (kind, _, _) in streams.items()},
        "reliability": {s: reliable[kind] for s, (kind, _, _) in streams.items()},
        "halfway": {s: half for s, (_, _, half) in streams.items() if half},
        "groups": {s: kind for s, (kind, _, _) in streams.items()},
        "shared": SHARED,
    }
    model = Model(Architecture(parts, Part("experts", fusion)), specs, TASKS)
    model.load_state_dict(state)
    return model.eval()


def calibrate(found: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """Per expert its temperature, scores with intervals, and calibration error before and after (cross-fitted)."""
    rows = {}
    for name, (logits, truth, groups) in found.items():
        after = cross_fitted(logits, truth, groups)
        error = {"before": calibration_error(np.exp(logits), truth), "after": calibration_error(after, truth)}
        scores = {m: vars(estimate(m, truth, np.exp(logits), groups)) for m in ("uar", "accuracy", "weighted_f1")}
        rows[name] = {
            "temperature": fit_temperature(logits, truth),
            "scores": scores,
            "calibration_error": error,
            "bins": equal_mass_bins(after, truth),
            "n": len(truth),
        }
    return rows


def voices(logits: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """UAR of the audio expert on each of its corpora, which the names of its groups begin with."""
    corpus = np.array([str(group).partition("_")[0] for group in groups])
    own = {name: corpus == name for name in ("ravdess", "emodb")}
    return {name: vars(estimate("uar", truth[at], np.exp(logits[at]), groups[at])) for name, at in own.items()}


def composite(out: Path, joined: Mapping[int, Model]) -> dict[str, Any]:
    """Accuracy on the composite clips, each by the fold whose audio expert was trained without its actor."""
    corpus, trained = Corpus.open(out / "composite-corpus"), Corpus.open(out / "audio-corpus")
    splits = [split_of(folders[0], trained) for folders in open_run(out / "audio-cv")[2]]
    unseen = [set(trained.table["source"][split == "test"]) for split in splits]
    found: dict[str, list[np.ndarray]] = {}
    truth, groups = [], []
    for k, model in joined.items():
        table = corpus.table[corpus.table["source"].isin(unseen[k])].reset_index(drop=True)
        stores = open_stores(corpus, dict.fromkeys(("waveform", "functionals", "face_crops"), (0.0, "mean")))
        data = Dataset(table, stores, {"emotion": "label"}, {"emotion": SPACES[SPACE]})
        for subset in (("audio", "vision"), ("audio",), ("vision",)):
            found.setdefault("+".join(subset), []).append(predict(model, data, torch.device("cpu"), subset)["emotion"])
        truth.append(data.labels("emotion")[0].numpy())
        groups.append(table["source"].to_numpy())
    t, g = np.concatenate(truth), np.concatenate(groups)
    p = {name: np.concatenate(parts) for name, parts in found.items()}
    both = p["audio+vision"]
    return {
        "n": len(t),
        "accuracy": {name: vars(estimate("accuracy", t, q, g)) for name, q in p.items()},
        "gain": {m: paired_difference("accuracy", t, [both], [p[m]], g).to_dict() for m in ("audio", "vision")},
        "confidence": {name: float(q.max(1).mean()) for name, q in p.items()},
    }


def trained_on(out: Path) -> list[dict[str, Any]]:
    """What each expert was trained on: its corpora, and values of a column of their manifests (speakers, if known)."""
    audio = Corpus.open(out / "audio-corpus").table
    text = Corpus.open(out / "text-corpus").table
    words = text[text["split"] == "train"]
    whose = audio["speaker"].str.partition("_")
    rows = [("audio", name, "speaker", whose[2][whose[0] == name]) for name in ("ravdess", "emodb")]
    faces = Corpus.open(out / "vision-corpus").table
    rows += [
        ("vision", "fer2013", "split", faces["split"][faces["split"] == "train"]),
        ("text", "meld", "conversation", words["conversation"]),
    ]
    return [
        {"modality": m, "corpus": corpus, "column": column, "values": sorted(set(values)), "utterances": len(values)}
        for m, corpus, column, values in rows
    ]


def build(out: Path) -> None:
    """Write affuse-base and its card from the run folders."""
    found = held_out(out)
    rows = calibrate(found)
    reliable = {name: row["scores"]["uar"]["value"] for name, row in rows.items()}
    # The temperatures were fitted on whole predictions: an expert's usual share of evidence is taken out of them.
    usual = {"audio": 25 / (25 + STREAMS["waveform"][2]), "vision": 1 / (1 + STREAMS["face_crops"][2]), "text": 1.0}
    temperature = {name: row["temperature"] * usual[name] for name, row in rows.items()}
    experts = {name: members(out / f"{name}-run") for name in ("audio", "vision", "text")}
    model = join(experts, temperature, reliable)
    folds = {
        k: join({"audio": members(out / "audio-cv", k), "vision": experts["vision"]}, temperature, reliable)
        for k in range(5)
    }
    card = {
        "name": "affuse-base",
        "summary": "seven emotions from voice, face and words, or any of them: three calibrated experts",
        "source": "affuse; docs/affuse-base.md",
        "licence": "weights for non-commercial use, see docs/affuse-base.md",
        "labels": list(SPACES[SPACE].labels),
        "trained_on": trained_on(out),
        "experts": rows,
        "voices": voices(*found["audio"]),
        "composite": composite(out, folds),
        "parameters": {s: sum(p.numel() for p in model.encoders[s].parameters()) for s in STREAMS},
    }
    described = describe(model) | {"extractors": EXTRACTORS, "typical_seconds": 4.0, "rules": RULES}
    io.write_tensors(BASE / "model.safetensors", model.state_dict())
    io.write_json(BASE / "model.json", described)
    io.write_json(BASE / "card.json", card)
    write_page(card)


def write_page(card: Mapping[str, Any]) -> None:
    """docs/affuse-base.md, every number from the card."""
    head, tail = PAGE.read_text(encoding="utf-8").split(MARK)[::2] if PAGE.is_file() else ("", "")
    lines = [
        "",
        "| expert | scored on | n | UAR | accuracy | weighted F1 | temperature | calibration error before | after |",
        "|" + "---|" * 9,
    ]
    where = {
        "audio": "RAVDESS and EmoDB, 5 folds by speaker, each scored by a model trained without the speaker",
        "vision": "FER2013 validation faces, not trained on",
        "text": "MELD dev dialogues, not trained on",
    }
    for name, row in card["experts"].items():
        s, e = row["scores"], row["calibration_error"]
        cells = [name, where[name], f"{row['n']:,}", *(_cell(s[m]) for m in ("uar", "accuracy", "weighted_f1"))]
        cells += [f"{row['temperature']:.2f}", f"{e['before']:.3f}", f"{e['after']:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    each = "; ".join(f"{name} {_cell(score)} ({score['n']:,})" for name, score in card["voices"].items())
    lines += ["", f"The audio expert's UAR by corpus: {each}."]
    c = card["composite"]
    lines += [
        "",
        f"Composite clips (a real voice with a real face of the same emotion, {c['n']} clips; neither the audio",
        "expert, of the fold without the actor, nor the vision expert was trained on them):",
        "",
        "| scored with | accuracy | mean confidence |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {_cell(a)} | {c['confidence'][name]:.2f} |" for name, a in c["accuracy"].items()]
    gains = {m: f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]" for m, d in c["gain"].items()}
    lines += ["", *(f"Both less {m} alone: {gain}, paired." for m, gain in gains.items()), ""]
    for name, row in card["experts"].items():
        drawing = PAGE.with_name(f"affuse-base-{name}.svg")
        svg = reliability([Bin(**b) for b in row["bins"]])
        named = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        io.write_text(drawing, named.replace(">", f"><style>{STYLE}</style>", 1))
        lines.append(f"![Reliability of the {name} expert after calibration, 10 bins of equal mass]({drawing.name})")
    io.write_text(PAGE, head + MARK + "\n".join(lines) + "\n" + MARK + tail)


def _cell(value: Mapping[str, float]) -> str:
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


MARK = "<!-- written by benchmarks/affuse_base.py -->\n"
STYLE = (
    "text{font:12px sans-serif;fill:#555}.grid{stroke:#ddd}.bin{fill:#4a7fb5;opacity:.35}.count{fill:#999}"
    ".ideal{stroke:#888;stroke-dasharray:4}.point{fill:#1f5f99}"
)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/base"))
    parser.add_argument("--table", action="store_true", help="only write the model and its card from complete runs")
    given = parser.parse_args()
    if not given.table:
        train_all(given.out)
    build(given.out)
