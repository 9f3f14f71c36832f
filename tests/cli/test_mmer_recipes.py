"""The recipes of MMER on miniature releases of IEMOCAP and CMU-MOSEI, by the commands of their head comments."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from tests.corpora.sentiment_releases import csd
from tests.corpora.test_iemocap import release
from tests.tiny_albert import save_tiny_albert

from affuse.cli.app import main
from affuse.core import io
from affuse.core.labels import SPACES
from affuse.core.tasks import Task, with_kind
from affuse.corpora.manifest import Corpus
from affuse.corpora.synthesis import face, voice
from affuse.corpora.synthetic import make_synthetic
from affuse.media.write import write_wav
from affuse.stores.store import FeatureStore

FPS, SECONDS = 5, 1.0  # of an utterance
FELT = {"neu": "neutral", "hap": "happy", "sad": "sad", "ang": "angry", "exc": "happy", "fru": "angry"}
MARKERS, OTHER = face.Face(skin=(244.0, 208.0, 188.0)), face.Face(skin=(140.0, 98.0, 72.0))
AWAY, UNSAID = "Ses03F_impro01_F004", "Ses02M_impro01_M001"  # the speaker's half shows nobody; no transcript
UNHEARD = "video1"  # of its first segment there is no transcript
EMOTIONS = with_kind(SPACES["mosei-6"], "multilabel", "emotion")
SMALL = [
    "train.epochs=2",
    "train.batch_size=16",
    "streams.waveform.encoder.dim=16",
    "streams.face_crops.encoder.channels=[8, 8, 8, 16]",
]
FUSED = [*SMALL, "streams.waveform.encoder.channels=[6, 8]", "fusion.dim=16"]
PUBLISHED = [
    *SMALL,
    "streams.waveform.encoder.channels=[6, 6, 8, 12, 16]",
    "streams.waveform.encoder.layers=1",
    "streams.face_crops.encoder.layers=1",
]


def run(*command: object) -> None:
    quiet = () if command[0] == "import" else ("--quiet",)
    assert main([*map(str, command), *quiet]) == 0


@pytest.fixture(scope="module")
def albert(tmp_path_factory) -> list[str]:
    """The overrides that put a tiny random ALBERT in the place of the recipes'."""
    folder = save_tiny_albert(tmp_path_factory.mktemp("albert"))
    return [f"streams.tokens.{part}.model={folder}" for part in ("extractor", "encoder")]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    """Eight talking faces of two utterances' length."""
    folder = tmp_path_factory.mktemp("clips")
    corpus = make_synthetic(folder, conversations=8, utterances=1, speakers=16, seconds=2 * SECONDS, fps=FPS)
    return [corpus.path / video for video in corpus.table["video"]]


def stores(corpus: Corpus) -> dict[str, FeatureStore]:
    return {name: FeatureStore(corpus.store_path(name)) for name in corpus.stores()}


def present(store: FeatureStore) -> set[str]:
    """The utterances that have a valid step."""
    found = {name: store.get(name) for name in store.ids}
    return {name for name, f in found.items() if (len(f.values) if f.valid is None else f.valid.any())}


def answers(model: Path, clip: Path, capsys) -> dict:
    """The one segment of a clip that has a line of subtitles beside it; it answers from all three modalities."""
    clip.with_suffix(".srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nGood day!\n")
    capsys.readouterr()
    assert main(["analyze", str(clip), "--model", str(model), "--format", "json", "--quiet"]) == 0
    (segment,) = json.loads(capsys.readouterr().out)["segments"]
    assert all(segment["modalities"][m]["present"] for m in ("audio", "vision", "text"))
    return segment


# ---- IEMOCAP: two people side by side in one avi, their sound in one wav -------------------------------------------


def dialogues() -> dict[str, list[tuple]]:
    """Five sessions of one dialogue: six turns of F and M one after the other, an emotion each."""
    return {
        (name := f"Ses0{s}{'MF'[s % 2]}_impro01"): [
            (
                f"{who}00{k}", k * SECONDS, (k + 1) * SECONDS, list(FELT)[(k + s) % 6], (3.0, 3.0, 3.0), [],
                "" if f"{name}_{who}00{k}" == UNSAID else ("Good day!", "Bad night!")[k % 2],
            )
            for k, who in enumerate("FMFMFM")
        ]
        for s in range(1, 6)
    }  # fmt: skip


