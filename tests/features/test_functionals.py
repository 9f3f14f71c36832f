"""Functionals: what they are blind to, what they show, and what they make of nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from affuse.core.errors import BadConfig
from affuse.features.functionals import Functionals, contour, course, rhythm
from affuse.media.clip import Clip

RATE = 16000


def voice(f0: np.ndarray) -> np.ndarray:
    """Twelve harmonics of a gliding pitch."""
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, 13)).astype(np.float32) * 0.1


def vector(folder: Path, samples: np.ndarray, **options: bool) -> np.ndarray:
    path = folder / "take.wav"
    soundfile.write(path, samples, RATE)
    values = Functionals(**options)(Clip(audio=path)).values
    assert values.shape[1:] == Functionals().spec.shape
    return values


def test_quiet_ends_change_nothing_and_gain_only_what_is_absolute(tmp_path: Path) -> None:
    spoken = voice(np.linspace(180, 240, RATE))
    noise = np.random.default_rng(0).normal(0, 1e-5, RATE // 2).astype(np.float32)
    plain, padded = vector(tmp_path, spoken), vector(tmp_path, np.concatenate([noise, spoken, noise]))
    assert np.corrcoef(plain[0], padded[0])[0, 1] > 0.99
    quiet, loud = (vector(tmp_path, g * spoken, relative=True) for g in (0.25, 1.0))
    np.testing.assert_allclose(quiet, loud, atol=0.2)
    assert abs(vector(tmp_path, 0.25 * spoken)[0, 0] - plain[0, 0]) > 5


def test_pitch_and_its_course_are_in_the_vector(tmp_path: Path) -> None:
    low, high = (vector(tmp_path, voice(np.full(RATE, f0)))[0] for f0 in (110.0, 220.0))
    pitch = 140  # the first number after the cepstra: mean pitch in semitones
    assert high[pitch] - low[pitch] == pytest.approx(12, abs=0.1)
    rising = vector(tmp_path, voice(np.geomspace(110, 220, 2 * RATE)))[0]
    assert rising[pitch + 8] == pytest.approx(6, abs=0.5)  # the parabola's slope over -1..1: an octave is 12
    tones = rising[-90:].reshape(6, 15)[:, -1]
    assert (np.diff(tones) > 1).all() and rising[pitch + 13] > 0.95  # voiced throughout


def test_course_and_contour_equal_plain_means() -> None:
    rng = np.random.default_rng(1)
    x, tones, voiced = rng.normal(size=(37, 3)), rng.normal(size=37), rng.random(37) > 0.4
    got = course(x, tones, voiced, 5.0).reshape(6, 4)
    parts = np.split(np.arange(37), np.linspace(0, 37, 7).astype(int)[1:-1])
    for row, part in zip(got, parts, strict=True):
        np.testing.assert_allclose(row[:3], x[part].mean(0))
        spoken = tones[part][voiced[part]]
        assert row[3] == pytest.approx(spoken.mean() if len(spoken) else 5.0)
    assert course(x[:2], tones[:2], np.zeros(2, bool), 7.0).reshape(6, 4)[:, 3].tolist() == [7.0] * 6
    assert np.isfinite(contour(np.ones(1))).all()
    beat = np.sin(2 * np.pi * 4 * np.arange(500) / 100)
    assert rhythm(beat).argmax() == int((4 / 100 * 512 - 1) // 4)


def test_nothing_audible_is_absent(tmp_path: Path) -> None:
    assert len(vector(tmp_path, np.zeros(RATE // 2, np.float32))) == 0


def test_a_click_gives_finite_numbers(tmp_path: Path) -> None:
    samples = np.zeros(400, np.float32)
    samples[200] = 0.5
    assert np.isfinite(vector(tmp_path, samples)).all()
    with pytest.raises(BadConfig, match="pitch range"):
        Functionals(floor=400, ceiling=300)


def test_an_island_of_sound_between_the_middles_of_two_frames_is_absent():
    samples, valid = np.zeros(16100, np.float32), np.zeros(16100, bool)
    samples[8010:8100], valid[8010:8100] = 0.1, True
    found = Functionals()._frames(samples, valid)
    assert [len(x) for x in found] == [0, 0, 0]
