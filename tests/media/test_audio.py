from __future__ import annotations

import re
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affuse.core.errors import BadConfig
from affuse.media import audio as audio_module
from affuse.media.audio import choose_track, iter_audio, read_audio
from affuse.media.channels import weigh
from affuse.media.probe import probe
from affuse.media.video import iter_frames
from affuse.media.write import write_clip

RATE = 16000


def write_wav(path, samples: np.ndarray, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())


def test_thirty_seconds_round_trip(tmp_path, make):
    path, x = tmp_path / "thirty.mp4", make("tone", 30.0)
    write_clip(path, make("numbered", 750, 16, 16), 25, x, RATE, preset="ultrafast")
    assert sum(1 for _ in iter_frames(path)) == 750
    audio = read_audio(path)
    assert abs(len(audio.samples) - 480000) <= 16
    assert audio.coverage > 0.999
    assert audio.samples.dtype == np.float32
    assert audio.valid.dtype == bool
    assert np.sqrt(np.mean((audio.samples - x) ** 2)) < 0.02  # AAC's own error; a shift of 16 samples gives 0.2


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 70000), n=st.integers(1, 40000), block=st.floats(0.05, 3))
def test_any_part_equals_the_same_part_of_the_whole(talk, start, n, block):
    whole = read_audio(talk, end=8.0)
    part = read_audio(talk, start=start / RATE, end=(start + n) / RATE)
    blocks = list(iter_audio(talk, RATE, start / RATE, (start + n) / RATE, seconds=block))
    assert len(part.samples) == n
    np.testing.assert_array_equal(part.valid, whole.valid[start : start + n])
    np.testing.assert_allclose(part.samples, whole.samples[start : start + n], atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([b.samples for b in blocks]), part.samples)
    np.testing.assert_array_equal(np.concatenate([b.valid for b in blocks]), part.valid)
    assert all(len(b.samples) == round(block * RATE) for b in blocks[:-1])


def test_late_sound_is_masked_not_shifted(tmp_path, talk, make):
    path = make("remux", talk, tmp_path / "late.mov", {"audio": 1.0})
    late = 1.0 - 1024 / RATE  # the copied track starts with the encoder's delay
    assert probe(path).audio.start == pytest.approx(late, abs=1e-3)
    audio, x = read_audio(path), read_audio(talk).samples
    first = int(np.argmax(audio.valid))
    assert abs(first - late * RATE) <= 16
    assert not audio.samples[:first].any()
    assert audio.valid[first : 5 * RATE].all()
    n = 3 * RATE
    assert np.abs(audio.samples[RATE : RATE + n] - x[:n]).max() < 0.02


def test_sound_that_ends_early_is_masked(tmp_path, make):
    path = tmp_path / "early.mp4"
    write_clip(path, make("numbered", 75), 25, make("tone", 2.0), RATE)
    audio = read_audio(path)
    assert len(audio.samples) == 3 * RATE
    assert 2 * RATE <= audio.valid.sum() <= 2 * RATE + 1024  # at most one padded codec frame
    assert audio.valid[: 2 * RATE].all()
    assert not audio.samples[2 * RATE + 1024 :].any()


@pytest.mark.parametrize(("source", "channels"), [(8000, 1), (44100, 2), (48000, 2), (22050, 1), (16000, 2)])
def test_resampling_and_downmix_keep_time_and_level(tmp_path, source, channels):
    t = np.arange(2 * source) / source
    left = 0.4 * np.sin(2 * np.pi * 300 * t)
    samples = np.stack([left] + [0.5 * left] * (channels - 1), axis=1)
    write_wav(tmp_path / "a.wav", samples, source)
    audio = read_audio(tmp_path / "a.wav")
    expected = samples.mean() + (0.4 if channels == 1 else 0.3) * np.sin(2 * np.pi * 300 * np.arange(2 * RATE) / RATE)
    assert len(audio.samples) == 2 * RATE
    assert audio.coverage == 1.0
    assert np.abs(audio.samples - expected)[100:-100].max() < 2e-3


