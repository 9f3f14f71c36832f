"""eGeMAPS and ComParE: openSMILE's own values, on the clip's clock, absent where nothing was recorded."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from affuse.core import registry
from affuse.core.errors import MissingDependency, UnknownName
from affuse.features.egemaps import CARD, EGeMAPS
from affuse.media.clip import Clip

soundfile = pytest.importorskip("soundfile")


@pytest.fixture
def opensmile():
    return pytest.importorskip("opensmile")


@pytest.fixture
def speech(shared_data: Path) -> Clip:
    return Clip(audio=shared_data / "speech_misc" / "opensmile_test.wav")


def clip(tmp_path: Path, samples: np.ndarray, name: str = "a", **segment: float) -> Clip:
    soundfile.write(tmp_path / f"{name}.wav", samples, 16000, subtype="FLOAT")
    return Clip(audio=tmp_path / f"{name}.wav", **segment)


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(16000 * seconds))).astype(np.float32)


@pytest.mark.parametrize("feature_set", ["egemaps", "compare"])
@pytest.mark.parametrize("level", ["functionals", "lld"])
def test_equals_opensmile(opensmile, feature_set: str, level: str, speech: Clip) -> None:
    names = {"egemaps": "eGeMAPSv02", "compare": "ComParE_2016", "functionals": "func", "lld": "lld"}
    audio = speech.read_audio()
    assert audio is not None
    smile = opensmile.Smile(names[feature_set], names[level])
    expected = smile.process_signal(audio.samples, 16000)
    extractor = EGeMAPS(feature_set=feature_set, level=level)
    feature = extractor(speech)
    np.testing.assert_allclose(feature.values, expected.to_numpy(), rtol=1e-6)
    assert extractor.names == list(expected.columns)
    assert feature.values.dtype == np.float32
    assert feature.values.shape[1:] == extractor.spec.shape == (smile.num_features,)
    assert (extractor.spec.rate, feature.t0) == ((0, 0) if level == "functionals" else (100, 0.01))


def test_descriptors_stand_where_the_sound_is(opensmile, tmp_path: Path) -> None:
    samples = 1e-3 * noise(3)
    samples[23960:24040] += 5 * noise(1)[:80]  # 1.5 s
    extractor = EGeMAPS(level="lld")
    feature = extractor(clip(tmp_path, samples))
    loudness = feature.values[:, extractor.names.index("Loudness_sma3")]
    assert feature.t0 + loudness.argmax() / 100 == pytest.approx(1.5, abs=0.011)


def test_what_was_not_recorded_does_not_count(opensmile, tmp_path: Path) -> None:
    sound = noise(2)
    gap = np.concatenate([sound[:16000], np.zeros(32000, np.float32), sound[16000:]])
    alone = EGeMAPS()(clip(tmp_path, sound)).values
    np.testing.assert_array_equal(EGeMAPS()(clip(tmp_path, gap, "gap")).values, alone)
    np.testing.assert_array_equal(EGeMAPS()(clip(tmp_path, sound, "tail", end=6.0)).values, alone)
    feature = EGeMAPS(level="lld")(clip(tmp_path, gap, "gap"))
    assert feature.valid is not None and len(feature.valid) == len(feature.values)
    times = feature.t0 + np.arange(len(feature.values)) / 100
    np.testing.assert_array_equal(feature.valid, (times < 1 - 1e-9) | (times >= 3 - 1e-9))


@pytest.mark.parametrize("level", ["functionals", "lld"])
def test_absent(opensmile, level: str, tmp_path: Path) -> None:
    extractor = EGeMAPS(level=level)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for silent in (np.zeros(48000, np.float32), noise(0.059)):
            assert extractor(clip(tmp_path, silent)).values.shape == (0, *extractor.spec.shape)
        assert extractor(Clip(text="words")).values.shape == (0, *extractor.spec.shape)
        assert np.isfinite(extractor(clip(tmp_path, noise(0.06))).values).all()


def test_quiet_sound_is_data(opensmile, tmp_path: Path) -> None:
    feature = EGeMAPS()(clip(tmp_path, 1e-6 * noise(2)))
    assert feature.values.shape == (1, 88)
    assert np.isfinite(feature.values).all()


def test_earlier_clips_leave_no_trace(opensmile, speech: Clip, tmp_path: Path) -> None:
    extractor = EGeMAPS()
    first = extractor(speech).values
    extractor(clip(tmp_path, noise(3)))
    np.testing.assert_array_equal(extractor(speech).values, first)


def test_licence_and_extra_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NOT for commercial use" in CARD["licence"]
    with pytest.raises(UnknownName):
        registry.resolve("extractors", "egemaps", {"level": "frames"}, "egemaps")
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="opensmile") as caught:
        registry.load("extractors", "egemaps")
    assert "affuse[opensmile]" in caught.value.remedy


def test_opensmile_is_imported_only_when_used() -> None:
    code = (
        "import sys; from affuse.core import registry; registry.cards('extractors')\n"
        "from affuse.features.egemaps import EGeMAPS; EGeMAPS(level='lld').spec\n"
        "assert not {'opensmile', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
