"""Prosody against Praat and against signals whose pitch is known."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from affuse.core.errors import BadConfig
from affuse.features.prosody import Prosody, track_pitch
from affuse.media.clip import Clip

FULL_SCALE_DB = 20 * np.log10(1 / 2e-5)  # Praat's dB of a mean square of 1


def voice(f0: np.ndarray, rate: int = 16000) -> np.ndarray:
    """Twelve harmonics of a gliding pitch."""
    phase = 2 * np.pi * np.cumsum(f0) / rate
    return sum(np.sin(k * phase) / k for k in range(1, 13)).astype(np.float32) * 0.1


def takes(data: Path) -> list[Path]:
    misc = sorted(p for p in (data / "speech_misc").iterdir() if p.suffix in (".wav", ".flac"))
    ravdess = sorted((data / "ravdess_speech" / "wav48k_original").glob("*.wav"))
    return misc + ravdess + sorted((data / "ravdess_speech" / "opus").glob("Actor_*/*"))[::100]


def test_agrees_with_praat(shared_data: Path) -> None:
    parselmouth = pytest.importorskip("parselmouth")
    for path in takes(shared_data):
        audio = Clip(audio=path).read_audio()
        assert audio is not None
        ours, sound = track_pitch(audio.samples), parselmouth.Sound(audio.samples.astype(float), 16000)
        praat = sound.to_pitch_ac(time_step=0.01, pitch_floor=75, pitch_ceiling=600)
        times = np.arange(len(ours.f0)) * 0.01
        row = np.rint((times - praat.xs()[0]) / 0.01).astype(int)
        inside = (row >= 0) & (row < len(praat.xs()))
        f0, reference = ours.f0[inside], praat.selected_array["frequency"][row[inside]]
        both = (f0 > 0) & (reference > 0)
        error = np.abs(f0 / np.where(both, reference, 1) - 1)[both]
        assert np.median(error) < 0.01, path
        assert (error > 0.2).mean() < 0.05, path
        assert ((f0 > 0) == (reference > 0)).mean() > 0.9, path

        loud = sound.to_intensity(minimum_pitch=100, time_step=0.01)
        at = (times >= loud.xs()[0]) & (times <= loud.xs()[-1])
        expected = np.interp(times[at], loud.xs(), np.maximum(loud.values[0] - FULL_SCALE_DB, -100))
        energy = 10 * np.log10(np.maximum(ours.power[at], 1e-10))
        assert np.corrcoef(energy, expected)[0, 1] > 0.98, path


@pytest.mark.parametrize("hz", [80.0, 131.3, 220.0, 413.7, 590.0])
def test_known_pitch(hz: float) -> None:
    track = track_pitch(voice(np.full(16000, hz)))
    np.testing.assert_allclose(track.f0[5:-5], hz, rtol=0.003)
    assert track.strength[5:-5].min() > 0.95


def test_follows_a_glide() -> None:
    f0 = np.geomspace(90, 400, 32000)
    track = track_pitch(voice(f0))
    np.testing.assert_allclose(track.f0[5:-5], f0[::160][5 : len(track.f0) - 5], rtol=0.01)


def test_louder_changes_energy_only() -> None:
    x = voice(np.geomspace(100, 200, 16000)) + np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.01
    soft, loud = track_pitch(x), track_pitch(4 * x)
    np.testing.assert_allclose(loud.f0, soft.f0, rtol=1e-4)
    np.testing.assert_allclose(loud.power, 16 * soft.power, rtol=1e-4)


def test_noise_and_silence_are_unvoiced() -> None:
    noise = np.random.default_rng(0).standard_normal(32000).astype(np.float32) * 0.1
    assert (track_pitch(noise).f0 > 0).mean() < 0.05
    silent = track_pitch(np.zeros(16000, np.float32))
    assert not silent.f0.any()
    assert not silent.strength.any()


def test_units_of_the_stored_columns(tmp_path: Path) -> None:
    import soundfile

    tone = np.concatenate([voice(np.full(16000, 220.0)), np.zeros(16000)]).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", tone, 16000, subtype="FLOAT")
    pitch, energy, voicing = Prosody()(Clip(audio=tmp_path / "a.wav")).values.T
    np.testing.assert_allclose(pitch[10:90], 36, atol=0.05)  # three octaves above 27.5 Hz
    np.testing.assert_allclose(energy[10:90], 10 * np.log10(np.mean(tone[:16000] ** 2)), atol=0.5)
    assert voicing[10:90].min() > 0.95
    assert not pitch[110:].any()
    assert (energy[110:] == -100).all()
    assert not voicing[110:].any()


def test_ten_seconds_take_less_than_a_tenth(shared_data: Path) -> None:
    audio = Clip(audio=shared_data / "speech_misc" / "pyannote_sample.wav", end=10.0).read_audio()
    assert audio is not None
    best = min(_seconds(audio.samples) for _ in range(3))
    assert best < 0.1


def _seconds(samples: np.ndarray) -> float:
    start = time.perf_counter()
    track_pitch(samples)
    return time.perf_counter() - start


def test_impossible_range_is_refused() -> None:
    with pytest.raises(BadConfig, match="floor=300"):
        Prosody(floor=300, ceiling=400)
