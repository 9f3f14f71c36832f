from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.core.errors import BadConfig, BadFeatures, BadMedia, MissingDependency, MissingFile, UnknownName
from affuse.media import voice
from affuse.media.audio import read_audio
from affuse.media.speech import find_speech, speech_segments
from affuse.media.voice import RATE, SAMPLES, STEP, voice_activity
from affuse.media.write import write_clip


def music_and_noise(seconds: float = 12.0) -> dict[str, np.ndarray]:
    t = np.arange(round(seconds * RATE)) / RATE
    rng = np.random.default_rng(0)
    chord = 0.05 * sum(np.sin(2 * np.pi * f * 2**k * t) / (k + 1) for f in (220, 277.2, 329.6) for k in range(4))
    scale = 220 * 2 ** (np.array([0, 4, 7, 12, 7, 4])[(4 * t).astype(int) % 6] / 12)
    sounds = {
        "silence": 0 * t,
        "hum": 0.3 * np.sin(2 * np.pi * 50 * t),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * t),
        "vibrato": 0.3 * np.sin(2 * np.pi * 440 * t + 8 * np.sin(2 * np.pi * 5.5 * t)),
        "chord": chord,
        "noise": rng.normal(scale=0.1, size=len(t)),
        "loud noise": rng.normal(scale=0.5, size=len(t)),
        "beat": chord * np.exp(-3 * (2 * t % 1)),
        "melody": 0.3 * np.sin(2 * np.pi * scale * t) * np.exp(-2 * (4 * t % 1)),
        "bursts": rng.normal(scale=0.1, size=len(t)) * (np.sin(2 * np.pi * 3 * t) > 0),
        "clicks": 0.8 * (rng.random(len(t)) < 3e-4),
    }
    return {name: x.astype(np.float32) for name, x in sounds.items()}


SOUNDS = music_and_noise()
RHYTHM = ("beat", "melody")


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "_weights", lambda: None)
    voice.load.cache_clear()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_network_is_the_wheels_own(spoken):
    path = voice._weights()
    assert path is not None, "the dev extra installs silero-vad"
    theirs = torch.jit.load(str(path)).eval()
    for x in (spoken, SOUNDS["melody"], SOUNDS["noise"][:-100]):
        with torch.inference_mode():
            expected = theirs.audio_forward(torch.from_numpy(x)[None], RATE)[0].numpy()
        np.testing.assert_allclose(voice_activity([x], "silero"), expected, atol=1e-4)
        theirs.reset_states()


