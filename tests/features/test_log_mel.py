"""Log-mel and MFCC extractors equal librosa's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from affuse.core.errors import BadConfig
from affuse.features.log_mel import LogMelSpectrogram
from affuse.features.mfcc import MFCCs, _nearest, delta
from affuse.media.clip import Clip

librosa = pytest.importorskip("librosa")


@pytest.fixture(scope="module")
def clip(shared_data: Path) -> Clip:
    return Clip(audio=shared_data / "speech_misc" / "emotion2vec_test.wav")


def reference(clip: Clip) -> np.ndarray:
    audio = clip.read_audio()
    assert audio is not None
    mel = librosa.feature.melspectrogram(
        y=audio.samples, sr=16000, n_fft=400, hop_length=160, n_mels=64, pad_mode="constant"
    )
    return librosa.power_to_db(mel, top_db=None)


def test_log_mel_equals_librosa(clip: Clip) -> None:
    feature = LogMelSpectrogram()(clip)
    assert LogMelSpectrogram().spec.rate == 100
    assert feature.values.dtype == np.float32
    np.testing.assert_allclose(feature.values, reference(clip).T, atol=1e-3)


def test_mfcc_with_derivatives_equals_librosa(clip: Clip) -> None:
    static = librosa.feature.mfcc(S=reference(clip), n_mfcc=20)
    slopes = [librosa.feature.delta(static, order=order, mode="nearest") for order in (1, 2)]
    feature = MFCCs()(clip)
    assert feature.values.shape[1:] == MFCCs().spec.shape == (60,)
    np.testing.assert_allclose(feature.values, np.concatenate([static, *slopes]).T, atol=5e-3)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("length", [1, 4, 9, 50])
def test_delta_equals_librosa_at_any_length(order: int, length: int) -> None:
    x = np.random.default_rng(length).standard_normal((length, 3))
    expected = librosa.feature.delta(x.T, order=order, mode="nearest").T
    np.testing.assert_allclose(delta(x, order), expected, atol=1e-12)


def test_derivatives_near_a_gap_see_only_what_was_recorded(tmp_path: Path) -> None:
    import soundfile

    tone = (0.1 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", tone, 16000, subtype="FLOAT")
    feature = MFCCs(derivatives=1)(Clip(audio=tmp_path / "a.wav", end=2.0))
    assert feature.valid is not None
    steady = np.flatnonzero(feature.valid)[10:-6]  # the last window itself reaches into the gap
    assert np.abs(feature.values[steady, 20:]).max() < 0.05


def test_nearest_valid_frame() -> None:
    valid = np.array([0, 1, 0, 0, 0, 0, 1, 1, 0], dtype=bool)
    assert _nearest(valid).tolist() == [1, 1, 1, 1, 6, 6, 6, 7, 7]


@pytest.mark.parametrize("options", [{"hop": 0}, {"window": -1}, {"n_mels": 0}, {"rate": 0}])
@pytest.mark.parametrize("extractor", [LogMelSpectrogram, MFCCs])
def test_impossible_spectrograms_are_refused(extractor, options):
    with pytest.raises(BadConfig, match=next(iter(options))):
        extractor(**options)


@pytest.mark.parametrize("options", [{"n_mfcc": 0}, {"n_mfcc": 65}, {"width": 8}, {"width": 1}])
def test_impossible_cepstra_are_refused(options):
    with pytest.raises(BadConfig, match=next(iter(options))):
        MFCCs(**options)
