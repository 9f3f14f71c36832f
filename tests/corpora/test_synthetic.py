"""The synthetic corpus: reproducible, labelled as synthetic, and every knob does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from affuse.core.errors import BadConfig
from affuse.core.io import file_sha256
from affuse.core.labels import SPACES, space
from affuse.core.types import MODALITIES
from affuse.corpora.manifest import Corpus
from affuse.corpora.synthesis import face, voice
from affuse.corpora.synthesis.text import TEMPLATES, sentence
from affuse.corpora.synthetic import BLENDS, CARD, Signal, _converse, blend, feature_arrays, make_synthetic


def _rows(
    conversations: int = 200, imbalance: float = 1.0, inertia: float = 0.0, contagion: float = 0.0, **more: Any
) -> list[Any]:
    return _converse(space("iemocap-4"), conversations, 10, 20, imbalance, inertia, contagion, 0, **more)


def _repeats(rows: list[Any], lag: int) -> float:
    """Share of turns whose label is that of the turn `lag` before in the same conversation."""
    labels = np.array([r["label"] for r in rows]).reshape(-1, 10)
    return float((labels[:, lag:] == labels[:, :-lag]).mean())


def _accuracy(signal: Signal, cues: float = 0.5) -> float:
    """Test accuracy of logistic regression on `audio_vec` (4 classes, chance 0.25)."""
    rows = _rows(160)
    signals = dict.fromkeys(MODALITIES, signal)
    values = feature_arrays(rows, signals, space("iemocap-4"), cues)["audio_vec"][1]
    labels, split = (np.array([r[k] for r in rows]) for k in ("label", "split"))
    train, test = split == "train", split == "test"
    return float(LogisticRegression(max_iter=500).fit(values[train], labels[train]).score(values[test], labels[test]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("synthetic")
    return make_synthetic(path, conversations=2, utterances=3, speakers=4, seconds=1.0, fps=6, seed=3)


def test_it_says_that_it_is_synthetic(tiny: Corpus) -> None:
    assert CARD["synthetic"] is True
    assert tiny.info["synthetic"] is True
    assert "synthetic" in tiny.info["note"]
    assert tiny.name == "synthetic"
    for column in ("id", "conversation", "speaker", "source"):
        assert tiny.table[column].str.startswith("synthetic_").all()


def test_same_seed_same_bytes(tiny: Corpus, tmp_path: Path) -> None:
    again = make_synthetic(tmp_path, conversations=2, utterances=3, speakers=4, seconds=1.0, fps=6, seed=3)
    assert again.hash == tiny.hash
    for video in tiny.table["video"]:
        assert file_sha256(again.path / video) == file_sha256(tiny.path / video)


def test_another_seed_is_another_corpus(tmp_path: Path) -> None:
    hashes = {make_synthetic(tmp_path / str(s), conversations=4, seed=s, media=False).hash for s in (0, 1)}
    assert len(hashes) == 2


def test_speakers_and_sources_do_not_cross_splits(tmp_path: Path) -> None:
    corpus = make_synthetic(tmp_path, media=False)
    assert corpus.info["overlap"] == {}
    assert set(corpus.table["split"]) == {"train", "valid", "test"}
    assert (corpus.table.groupby("speaker")["source"].nunique() == 1).all()


def test_turns_alternate_between_two_speakers(tiny: Corpus) -> None:
    for _, turns in tiny.table.groupby("conversation"):
        assert turns["speaker"].nunique() == 2
        assert (turns["speaker"].to_numpy()[1:] != turns["speaker"].to_numpy()[:-1]).all()
        assert turns["position"].tolist() == list(range(len(turns)))


def test_balanced_unless_asked_otherwise() -> None:
    def ratio(imbalance: float) -> float:
        labels = [r["label"] for r in _rows(imbalance=imbalance)]
        return labels.count("neutral") / labels.count("angry")

    assert ratio(1.0) == pytest.approx(1.0, rel=0.02)
    assert ratio(8.0) == pytest.approx(8.0, rel=0.1)


def test_inertia_and_contagion_have_their_rates() -> None:
    fresh, own, partner = _rows(), _rows(inertia=0.6), _rows(contagion=0.6)
    expected = 0.6 + 0.4 / 4  # copied, or drawn again by chance
    assert _repeats(fresh, 1) == pytest.approx(0.25, abs=0.04)
    assert _repeats(fresh, 2) == pytest.approx(0.25, abs=0.04)
    assert _repeats(own, 2) == pytest.approx(expected, abs=0.04)
    assert _repeats(own, 1) == pytest.approx(0.25, abs=0.05)
    assert _repeats(partner, 1) == pytest.approx(expected, abs=0.04)


def _pairs(rows: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """How far each label is from its speaker's last one and from the partner's (classes, modulo 4), if there is one."""
    found: tuple[list[int], list[int]] = ([], [])
    last: dict[str, dict[str, int]] = {}
    for row in rows:
        label = space("iemocap-4").index(row["label"])
        said = last.setdefault(row["conversation"], {})
        for speaker, before in said.items():
            found[speaker != row["speaker"]].append((label - before) % 4)
        said[row["speaker"]] = label
    return np.array(found[0]), np.array(found[1])


def test_random_turns_are_tosses_of_a_coin() -> None:
    speaker = np.array([r["speaker"] for r in _rows(turns="random")]).reshape(-1, 10)
    goes_on = speaker[:, 1:] == speaker[:, :-1]
    assert goes_on.mean() == pytest.approx(0.5, abs=0.04)
    assert (goes_on[:, 1:] & goes_on[:, :-1]).mean() == pytest.approx(0.25, abs=0.04)
    assert max(len(set(turns)) for turns in speaker) == 2


def test_at_random_turns_it_is_the_speaker_that_counts_not_the_distance() -> None:
    expected = 0.6 + 0.4 / 4
    own, _ = _pairs(_rows(inertia=0.6, turns="random"))
    assert (own == 0).mean() == pytest.approx(expected, abs=0.03)
    assert _repeats(_rows(inertia=0.6, turns="random"), 1) == pytest.approx((expected + 0.25) / 2, abs=0.04)
    _, partner = _pairs(_rows(contagion=0.6, turns="random"))
    assert (partner == 0).mean() == pytest.approx(expected, abs=0.03)


def test_an_answer_is_another_label_than_the_one_answered() -> None:
    _, partner = _pairs(_rows(contagion=0.6, turns="random", answer=1))
    shares = np.bincount(partner, minlength=4) / len(partner)
    assert shares == pytest.approx([0.1, 0.7, 0.1, 0.1], abs=0.03)


def test_the_corpus_of_before_these_knobs_is_still_the_same(tmp_path: Path) -> None:
    corpus = make_synthetic(tmp_path, conversations=6, utterances=5, seed=4, media=False)
    assert corpus.hash == "e052f8c2ac9ba155"


def test_without_strength_nothing_can_be_learnt_and_more_strength_helps() -> None:
    none, some, full = (_accuracy(Signal(strength, 0.3)) for strength in (0.0, 0.5, 1.0))
    assert none < 0.33
    assert none + 0.1 < some < full - 0.1


def test_noise_makes_it_harder() -> None:
    clean, noisy = (_accuracy(Signal(1.0, noise)) for noise in (0.0, 1.0))
    assert clean > 0.9
    assert noisy < clean - 0.15


def test_modalities_are_missing_at_their_rates(tmp_path: Path) -> None:
    from affuse.stores.store import FeatureStore

    corpus = make_synthetic(
        tmp_path, conversations=60, missing_audio=0.3, missing_vision=0.1, missing_text=0.5, media=False
    )
    for modality, rate in (("audio", 0.3), ("vision", 0.1), ("text", 0.5)):
        store = FeatureStore(corpus.store_path(f"{modality}_vec"))
        absent = np.array([store.get(i).coverage == 0 for i in corpus.table["id"]])
        assert absent.mean() == pytest.approx(rate, abs=0.07)
    assert ((corpus.table["text"] == "").to_numpy() == absent).all()


def test_speaker_cues_move_speakers_apart() -> None:
    rows, signals = _rows(), {m: Signal(0.0, 0.0) for m in MODALITIES}
    who = np.array([r["speaker"] for r in rows])

    def spread(cues: float) -> float:
        values = feature_arrays(rows, signals, space("iemocap-4"), cues)["vision_vec"][1]
        return float(np.std([values[who == s].mean(axis=0) for s in np.unique(who)], axis=0).mean())

    assert spread(1.0) > 4 * spread(0.0)
    assert face.draw_face(np.random.default_rng(1), 0.0) == face.Face()
    assert voice.draw_voice(np.random.default_rng(1), 0.0) == voice.Voice()


@pytest.mark.parametrize("name", [s.name for s in SPACES.values() if s.kind == "classes"])
def test_every_label_has_a_look_and_a_voice(name: str) -> None:
    for label in SPACES[name].labels:
        weights = blend(label, 0.8)
        assert sum(weights.values()) == pytest.approx(1.0)
        assert set(weights) <= set(face.EXPRESSIONS)
    assert set(face.EXPRESSIONS) == set(voice.PROSODY) == set(TEMPLATES)
    assert all(blend(label, 0.0)["neutral"] == 1.0 for label in BLENDS)


def test_sentences_do_not_name_their_emotion() -> None:
    rng = np.random.default_rng(0)
    for emotion in TEMPLATES:
        said = [sentence(emotion, rng).lower() for _ in range(40)]
        assert sum(emotion in s for s in said) <= 4
        assert all("{" not in s for s in said)


def test_voice_follows_speaker_and_emotion() -> None:
    def voiced(expression: str, speaker: voice.Voice | None = None) -> tuple[float, float]:
        rng = np.random.default_rng(5)
        sound, mouth = voice.speak(speaker or voice.Voice(), {expression: 1.0}, 2.0, 10, rng)
        assert sound.shape == (32000,)
        assert mouth.shape == (20,)
        assert sound.dtype == np.float32
        assert 0 <= mouth.min() <= mouth.max() <= 1
        return _pitch(sound), float(np.sqrt(np.mean(sound**2)))

    neutral, happy, sad, angry = (voiced(e) for e in ("neutral", "happy", "sad", "angry"))
    assert neutral[0] == pytest.approx(150, rel=0.15)
    assert happy[0] > neutral[0] > sad[0]
    assert angry[1] > neutral[1] > sad[1]
    assert voiced("neutral", voice.Voice(pitch=220.0))[0] == pytest.approx(220, rel=0.15)


def _pitch(sound: np.ndarray) -> float:
    """Median pitch in Hz of the louder 40-ms windows: the peak of the autocorrelation, 70 to 450 Hz."""
    windows = np.lib.stride_tricks.sliding_window_view(sound, 640)[::320]
    loud = windows[np.std(windows, axis=1) > np.median(np.std(windows, axis=1))]
    spectrum = np.abs(np.fft.rfft(loud * np.hanning(640), 2048)) ** 2
    correlation = np.fft.irfft(spectrum)[:, 35:228]
    return float(np.median(16000 / (35 + correlation.argmax(axis=1))))


def test_clips_can_be_read_and_show_a_face(tiny: Corpus) -> None:
    from affuse.media.clip import Clip
    from affuse.media.faces import FaceDetector

    pictures = []
    for video in tiny.table["video"]:
        clip = Clip(tiny.path / video)
        assert clip.has_audio
        assert clip.has_video
        assert clip.duration == pytest.approx(1.0, abs=0.15)
        pictures += [frame.image for frame in clip.frames(2)]
    found = FaceDetector(min_face=40).detect_batch(pictures)
    assert np.mean([max((face.score for face in faces), default=0.0) >= 0.9 for faces in found]) >= 0.95


def test_absent_modalities_are_absent_from_the_clip(tmp_path: Path) -> None:
    from affuse.media.clip import Clip

    corpus = make_synthetic(
        tmp_path, conversations=1, utterances=2, seconds=0.5, missing_audio=1, missing_vision=1, missing_text=1
    )
    clip = Clip(corpus.path / corpus.table["video"][0])
    first, *others = [frame.image.astype(int) for frame in clip.frames(4)]
    assert not clip.has_audio
    assert corpus.table["text"].eq("").all()
    assert all(np.abs(first - other).mean() < 2 for other in others)


def test_the_mouth_opens_with_the_voice() -> None:
    rng = np.random.default_rng(0)
    shut, wide = face.frames(face.Face(), {"neutral": 1.0}, np.array([0.0, 1.0]), 1000, rng)
    mouth, wall = np.s_[125:165, 90:135], np.s_[:20]
    change = np.abs(shut.astype(int) - wide)
    assert change[mouth].mean() > 4 * change[wall].mean() + 1


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"noise_audio": 1.5}, "noise_audio"),
        ({"strength_text": -0.1}, "strength_text"),
        ({"speakers": 3}, "speakers"),
        ({"imbalance": 0.5}, "imbalance"),
        ({"inertia": 0.7, "contagion": 0.7}, "inertia"),
        ({"labels": "vad"}, "vad"),
        ({"turns": "often"}, "often"),
        ({"answer": -1}, "answer"),
        ({"seconds": float("nan")}, "seconds"),
    ],
)
def test_knobs_out_of_range_are_refused(tmp_path: Path, knobs: dict[str, Any], named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        make_synthetic(tmp_path, media=False, **knobs)
    assert not list(tmp_path.iterdir())