def played(dialogue: str, turns: list[tuple]) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures [224, 448, 3], on the left who wears the markers, and the sound of a dialogue."""
    rng, pictures, sounds = np.random.default_rng(int(dialogue[4])), [], []
    for turn, _, _, code, *_ in turns:
        sound, mouth = voice.speak(voice.Voice(), {FELT[code]: 1.0}, SECONDS, FPS, rng)
        left = turn[0] == dialogue[5]
        speaker = list(face.frames(MARKERS if left else OTHER, {FELT[code]: 1.0}, mouth, FPS, rng))
        listener = list(face.frames(OTHER if left else MARKERS, {"neutral": 1.0}, 0 * mouth, FPS, rng))
        if f"{dialogue}_{turn}" == AWAY:
            speaker = [face.scene(MARKERS)] * len(mouth)
        pictures += [np.hstack(both if left else both[::-1]) for both in zip(speaker, listener, strict=True)]
        sounds.append(sound)
    return pictures, np.concatenate(sounds)


def write_avi(path: Path, pictures: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def iemocap(tmp_path_factory) -> Path:
    """The folder of a miniature IEMOCAP_full_release, and the random split of MME2E."""
    turns = dialogues()
    src = release(tmp_path_factory.mktemp("iemocap"), turns, sentences=False, dialogues=False, pictures=False)
    for name, said in turns.items():
        folder = src / "IEMOCAP_full_release" / f"Session{name[4]}" / "dialog"
        pictures, sound = played(name, said)
        write_avi(folder / "avi" / "DivX" / f"{name}.avi", pictures)
        write_wav(folder / "wav" / f"{name}.wav", sound, voice.RATE)
    labelled = [f"{name}_{turn[0]}" for name, said in turns.items() for turn in said if turn[3] != "fru"]
    for split, chosen in {"train": labelled[::2], "valid": labelled[1::4], "test": labelled[3::4]}.items():
        (src / f"{split}_split.txt").write_text("\n".join(chosen))
    return src


def test_iemocap(iemocap, clips, albert, tmp_path, capsys):
    path, out = tmp_path / "corpus", tmp_path / "run"
    run("import", "iemocap", iemocap, path, "--partial")
    run("train", "mmer-iemocap", *FUSED, *albert, "--corpus", path, "--folds", 5, "--out", out)
    found = io.read_json(out / "evaluation.json")
    assert found["n"] == 25 and {"uar", "accuracy"} <= set(found["metrics"])  # five of the thirty are frustrated
    splits = [io.read_table(p).groupby("split")["source"].nunique().to_dict() for p in out.glob("fold*/split.parquet")]
    assert splits == [{"test": 1, "train": 3, "valid": 1}] * 5
    corpus = Corpus.open(path)
    there = {name: present(store) for name, store in stores(corpus).items()}
    everyone = set(corpus.table["id"])
    assert there == {"waveform": everyone, "face_crops": everyone - {AWAY}, "tokens": everyone - {UNSAID}}
    crops, half = stores(corpus)["face_crops"], corpus.table.set_index("id")["crop"]
    light = {name: crops.get(name).values.mean() for name in there["face_crops"]}
    assert min(v for n, v in light.items() if half[n] == "left") > max(
        v for n, v in light.items() if half[n] == "right"
    )
    assert set(answers(out, clips[0], capsys)["probabilities"]) == set(SPACES["iemocap-4"].labels)


def test_the_published_settings(iemocap, clips, albert, tmp_path, capsys):
    corpus, out = tmp_path / "corpus", tmp_path / "run"
    run("import", "iemocap", iemocap, corpus, "--partial", "split=mme2e")
    run("train", "mmer-original", *PUBLISHED, *albert, "--corpus", corpus, "--out", out)
    found = io.read_json(out / "evaluation.json")
    assert found["n"] == 6 and {"macro_f1", "accuracy"} <= set(found["metrics"])
    assert io.read_json(out / "run.json")["selection"]["metric"] == "macro_f1"
    assert set(answers(out, clips[0], capsys)["probabilities"]) == set(SPACES["iemocap-4"].labels)


# ---- CMU-MOSEI: labels and folds of the SDK, recordings and transcripts of the raw archive -------------------------


@pytest.fixture(scope="module")
def mosei(tmp_path_factory, clips) -> Path:
    """A miniature release: eight recordings of two segments, labelled last one first; one segment has no emotion."""
    pytest.importorskip("h5py")
    src, rng = tmp_path_factory.mktemp("mosei"), np.random.default_rng(3)
    videos, said = src / "Raw" / "Videos" / "Full" / "Combined", src / "Raw" / "Transcript" / "Segmented" / "Combined"
    videos.mkdir(parents=True)
    said.mkdir(parents=True)
    names, labels = [f"video{k}" for k in range(len(clips))], {}
    for name, clip in zip(names, clips, strict=True):
        values = np.hstack([rng.uniform(-3, 3, (2, 1)), rng.integers(0, 2, (2, 6)) * 2 / 3])
        labels[name] = (values.astype(np.float32), [[SECONDS, 2 * SECONDS], [0.0, SECONDS]])
        (videos / f"{name}.mp4").symlink_to(clip)
        lines = [f"{name}___{4 + k}___{k * SECONDS}___{(k + 1) * SECONDS}___ Good day" for k in range(2)]
        (said / f"{name}.txt").write_text("\n".join(lines[name == UNHEARD :]) + "\n")
    labels[names[0]][0][0, 1:] = 0
    csd(src / "labels" / "CMU_MOSEI_Labels.csd", "All Labels", labels)
    folds = {"train": names[:4], "valid": names[4:6], "test": names[6:]}
    (src / "cmu_mosei_std_folds.py").write_text("".join(f"standard_{s}_fold={v}\n" for s, v in folds.items()))
    return src


def thresholds(predictions: Path) -> np.ndarray:
    """Those with the best F1 on a run's predictions."""
    rows = io.read_table(predictions).query("full")
    found = rows[[f"p:{label}" for label in EMOTIONS.labels]].to_numpy()
    return np.array(Task("emotion", EMOTIONS).with_thresholds(np.stack(rows["truth"]), found).thresholds)


