"""Extraction: the same store however it was made, and what goes wrong stays with its utterance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from tests.core import dying

from affuse.cli.app import main
from affuse.core import io
from affuse.core.errors import BadCorpus, BadFeatures, StorageError
from affuse.core.types import Feature, StreamSpec
from affuse.corpora.extraction import in_processes, shards
from affuse.corpora.extraction.clips import clips_of
from affuse.corpora.extraction.extract import extract
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.stores.store import FeatureStore
from affuse.training.data import Dataset

N = 3 * shards.MOST + 8


def make_corpus(path: Path, n: int = N, ids: list[int] | None = None) -> Corpus:
    """Utterances of 0.3 s of noise; number 5 is no sound file."""
    sounds = path.parent / "sounds"
    sounds.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        if (sounds / f"{i}.wav").exists():
            continue
        with wave.open(str(sounds / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((rng.normal(size=4800 + 16 * i) * 3000).astype("<i2").tobytes())
    (sounds / "5.wav").write_bytes(b"not a sound")
    rows = [{"id": f"u{i:03d}", "audio": str(sounds / f"{i}.wav"), "label": "sad"} for i in ids or range(n)]
    return write_corpus(path, rows, "noise", "ekman-7")


def content(store: FeatureStore) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(store.path.iterdir())}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[Corpus, dict[str, bytes]]:
    corpus = make_corpus(tmp_path_factory.mktemp("reference") / "corpus")
    done = extract(corpus, "log_mel")
    assert list(done.failures) == ["u005"]
    assert done.added == len(done.store) == N - 1
    return corpus, content(done.store)


def fresh(reference, tmp_path) -> Corpus:
    """The reference's corpus in another folder, its media where they were."""
    return write_corpus(tmp_path / "corpus", reference[0].table, "noise", "ekman-7")


def command(corpus: Corpus, *more: str) -> list[str]:
    return [sys.executable, "-m", "affuse", "extract", str(corpus.path), "log_mel", "--quiet", *more]