def test_a_lost_packet_is_a_hole_and_the_rest_stays_in_place(tmp_path, talk, make):
    data = bytearray(talk.read_bytes())
    for at, size, time in make("packets", talk, "audio"):
        if 1.0 <= time < 2.0:
            data[at : at + size] = np.random.default_rng(0).bytes(size)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    audio, x = read_audio(path), read_audio(talk).samples
    (note,) = probe(path).findings()
    assert re.fullmatch(r"\d+ packets of sound could not be decoded \(at 1\.\d-[12]\.\d s\)", note)
    holes = np.flatnonzero(~audio.valid)
    assert len(holes) > RATE // 4
    assert holes.min() >= 0.9 * RATE
    assert holes.max() <= 2.2 * RATE
    assert np.abs(audio.samples - x)[int(2.3 * RATE) :].max() < 1e-3


def test_not_a_number_is_not_sound(tmp_path, make):
    x = make("tone", 1.0)
    x[5000:6000] = np.nan
    header = b"WAVEfmt " + (16).to_bytes(4, "little") + b"\x03\x00\x01\x00"
    header += RATE.to_bytes(4, "little") + (4 * RATE).to_bytes(4, "little") + b"\x04\x00\x20\x00"
    data = x.astype("<f4").tobytes()
    body = header + b"data" + len(data).to_bytes(4, "little") + data
    (tmp_path / "nan.wav").write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    audio = read_audio(tmp_path / "nan.wav")
    assert np.isfinite(audio.samples).all()
    assert (~audio.valid).sum() == 1000


def test_a_clip_without_sound_gives_masked_silence(tmp_path, make):
    write_clip(tmp_path / "mute.mp4", make("numbered", 25), 25)
    audio = read_audio(tmp_path / "mute.mp4")
    assert len(audio.samples) == RATE
    assert not audio.valid.any()
    assert audio.coverage == 0.0


def test_parts_outside_the_clip(talk):
    assert read_audio(talk, start=100.0, end=101.0).coverage == 0.0
    assert len(read_audio(talk, start=2.0, end=2.0).samples) == 0
    assert read_audio(talk, start=3.5, end=4.5).valid.sum() == pytest.approx(RATE / 2, abs=1024)
    with pytest.raises(BadConfig):
        read_audio(talk, rate=0)


def test_real_sound(clips):
    silent = read_audio(clips / "eamm__disgusted.mp4")
    assert silent.coverage > 0.99
    assert not silent.samples.any()
    speech = read_audio(clips / "grid__bbaf2n.mpg")
    assert len(speech.samples) == 48000
    assert 0.98 < speech.coverage < 1.0
    assert speech.samples.std() > 0.01
    late = read_audio(clips / "pyfeat__face_noface.mov")
    assert int(np.argmax(late.valid)) == pytest.approx(2.43 * RATE, abs=160)


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=level, size=round(seconds * RATE))


def stereo(path: Path, left: np.ndarray, right: np.ndarray) -> Path:
    write_wav(path, np.stack([left, right], axis=1), RATE)
    return path