def test_mosei(mosei, clips, albert, tmp_path, capsys):
    path, out = tmp_path / "corpus", tmp_path / "run"
    run("import", "cmu_mosei", mosei, path, "--partial")
    run("train", "mmer-mosei", *FUSED, *albert, "--corpus", path, "--out", out)
    corpus = Corpus.open(path)
    everyone = set(corpus.table["id"])
    there = {name: present(store) for name, store in stores(corpus).items()}
    assert len(everyone) == 16 and there == {
        "waveform": everyone,
        "face_crops": everyone,
        "tokens": everyone - {f"{UNHEARD}[1]"},
    }
    assert io.read_json(out / "run.json")["n"] == {"train": 8, "valid": 4, "test": 4}
    found = io.read_json(out / "evaluation.json")
    assert found["n"] == 4 and {"label_f1", "label_weighted_accuracy"} <= set(found["metrics"])
    beside = found["tasks"]["sentiment"]
    assert beside["n"] == 4 and {"mae", "pearson", "acc7", "acc2_nonzero"} <= set(beside["metrics"])
    run("evaluate", out, "--corpus", path, "--split", "valid")
    used = [label["threshold"] for label in found["per_class"]]
    assert np.allclose(used, thresholds(out / "predictions-valid.parquet"), atol=1e-5)
    assert not np.allclose(used, thresholds(out / "predictions.parquet"), atol=1e-3)
    segment = answers(out, clips[0], capsys)
    assert set(segment["probabilities"]) == set(EMOTIONS.labels) and -3 <= sentiment(segment) <= 3


def sentiment(segment: dict) -> float:
    return segment["answers"]["sentiment"]["probabilities"]["sentiment"]