@pytest.mark.parametrize(("workers", "written"), [("0", 1), ("1", 2), ("2", 1)])
def test_killed_and_restarted_it_is_bit_identical(reference, tmp_path, workers, written):
    corpus = fresh(reference, tmp_path)
    path = corpus.store_path("log_mel")
    first = subprocess.Popen(command(corpus, "--workers", workers), start_new_session=True)
    while len(list(path.glob("shard-*"))) < written and first.poll() is None:
        time.sleep(0.002)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    (path / ".aside-left.safetensors").write_bytes(b"half a shard")
    assert not (path / "manifest.json").exists(), "it was over before it could be killed"
    again = subprocess.run(command(corpus, "--workers", workers), check=False, capture_output=True)
    assert again.returncode == 1, again.stderr
    assert content(FeatureStore(path)) == reference[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_make_the_same_store(reference, tmp_path, workers):
    assert content(extract(fresh(reference, tmp_path), "log_mel", workers=workers).store) == reference[1]


def test_a_ray_cluster_makes_the_same_store(reference, tmp_path):
    pytest.importorskip("ray")
    corpus = fresh(reference, tmp_path)
    subprocess.run(command(corpus, "--on", "ray", "--workers", "2"), check=False, timeout=300)
    assert content(FeatureStore(corpus.store_path("log_mel"))) == reference[1]


def test_a_complete_store_is_left_alone_and_failures_are_tried_again(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", 8)
    store = extract(corpus, "log_mel").store
    stamp = (store.path / "card.json").stat().st_mtime_ns
    assert list(extract(corpus, "log_mel").failures) == ["u005"]
    assert (store.path / "card.json").stat().st_mtime_ns == stamp
    (tmp_path / "sounds" / "5.wav").write_bytes((tmp_path / "sounds" / "6.wav").read_bytes())
    done = extract(corpus, "log_mel")
    assert (done.added, done.failures, done.store.ids) == (1, {}, [f"u{i:03d}" for i in range(8)])


def test_a_changed_corpus_keeps_what_it_has(reference, tmp_path, monkeypatch):
    before = fresh(reference, tmp_path)
    extract(before, "log_mel")
    rows = before.table[before.table["id"] != "u001"].iloc[::-1]
    changed = write_corpus(before.path, rows, "noise", "ekman-7")
    asked: list[str] = []
    outcomes = shards.outcomes
    monkeypatch.setattr(shards, "outcomes", lambda e, clips: (asked.extend(i for i, _ in clips), outcomes(e, clips))[1])
    done = extract(changed, "log_mel")
    assert asked == ["u005"]
    assert sorted(done.store.ids) == sorted(i for i in rows["id"] if i != "u005")
    again = write_corpus(tmp_path / "other", rows, "noise", "ekman-7")
    assert content(extract(again, "log_mel").store) == content(done.store)


def test_a_crash_is_one_failed_utterance(tmp_path, monkeypatch):
    for name, stand_in in (("_work", dying.work), ("_try", dying.attempt), ("_start_worker", dying.begin_extractor)):
        monkeypatch.setattr(in_processes, name, stand_in)
    done = extract(make_corpus(tmp_path / "corpus", 8), "log_mel", workers=1)
    assert set(done.failures) == {"u003", "u005"}
    assert "died" in done.failures["u003"]["message"]
    assert len(done.store) == 6


def test_clips_that_only_die_together_are_failures_too(tmp_path, monkeypatch):
    monkeypatch.setattr(
        in_processes,
        "spread",
        lambda work, items, *rest: iter((i, None if work is in_processes._work else True) for i in items),
    )
    done = extract(make_corpus(tmp_path / "corpus", 3), "log_mel", workers=1)
    assert set(done.failures) == {"u000", "u001", "u002"}


def test_two_at_once_and_other_parameters_are_refused(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", 8)
    extract(corpus, "log_mel")
    with io.exclusive(corpus.store_path("log_mel"), "test"), pytest.raises(StorageError, match="in use"):
        extract(corpus, "log_mel")
    with pytest.raises(BadFeatures, match="anew"):
        extract(corpus, "log_mel", {"n_mels": 40})


def rows(tmp_path: Path, **columns: object) -> Corpus:
    return write_corpus(
        tmp_path / "c", [{"id": "a", "text": "hello you", "label": "sad", **columns}], "words", "ekman-7"
    )


@pytest.mark.parametrize(("crop", "taken"), [("left", "left"), (np.nan, ""), ("face", "")])
def test_only_left_and_right_are_halves_of_the_picture(tmp_path, crop, taken):
    ((_, clip),) = clips_of(rows(tmp_path, crop=crop))
    assert clip.crop == taken


@pytest.mark.parametrize(("times", "taken"), [([[0, 1], [1, 2]], ((0.0, 1.0), (1.0, 2.0))), (np.nan, ())])
def test_word_times_of_a_row(tmp_path, times, taken):
    ((_, clip),) = clips_of(rows(tmp_path, word_times=times))
    assert clip.word_times == taken


def test_word_times_that_are_text_are_named(tmp_path):
    with pytest.raises(BadCorpus, match="utterance 'a' has word_times"):
        clips_of(rows(tmp_path, word_times="[[0, 1], [1, 2]]"))


class Strange:
    """An extractor whose second clip has no finite number."""

    spec = StreamSpec("strange", "text", (1,))

    def __call__(self, clip: str) -> Feature:
        return Feature(np.full((1, 1), np.nan if clip == "b" else 1.0, np.float32))

    def many(self, clips: list[str]) -> list[Feature]:
        return [self(clip) for clip in clips]


def test_what_is_not_finite_is_a_failure_of_its_own_clip_also_among_many():
    found = dict(shards.outcomes(Strange(), [(name, name) for name in "abc"]))
    assert isinstance(found["a"], Feature)
    assert isinstance(found["c"], Feature)
    assert "not finite" in found["b"]["message"]


def silent(tmp_path: Path, heard: int) -> Corpus:
    """Four utterances: `heard` with sound, the others with words only."""
    make_corpus(tmp_path / "noise", 4)
    rows = [
        {
            "id": f"u{i}",
            "text": "hello",
            "label": "sad",
            "audio": str(tmp_path / "sounds" / f"{i}.wav") if i < heard else "",
        }
        for i in range(4)
    ]
    return write_corpus(tmp_path / "c", rows, "words", "ekman-7")


def test_utterances_of_which_nothing_is_usable_are_counted(tmp_path, capsys):
    corpus = silent(tmp_path, 3)
    assert extract(corpus, "log_mel").unusable == ("u3",)
    assert main(["extract", str(corpus.path), "log_mel"]) == 0
    assert "1 of 4 utterances have no sound for log_mel: u3" in capsys.readouterr().err


def test_an_extraction_in_which_nothing_is_usable_fails(tmp_path, capsys):
    corpus = silent(tmp_path, 0)
    for _ in range(2):  # also where the store is complete
        assert main(["extract", str(corpus.path), "log_mel", "--workers", "0"]) == 1
        assert "none of the 4 utterances has any sound" in capsys.readouterr().err


def test_a_run_on_nothing_usable_is_refused(tmp_path):
    store = extract(silent(tmp_path, 0), "log_mel").store
    corpus = Corpus.open(tmp_path / "c")
    with pytest.raises(BadFeatures, match="log_mel"):
        Dataset(corpus.table, {"log_mel": store}, {"emotion": "label"}, {"emotion": corpus.space})
    (tmp_path / "other").mkdir()
    some = silent(tmp_path / "other", 1)
    stores = {"log_mel": extract(some, "log_mel").store}
    assert len(Dataset(some.table, stores, {"emotion": "label"}, {"emotion": some.space})) == 4


def test_a_store_of_half_precision_has_half_the_bytes_and_goes_on_as_it_was_begun(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", 8)
    whole = extract(corpus, "log_mel", {"name": "log_mel"}).store
    command = ["extract", str(corpus.path), "half", "name=log_mel", "--quiet", "--workers", "0"]
    assert main([*command, "--half"]) == 1  # number 5 is no sound file
    half = FeatureStore(corpus.store_path("half"))
    assert half["u000"].values.dtype == np.float16
    np.testing.assert_allclose(half["u000"].values, whole["u000"].values, rtol=1e-3)
    sizes = [sum(p.stat().st_size for p in s.path.glob("shard-*")) for s in (half, whole)]
    assert sizes[0] < 0.55 * sizes[1]
    assert half.hash != whole.hash
    next(half.path.glob("shard-*")).unlink()
    assert main(command) == 1  # without --half: what is there stays what it is
    assert FeatureStore(corpus.store_path("half"))["u000"].values.dtype == np.float16
    with pytest.raises(BadFeatures, match="full precision"):
        extract(corpus, "log_mel", half=True)


def test_half_precision_keeps_ids_and_ends_at_its_range():
    ids = shards.halved(Feature(np.array([70000, 3], np.int32)))
    assert ids.values.dtype == np.int32 and ids.values[0] == 70000
    assert shards.halved(Feature(np.array([1e6, -1e6], np.float32))).values.tolist() == [65504, -65504]
