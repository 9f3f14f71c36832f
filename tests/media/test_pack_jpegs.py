"""Pictures packed as they are: number k is shown from k / fps s on, and what is no sequence of JPEGs is refused."""

from __future__ import annotations

import numpy as np
import pytest

from affuse.core.errors import BadMedia
from affuse.media.probe import probe
from affuse.media.video import frame_times, iter_frames
from affuse.media.write import jpeg, pack_jpegs

GREY = [jpeg(np.full((20, 30, 3), level, np.uint8)) for level in (50, 120, 200)]


@pytest.mark.parametrize("fps", [2.0, 29.97, 30000 / 1001])
def test_times_are_exact_and_a_gap_stays_one(tmp_path, fps):
    pack_jpegs(tmp_path / "a.mov", [(0, GREY[0]), (1, GREY[1]), (4, GREY[2])], fps)
    np.testing.assert_allclose(frame_times(tmp_path / "a.mov"), np.array([0, 1, 4]) / fps, atol=1e-4)
    assert probe(tmp_path / "a.mov").duration == pytest.approx(5 / fps, abs=1e-3)
    levels = [frame.image.mean() for frame in iter_frames(tmp_path / "a.mov")]
    np.testing.assert_allclose(levels, [50, 120, 200], atol=2)


def test_what_is_no_sequence_of_pictures_is_refused(tmp_path):
    for pictures, error in (
        ([], "no pictures"),
        ([(1, GREY[0]), (0, GREY[1])], "cannot pack"),
        ([(0, b"\xff\xd8no picture\xff\xd9")], "cannot pack"),
    ):
        with pytest.raises(BadMedia, match=error):
            pack_jpegs(tmp_path / "a.mov", pictures, 25.0)
    assert not list(tmp_path.iterdir())
