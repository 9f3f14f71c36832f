"""Whole frames: which ones are chosen, and how they are resized."""

from __future__ import annotations

import numpy as np
import pytest

from affuse.core.errors import BadConfig
from affuse.features.frames import COUNTS, Frames, centres
from affuse.media.clip import Clip
from affuse.media.write import write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """5 s at 10 fps, its left half brighter from second to second: 0, 50, 100, 150, 200."""
    path = tmp_path_factory.mktemp("frames") / "a.mp4"
    pictures = np.zeros((50, 48, 64, 3), np.uint8)
    pictures[:, :, :32] = (np.arange(50) // 10 * 50).astype(np.uint8)[:, None, None, None]
    write_clip(path, pictures, 10.0, crf=5)
    return Clip(path)


def seconds(values: np.ndarray) -> list[int]:
    """Which second each frame shows."""
    left, right = values[:, :, :14].mean((1, 2, 3)), values[:, :, 18:].mean((1, 2, 3))
    assert (right < 6).all()
    return [round(float(v) / 50) for v in left]


@pytest.mark.parametrize(
    ("preset", "shown"), [("ogm", [2]), ("bcgm", [2]), ("mmpareto", [1, 3]), ("pmr", [0, 2, 4]), ("mlb", [0, 2, 4])]
)
def test_published_choices(clip: Clip, preset: str, shown: list[int]) -> None:
    made = Frames(preset=preset, size=32)
    feature = made(clip)
    assert made.spec.rate == 0 and made.spec.shape == (32, 32, 3) and made.spec.scale == 1 / 255
    assert feature.values.dtype == np.uint8 and feature.valid is None
    assert seconds(feature.values) == shown
    np.testing.assert_array_equal(made(clip).values, feature.values)


def test_every_frame_on_its_clock(clip: Clip) -> None:
    made = Frames(fps=2.0, size=32)
    feature = made(clip)
    assert made.spec.rate == 2.0
    assert seconds(feature.values) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert feature.coverage == 1.0
    longer = made(Clip(clip.video, start=4.0, end=6.0))
    assert longer.valid.tolist() == [True, True, False, False]
    assert seconds(longer.values[:2]) == [4, 4]


def test_frames_that_are_missing_are_not_chosen(clip: Clip) -> None:
    assert seconds(Frames(preset="mmpareto", size=32)(Clip(clip.video, end=20.0)).values) == [1, 3]


def test_segment_middles() -> None:
    for n in range(1, 40):
        for count in set(COUNTS.values()) - {0}:
            at = centres(n, count)
            assert len(at) == min(n, count)
            assert at[0] >= 0 and at[-1] < n
            if n % (2 * count) == count:  # odd segments have a middle: the choice is symmetric
                np.testing.assert_array_equal(n - 1 - at[::-1], at)
    assert centres(5, 1).tolist() == [2]
    assert centres(0, 3).tolist() == []


def test_default_size_and_absence(clip: Clip) -> None:
    assert Frames(preset="bcgm")(clip).values.shape == (1, 224, 224, 3)
    for preset in ("every", "pmr"):
        feature = Frames(preset=preset, size=32)(Clip(text="words alone"))
        assert feature.values.shape == (0, 32, 32, 3) and feature.coverage == 0


@pytest.mark.parametrize("options", [{"size": 0}, {"size": -1}, {"fps": 0.0}, {"fps": float("nan")}])
def test_impossible_frames_are_refused(options):
    with pytest.raises(BadConfig, match=next(iter(options))):
        Frames(**options)
