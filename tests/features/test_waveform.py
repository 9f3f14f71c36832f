"""Waveform: what is stored is what was recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from affuse.core import registry
from affuse.features.waveform import Waveform
from affuse.media.clip import Clip

SOUND = ["log_mel", "mfcc", "prosody", "waveform"]


def sound(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    return path


def noise(n: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n) * 0.1).astype(np.float32)


def test_values_times_scale_are_the_samples(tmp_path: Path) -> None:
    extractor, x = Waveform(), noise(16000)
    feature = extractor(Clip(audio=sound(tmp_path / "a.wav", x)))
    assert feature.values.dtype == np.int16
    assert feature.valid is None
    np.testing.assert_allclose(feature.values * extractor.spec.scale, x, atol=extractor.spec.scale)


def test_too_loud_is_clipped_not_wrapped(tmp_path: Path) -> None:
    values = Waveform()(Clip(audio=sound(tmp_path / "a.wav", np.repeat(np.float32([1.5, -1.5]), 800)))).values
    assert values[400] == 32767
    assert values[1200] == -32767


@pytest.mark.parametrize("name", SOUND)
def test_spec_holds_for_any_length(name: str, tmp_path: Path) -> None:
    extractor = registry.build("extractors", name)
    for n in (1, 100, 161, 5000):
        feature = extractor(Clip(audio=sound(tmp_path / f"{n}.wav", noise(n))))
        steps = n if name == "waveform" else 1 + n // 160
        assert feature.values.shape == (steps, *extractor.spec.shape)
        assert np.isfinite(feature.values).all()
        assert feature.coverage == 1


@pytest.mark.parametrize("name", SOUND)
def test_without_sound_the_stream_is_absent(name: str) -> None:
    extractor = registry.build("extractors", name)
    assert extractor(Clip(text="words only")).values.shape == (0, *extractor.spec.shape)


@pytest.mark.parametrize("name", SOUND)
def test_silence_is_data(name: str, tmp_path: Path) -> None:
    feature = registry.build("extractors", name)(Clip(audio=sound(tmp_path / "a.wav", np.zeros(8000, np.float32))))
    assert len(feature.values)
    assert feature.coverage == 1
    assert np.isfinite(feature.values).all()


@pytest.mark.parametrize("name", SOUND)
def test_what_was_not_recorded_is_invalid(name: str, tmp_path: Path) -> None:
    extractor = registry.build("extractors", name)
    feature = extractor(Clip(audio=sound(tmp_path / "a.wav", noise(8000)), end=1.0))
    second = round(extractor.spec.rate)
    assert len(feature.values) in (second, second + 1)
    assert feature.valid is not None
    assert feature.coverage == pytest.approx(0.5, abs=0.02)
    assert feature.valid[: second // 2].all()
    assert not feature.valid[second // 2 + 1 :].any()