@pytest.mark.parametrize("detector", ["silero", "energy"])
def test_the_borders_of_blocks_change_nothing(spoken, detector, monkeypatch):
    monkeypatch.setattr(voice, "CHUNK", 20 * SAMPLES)
    whole = voice_activity([spoken], detector)
    assert whole.shape == (-(-len(spoken) // SAMPLES),)
    assert whole.dtype == np.float32
    cuts = np.sort(np.random.default_rng(1).integers(0, len(spoken), 60))
    for parts in (np.split(spoken, cuts), np.split(spoken, [1]), np.array_split(spoken, 3000)):
        np.testing.assert_allclose(voice_activity(iter(parts), detector), whole, atol=1e-5)
    monkeypatch.undo()
    np.testing.assert_allclose(voice_activity([spoken], detector), whole, atol=1e-5)


@pytest.mark.parametrize("detector", ["silero", "energy"])
def test_no_samples_no_steps(detector):
    assert voice_activity([], detector).shape == (0,)
    assert voice_activity([np.zeros(0, np.float32)], detector).shape == (0,)
    assert voice_activity([np.zeros(1, np.float32)], detector).shape == (1,)


@pytest.mark.parametrize("detector", ["silero", "energy"])
def test_a_sentence_between_pauses_is_found(spoken, detector):
    segments = speech_segments(voice_activity([spoken], detector))
    assert segments[0][0] == pytest.approx(2.0, abs=0.3)
    assert segments[-1][1] == pytest.approx(len(spoken) / RATE - 2, abs=0.4)


@pytest.mark.parametrize("name", SOUNDS)
def test_music_noise_and_silence_are_no_speech(name):
    probability = voice_activity([SOUNDS[name]], "silero")
    assert probability.max() < 0.5
    assert speech_segments(probability) == []


@pytest.mark.parametrize("name", SOUNDS)
def test_the_energy_detector_knows_steady_sound_but_not_rhythm(name):
    segments = speech_segments(voice_activity([SOUNDS[name]], "energy"))
    assert bool(segments) == (name in RHYTHM)


def test_the_energy_detector_takes_the_wheels_place(spoken, no_wheel):
    assert voice.available() == "energy"
    np.testing.assert_array_equal(voice_activity([spoken]), voice_activity([spoken], "energy"))
    with pytest.raises(MissingDependency, match="silero-vad"):
        voice_activity([spoken], "silero")


def test_other_weights_are_refused(tmp_path, monkeypatch, no_wheel):
    other = tmp_path / "silero_vad.jit"
    other.write_bytes(b"PK")
    monkeypatch.setattr(voice, "_weights", lambda: other)
    with pytest.raises(BadFeatures, match="SHA-256"):
        voice_activity([np.zeros(RATE, np.float32)])


def test_an_unknown_detector_is_named():
    with pytest.raises(UnknownName, match="sileron"):
        voice_activity([], "sileron")


@pytest.mark.parametrize("detector", ["silero", "energy"])
def test_memory_does_not_grow_with_length(detector):
    def peak(blocks: int) -> int:
        tracemalloc.start()
        voice_activity(itertools.repeat(SOUNDS["noise"], blocks), detector)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40) < peak(10) + 1_000_000  # 6 min of samples are 23 MB more


def by_hand(probability, threshold, release, min_speech, min_silence):
    """Hysteresis, bridged pauses and dropped bursts, one step at a time; in steps."""
    runs, on = [], None
    for k, p in enumerate([*probability, -1.0]):
        if on is None and p >= threshold:
            on = k
        elif on is not None and p < release:
            runs.append([on, k])
            on = None
    joined: list[list[int]] = []
    for a, b in runs:
        if joined and a - joined[-1][1] < min_silence:
            joined[-1][1] = b
        else:
            joined.append([a, b])
    return [(a, b) for a, b in joined if b - a >= min_speech]


probabilities = st.lists(st.floats(0, 1, width=32), max_size=80).map(lambda x: np.array(x, np.float32))


@settings(max_examples=150, deadline=None)
@given(p=probabilities, release=st.floats(0, 0.5), speech_steps=st.integers(0, 6), silence_steps=st.integers(0, 6))
def test_segments_equal_those_found_step_by_step(p, release, speech_steps, silence_steps):
    limits = {"min_speech": float(speech_steps), "min_silence": float(silence_steps)}
    found = speech_segments(p, release=release, pad=0.0, longest=1e9, step=1.0, **limits)
    assert found == by_hand(p, 0.5, release, speech_steps, silence_steps)


@settings(max_examples=150, deadline=None)
@given(p=probabilities, pad=st.floats(0, 1), longest=st.floats(4 * STEP, 2), gap=st.floats(0, 0.3))
def test_segments_are_in_order_apart_and_short_enough(p, pad, longest, gap):
    bare = speech_segments(p, pad=0.0, longest=1e9, min_silence=gap, min_speech=0.0)
    found = speech_segments(p, pad=pad, longest=longest, min_silence=gap, min_speech=0.0)
    edges = np.array(found).reshape(-1, 2)
    assert (edges[:, 1] > edges[:, 0]).all()
    assert (edges[:, 1] - edges[:, 0] <= longest + 1e-6).all()
    assert (edges[1:, 0] >= edges[:-1, 1] - 1e-9).all()
    assert edges.size == 0 or (edges.min() >= 0 and edges.max() <= len(p) * STEP + 1e-9)
    for a, b in bare:
        assert sum(max(0.0, min(b, d) - max(a, c)) for c, d in found) == pytest.approx(b - a)


def test_long_speech_is_cut_at_its_weakest_point():
    p = np.full(625, 0.95, np.float32)  # 20 s
    p[350:353] = 0.6
    first, second = speech_segments(p, longest=12.0)
    assert first[1] == second[0]
    assert 350 * STEP <= first[1] <= 353 * STEP
    even = speech_segments(np.ones(625, np.float32), longest=12.0)
    assert even[0][1] == pytest.approx(10.0, abs=STEP)


def test_contradictory_limits_are_refused():
    for limits in ({"release": 0.8}, {"threshold": 1.5}, {"longest": 0.05}, {"pad": -1.0}):
        with pytest.raises(BadConfig):
            speech_segments(np.ones(10, np.float32), **limits)


def test_speech_of_a_clip_keeps_the_clips_clock(tmp_path, make, spoken):
    path = tmp_path / "talk.mp4"
    seconds = len(spoken) / RATE
    write_clip(path, make("numbered", round(25 * (seconds + 1)), 16, 16), 25, spoken, RATE)
    probability, segments, _ = find_speech(path)
    assert segments[0][0] == pytest.approx(2.0, abs=0.3)
    late, shifted, _ = find_speech(make("remux", path, tmp_path / "late.mov", {"audio": 3.0}))
    assert not late[: int(2.8 / STEP)].any()
    np.testing.assert_allclose(np.array(shifted), np.array(segments) + 3.0 - 1024 / RATE, atol=0.15)
    assert not probability[int((seconds + 0.2) / STEP) :].any(), "after the end of the sound"
    part, inner, _ = find_speech(path, start=1.0, end=3.0)
    assert len(part) == 63
    assert inner[0][0] == pytest.approx(segments[0][0], abs=0.1)
    assert inner[-1][1] == 3.0


def test_clips_without_speech(tmp_path, make):
    write_clip(tmp_path / "mute.mp4", make("numbered", 50, 16, 16), 25)
    write_clip(tmp_path / "silent.mp4", make("numbered", 50, 16, 16), 25, np.zeros(2 * RATE, np.float32))
    probability, segments, _ = find_speech(tmp_path / "mute.mp4")
    assert (len(probability), segments) == (0, [])
    probability, segments, _ = find_speech(tmp_path / "silent.mp4")
    assert len(probability) == 63
    assert segments == []
    assert find_speech(tmp_path / "silent.mp4", start=5.0)[1] == []


def test_a_clip_shorter_than_a_sample(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "one.wav", np.zeros(1, np.float32), 44100)
    probability, segments, _ = find_speech(tmp_path / "one.wav")
    assert len(probability) == 0
    assert segments == []


@pytest.mark.parametrize("shape", ["turned", "second track"])
def test_a_voice_that_is_easily_missed_is_found_where_it_is(tmp_path, spoken, shape):
    path = tmp_path / "talk.mka"
    with av.open(str(path), "w") as container:
        sounds = [np.stack([spoken, -spoken], axis=1)] if shape == "turned" else [0 * spoken, spoken]
        layouts = ["mono" if x.ndim == 1 else "stereo" for x in sounds]
        tracks = [container.add_stream("pcm_s16le", rate=RATE, layout=layout) for layout in layouts]
        for track, x in zip(tracks, sounds, strict=True):
            data = (x.reshape(1, -1) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout=track.layout.name)
            frame.sample_rate = RATE
            container.mux([*track.encode(frame), *track.encode(None)])
    expected = speech_segments(voice_activity([spoken]))
    np.testing.assert_allclose(find_speech(path)[1], expected, atol=0.1)


def test_what_is_no_clip(tmp_path):
    with pytest.raises(MissingFile):
        find_speech(tmp_path / "none.wav")
    (tmp_path / "words.wav").write_text("no sound at all")
    with pytest.raises(BadMedia):
        find_speech(tmp_path / "words.wav")


def spoken_steps(rttm: Path, n: int) -> np.ndarray:
    spans = [tuple(map(float, line.split()[3:5])) for line in rttm.read_text().splitlines()]
    middle = (np.arange(n) + 0.5) * STEP
    return np.any([(a <= middle) & (middle < a + length) for a, length in spans], axis=0)


@pytest.mark.parametrize(("detector", "least"), [("silero", 0.96), ("energy", 0.90)])
def test_a_conversation_annotated_by_hand(shared_data, detector, least):
    folder = shared_data / "speech_misc"
    probability, segments, _ = find_speech(folder / "pyannote_sample.wav", detector=detector)
    expected = spoken_steps(folder / "pyannote_sample.rttm", len(probability))
    middle = (np.arange(len(probability)) + 0.5) * STEP
    found = np.any([(a <= middle) & (middle < b) for a, b in segments], axis=0)
    assert (found == expected).mean() > least


def test_real_clips(clips, shared_data):
    assert len(find_speech(shared_data / "speech_misc" / "jfk.flac")[1]) == 4
    for name in ("pyfeat__WolfgangLanger_Pexels.mp4", "eamm__disgusted.mp4", "openface__multi_face.avi"):
        assert find_speech(clips / name)[1] == []
    (segment,) = find_speech(clips / "grid__bbaf2n.mpg")[1]
    assert 0.3 < segment[0] < 1.2
    assert read_audio(clips / "grid__bbaf2n.mpg").duration == 3.0