def loudness(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_channels_of_opposite_polarity_do_not_cancel(tmp_path):
    x = noise(3.0)
    path = stereo(tmp_path / "a.wav", x, -x)
    np.testing.assert_allclose(read_audio(path).samples, x, atol=1e-4)
    cancel = "the channels of the sound cancel each other in 100% of it"
    assert probe(path).findings() == [f"{cancel}: the polarity of channel 2 was turned back"]


@pytest.mark.parametrize("way", ["weaker", "noisy", "half", "a tenth", "a few seconds"])
def test_channels_that_cancel_in_part_keep_what_they_hold(tmp_path, way):
    x = noise(6.0)
    right = {
        "weaker": -0.5 * x,
        "noisy": -x + noise(6.0, 1, 0.03),
        "half": np.where(np.arange(len(x)) < len(x) // 2, x, -x),
        "a tenth": np.where(np.arange(len(x)) < 0.9 * len(x), x, -x),
        "a few seconds": np.where(abs(np.arange(len(x)) / RATE - 3) < 1, -x, x),
    }[way]
    path = stereo(tmp_path / "a.wav", x, right)
    found = read_audio(path).samples
    quietest = min(loudness(part) for part in np.split(found, 12))
    assert quietest > 0.7 * 0.1
    (note,) = probe(path).findings()
    assert "cancel" in note
    if way not in ("weaker", "noisy"):
        np.testing.assert_allclose(found, x, atol=1e-4)
        assert "of 2 channels only 1 is heard" in note


def test_ordinary_channels_are_averaged(tmp_path):
    x, y = noise(3.0, 0), noise(3.0, 1)
    brief = np.where(np.arange(len(x)) < 0.1 * RATE, -x, x)
    for k, right in enumerate((x, y, 0.5 * x + 0.3 * y, 0.02 * x, brief, np.roll(x, 8))):
        path = stereo(tmp_path / f"{k}.wav", x, right)
        np.testing.assert_allclose(read_audio(path).samples, (x + right) / 2, atol=1e-4)
        assert probe(path).findings() == []
        assert choose_track(probe(path)).mix == ()


@pytest.mark.parametrize(("channels", "used"), [(2, 1), (6, 2)])
def test_a_channel_that_holds_nothing_does_not_count(tmp_path, channels, used):
    x = np.zeros((3 * RATE, channels))
    x[:, used] = noise(3.0)
    write_wav(tmp_path / "a.wav", x, RATE)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, x[:, used], atol=1e-4)
    assert probe(tmp_path / "a.wav").findings() == [
        f"the sound is in channel {used + 1} of {channels}: the empty ones do not count"
    ]


def test_silence_and_too_many_channels_are_averaged(tmp_path):
    for k, x in enumerate((np.zeros((RATE, 2)), 0.1 * np.ones((RATE, 20)), np.zeros((0, 2)))):
        write_wav(tmp_path / f"{k}.wav", np.concatenate([x, np.zeros((1, x.shape[1]))]), RATE)
        assert choose_track(probe(tmp_path / f"{k}.wav")).mix == ()


def test_the_loudest_channel_stands_for_several_that_cancel():
    x = np.stack([noise(1.0), -noise(1.0), 0.2 * noise(1.0, 1), 0.01 * noise(1.0, 2)])
    weights, note = weigh(np.stack([x @ x.T / x.shape[1]] * 4))
    assert weights == (1.0, 0.0, 0.0, 0.0)
    assert "of 4 channels only 1 is heard" in note


@settings(max_examples=10, deadline=None)
@given(start=st.integers(0, 40000), n=st.integers(1, 8000), block=st.floats(0.05, 1))
def test_channels_are_mixed_alike_in_every_part(turned_half, start, n, block):
    whole = read_audio(turned_half).samples
    blocks = iter_audio(turned_half, RATE, start / RATE, (start + n) / RATE, seconds=block)
    found = np.concatenate([b.samples for b in blocks])
    np.testing.assert_array_equal(found[: len(whole) - start], whole[start : start + n])


@pytest.fixture(scope="module")
def turned_half(tmp_path_factory):
    x = noise(3.0)
    return stereo(tmp_path_factory.mktemp("turned") / "half.wav", x, np.where(np.arange(len(x)) < len(x) // 2, x, -x))


def test_long_sound_is_judged_by_parts_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_module, "LISTEN", 9.0)
    x = noise(40.0)
    turned = np.where(abs(np.arange(len(x)) / RATE - 30) < 2.5, -x, x)
    path = stereo(tmp_path / "a.wav", x, turned)
    parts = audio_module._parts(probe(path))
    assert sum(b - a for a, b in parts) == pytest.approx(9.0)
    assert parts[-1][1] == pytest.approx(40.0)
    assert choose_track(probe(path)).mix == (1.0, 0.0)


def several(
    path: Path, sounds: Sequence[np.ndarray], default: int | None = None, flags: Sequence[int] = (), **names: str
) -> Path:
    """A file with a sound track for each of `sounds` [n] or [n, 2]; `names`: languages by track, t0="deu"."""
    with av.open(str(path), "w") as container:
        tracks = []
        for k, x in enumerate(sounds):
            tracks.append(container.add_stream("pcm_s16le", rate=RATE, layout="mono" if x.ndim == 1 else "stereo"))
            tracks[k].disposition = av.stream.Disposition(flags[k] if flags else int(k == default))
            if f"t{k}" in names:
                tracks[k].metadata["language"] = names[f"t{k}"]
        for track, x in zip(tracks, sounds, strict=True):
            data = (x.reshape(1, -1) * 32767).round().astype(np.int16)
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout=track.layout.name)
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux([*track.encode(frame), *track.encode(None)])
    return path


MUSIC = 0.1 * np.sin(2 * np.pi * 220 * np.arange(7 * RATE) / RATE)


def test_the_track_that_holds_a_voice_is_heard(tmp_path, spoken):
    assert len(spoken) > 7 * RATE
    silence = 0 * spoken
    other = np.roll(spoken, 999)
    word = np.where(abs(np.arange(len(spoken)) / RATE - 3.0) < 0.3, spoken, 0)
    comment = int(av.stream.Disposition.comment)
    cases = {
        "silent first": ([silence, spoken], {}, 1, "sound track 2 of 2 is heard: it holds a voice"),
        "silent default": ([spoken, silence], {"default": 1}, 0, "sound track 1 of 2 is heard: it holds a voice"),
        "music": ([MUSIC, spoken], {"default": 0, "t1": "eng"}, 1, "track 2 of 2 (eng) is heard: it holds a voice"),
        "a word": ([word, np.tile(spoken, 3)], {"default": 0}, 1, "sound track 2 of 2 is heard: it holds a voice"),
        "languages": ([spoken, other], {"default": 1, "t1": "deu"}, 1, "(deu) is heard: 2 of them hold a voice"),
        "commentary": ([spoken, other], {"flags": (comment, 0)}, 1, "sound track 2 of 2 is heard: 2 of them"),
        "no voice": ([silence, MUSIC], {}, 1, "sound track 2 of 2 is heard: none holds a voice"),
        "three": ([MUSIC, silence, spoken], {}, 2, "sound track 3 of 3 is heard: it holds a voice"),
    }
    for name, (sounds, options, taken, note) in cases.items():
        path = several(tmp_path / f"{name}.mka", sounds, **options)
        found = read_audio(path).samples[: 7 * RATE]
        assert np.abs(found - sounds[taken][: 7 * RATE]).max() < 1e-3, name
        (said,) = probe(path).findings()
        assert note in said, name


def test_a_voice_of_opposite_polarity_in_one_of_several_tracks(tmp_path, spoken):
    path = several(tmp_path / "a.mka", [0 * spoken, np.stack([spoken, -spoken], axis=1)])
    np.testing.assert_allclose(read_audio(path).samples[: 7 * RATE], spoken[: 7 * RATE], atol=1e-3)
    assert len(probe(path).findings()) == 2


def test_one_track_and_one_channel_cost_nothing(talk, monkeypatch):
    monkeypatch.setattr(audio_module, "_power", lambda *_: pytest.fail("nothing to decide"))
    assert read_audio(talk).coverage == 1.0
    assert probe(talk).findings() == []


def test_the_voices_of_odd_files(shared_data):
    folder = shared_data / "odd_inputs"
    with wave.open(str(folder / "F09_antiphase.wav")) as file:
        left = np.frombuffer(file.readframes(file.getnframes()), "<i2")[::2] / 32768
    np.testing.assert_array_equal(read_audio(folder / "F09_antiphase.wav").samples, left.astype(np.float32))
    assert loudness(read_audio(folder / "F20_silent_first_track.mka").samples) > 0.01
