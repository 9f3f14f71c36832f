"""What the describers find in real and made sound and pictures, and that each clip is described by itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from affuse.features.description.cues import Cue, Kept
from affuse.features.description.describers import FaceDescriber, VoiceDescriber, WordsDescriber, prosody
from affuse.media.clip import Clip

RATE = 16000


def tone(seconds: float, hz: float = 200.0, level: float = 0.1) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 13)).astype(np.float32) * level


def wav(path: Path, *parts: np.ndarray) -> Path:
    soundfile.write(path, np.concatenate(parts), RATE)
    return path


def pause(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def values(cues: list[Cue]) -> dict[str, float]:
    return {cue.name: float(cue.value) for cue in cues}


@pytest.fixture(scope="module")
def voice() -> VoiceDescriber:
    return VoiceDescriber()


def test_measures_are_those_of_frames_whose_values_are_known():
    pitch = 12 * np.log2(np.array([100.0, 200, 400]) / 27.5)
    frames = np.zeros((160, 3))
    frames[:60, :2] = np.repeat(np.column_stack([pitch, [-30, -20, -10]]), 20, 0)
    frames[100:, :2] = frames[:60, :2]
    found = prosody(frames, frames[:, 0] > 0, 100.0)
    assert found["pitch"] == pytest.approx(200)
    assert found["pitch variation"] == pytest.approx(24)
    assert (found["loudness"], found["loudness variation"]) == (-10, 20)
    assert found["speech rate"] == pytest.approx(2 / 1.6)
    assert found["pausing"] == pytest.approx(40 / 160)
    frames[60:80] = frames[0]  # 20 frames are left: too short for a pause
    assert prosody(frames, frames[:, 0] > 0, 100.0)["pausing"] == 0


def test_a_voice_silence_and_noise(voice, tmp_path):
    spoken = voice.describe(Clip(audio=wav(tmp_path / "v.wav", pause(0.5), tone(1), pause(0.5), tone(1))))
    found = values(spoken)
    assert found["pitch"] == pytest.approx(200, rel=0.01)
    assert found["pausing"] == pytest.approx(0.5 / 2.5, abs=0.03)
    assert found["voice"] == pytest.approx(2 / 3, abs=0.03)
    assert sum(found[label] for label in ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")) == (
        pytest.approx(1, abs=1e-4)
    )
    times = {(cue.start, cue.end) for cue in spoken if cue.name not in ("sound", "voice")}
    assert len(times) == 1
    assert next(iter(times)) == (pytest.approx(0.5, abs=0.05), pytest.approx(3.0, abs=0.05))
    silent = voice.describe(Clip(audio=wav(tmp_path / "s.wav", pause(1))))
    assert values(silent) == {"sound": 0, "voice": 0}
    noise = np.random.default_rng(0).normal(size=RATE).astype(np.float32) * 0.05
    assert values(voice.describe(Clip(audio=wav(tmp_path / "n.wav", noise)))) == {"sound": 1, "voice": 0}
    assert voice.describe(Clip(text="no sound")) == []


def test_defect_sound_of_the_whole_video_was_described_not_that_of_the_clip(voice, tmp_path):
    path = wav(tmp_path / "two.wav", tone(1, 120), tone(1, 300))
    low, high = (values(voice.describe(Clip(audio=path, start=a, end=a + 1)))["pitch"] for a in (0.0, 1.0))
    assert (low, high) == (pytest.approx(120, rel=0.02), pytest.approx(300, rel=0.02))


def test_words_have_their_times():
    times = ((0.5, 0.9), (1.0, 1.25))
    (cue,) = WordsDescriber().describe(Clip(text=" good \n day ", end=2.0, word_times=times))
    assert cue == Cue("words", "good day", "text", 0.5, 1.25)
    assert WordsDescriber().describe(Clip(text="  ", end=2.0)) == []


def test_a_face_and_none_in_real_clips_and_one_detector_for_all(shared_data, monkeypatch):
    """Defect: detector and networks were made anew for every video."""
    from affuse.media import faces

    made: list[int] = []
    init = faces.FaceDetector.__init__

    def counted(self, *args, **options):
        made.append(1)
        init(self, *args, **options)

    monkeypatch.setattr(faces.FaceDetector, "__init__", counted)
    face, clips = FaceDescriber(), shared_data / "av_clips"
    found = face.describe(Clip(video=clips / "pyfeat__single_face.mp4"))
    assert found[0].name == "face" and found[0].value > 0.9
    assert (found[1].name, round(float(found[1].value), 1)) == ("happy", 0.6)
    assert [c.value for c in found[1:]] == sorted((c.value for c in found[1:]), reverse=True)
    assert sum(float(c.value) for c in found[1:]) == pytest.approx(1, abs=1e-4)
    assert values(face.describe(Clip(video=clips / "pyfeat__no_face.mp4", end=1.0))) == {"face": 0}
    assert face.describe(Clip(text="no picture")) == []
    assert len(made) <= 2  # the detector, and its closer look


class Counted:
    """A describer that says how often it was asked."""

    modality, costly = "audio", True

    def __init__(self, identity: str = "a") -> None:
        self.identity, self.calls = identity, 0

    def describe(self, clip: Clip) -> list[Cue]:
        self.calls += 1
        return [Cue("sound", clip.start, "audio", 0.0, 1.0)]


def kept(file: Path, identity: str = "a") -> tuple[Kept, Counted]:
    inner = Counted(identity)
    return Kept(inner, file), inner


def test_cues_are_kept_by_clip_and_by_what_made_them(tmp_path):
    path, file = wav(tmp_path / "a.wav", tone(1)), tmp_path / "cues.jsonl"
    clips = [Clip(audio=path, start=s, end=s + 0.1) for s in (0.0, 0.25, 0.5)]
    first, inner = kept(file)
    found = [first.describe(c) for c in clips] + [first.describe(clips[0])]
    assert inner.calls == 3 and found[3] == found[0]
    again, inner = kept(file)
    assert [again.describe(c) for c in clips] == found[:3] and inner.calls == 0
    again.describe(Clip(audio=path, text="other words", start=0.0, end=0.1))
    assert inner.calls == 0
    other, inner = kept(file, "b")
    other.describe(clips[0])
    assert inner.calls == 1
    wav(path, tone(1, 300), tone(0.1))
    changed, inner = kept(file)
    changed.describe(clips[0])
    assert inner.calls == 1
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 5 and str(tmp_path) not in file.read_text()
    assert (rows[1]["file"], rows[1]["start"], rows[1]["cues"][0]["value"]) == ("a.wav", 0.25, 0.25)


def test_defect_rows_were_matched_by_position(tmp_path):
    """Published: values of the sound were matched to a listing of the folder by position."""
    path, file = wav(tmp_path / "a.wav", tone(1)), tmp_path / "cues.jsonl"
    clips = [Clip(audio=path, start=s, end=s + 0.1) for s in (0.0, 0.25, 0.5)]
    first, _ = kept(file)
    expected = [first.describe(c) for c in clips]
    lines = file.read_text().splitlines()
    torn = '{"key": "torn'
    shuffled = [json.dumps({"key": "foreign", "cues": []}), lines[2], torn, "[1]", lines[0], lines[1]]
    file.write_text("\n".join(shuffled) + "\n")
    again, inner = kept(file)
    assert [again.describe(c) for c in clips] == expected and inner.calls == 0
