"""Log-magnitude spectrograms equal librosa's, in every published variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from affuse.features.log_stft import LogSTFT, log_stft
from affuse.media.clip import Clip

soundfile = pytest.importorskip("soundfile")
FRAMES = {"ogm": 188, "bcgm": 300, "lfm": 1250}
TILES = {"ogm": (3, 3.0), "bcgm": (5, 105706 / 22050), "lfm": (20, 20.0)}


def clip(path: Path, seconds: float = 2.1, rate: int = 22050, level: float = 0.4) -> Clip:
    x = level * np.random.default_rng(0).standard_normal(round(seconds * rate))
    soundfile.write(path / "a.wav", x.astype(np.float32), rate, subtype="FLOAT")
    return Clip(audio=path / "a.wav")


@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize("n", [1, 352, 353, 5000])
def test_it_equals_librosa(n: int) -> None:
    librosa = pytest.importorskip("librosa")
    x = np.random.default_rng(n).uniform(-1, 1, n).astype(np.float32)
    expected = np.log(np.abs(librosa.stft(x, n_fft=512, hop_length=353, pad_mode="constant")) + 1e-7).T
    found = log_stft(x, 353)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (1 + n // 353, 257)
    np.testing.assert_allclose(np.exp(found), np.exp(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("preset", FRAMES)
def test_published_variants(preset: str, tmp_path: Path) -> None:
    """As in the published loaders: tile, first seconds, clip to -1..1, stft, log."""
    librosa = pytest.importorskip("librosa")
    made, made_of = LogSTFT(preset=preset), clip(tmp_path)
    feature = made(made_of)
    assert feature.values.shape == (FRAMES[preset], 257)
    assert made.spec.shape == (257,) and made.spec.rate == pytest.approx(62.46, abs=0.01)
    assert feature.valid is None
    tiles, seconds = TILES[preset]
    x = np.tile(made_of.read_audio(22050).samples, tiles)[: round(22050 * seconds)].clip(-1, 1)
    expected = np.log(np.abs(librosa.stft(x, n_fft=512, hop_length=353, pad_mode="constant")) + 1e-7).T
    np.testing.assert_allclose(feature.values, expected, atol=1e-3)


def test_a_clip_too_short_for_the_published_tiles_is_repeated_on(tmp_path: Path) -> None:
    assert LogSTFT(preset="ogm")(clip(tmp_path, 0.3)).values.shape == (188, 257)


def test_plain_is_the_clip_on_its_own_clock(tmp_path: Path) -> None:
    rate, made = 16000, LogSTFT()
    x = np.zeros(2 * rate, np.float32)
    x[rate : rate + 400] = 0.5  # a click at 1 s
    soundfile.write(tmp_path / "a.wav", x, rate, subtype="FLOAT")
    feature = made(Clip(audio=tmp_path / "a.wav"))
    assert made.spec.rate == 62.5
    assert feature.values.shape == (126, 257) and feature.t0 == 0
    loudest = int(feature.values.sum(1).argmax())
    assert loudest / made.spec.rate == pytest.approx(1.0125, abs=0.02)
    assert feature.values[0].tolist() == [np.float32(np.log(np.float32(1e-7)))] * 257  # silence is data


def test_what_was_not_recorded_is_masked(tmp_path: Path) -> None:
    made_of = clip(tmp_path, 1.0, 16000)
    feature = LogSTFT()(Clip(audio=made_of.audio, end=2.0))
    assert feature.valid is not None
    assert feature.valid.sum() == pytest.approx(62.5, abs=1) and not feature.valid[-60:].any()
    tiled = LogSTFT(preset="ogm")(Clip(audio=made_of.audio, end=2.0))  # 1 s of sound, 1 s of nothing, 1 s of sound
    assert tiled.coverage == pytest.approx(2 / 3, abs=0.02)
    assert LogSTFT()(Clip(text="words alone")).values.shape == (0, 257)
