from __future__ import annotations

import wave

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affuse.core.errors import BadConfig
from affuse.media.audio import iter_audio, read_audio
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
def test_any_stretch_equals_the_same_stretch_of_the_whole(talk, start, n, block):
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


def test_stretches_outside_the_clip(talk):
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
