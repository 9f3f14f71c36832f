"""timeline.png: the size of a paper's figure, with and without the clip, one typed error for each lack."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from tests.reporting.timelines import conversation, failed, hostile, unknown

from affuse.core import registry
from affuse.core.errors import BadConfig, BadMedia, MissingDependency
from affuse.core.timeline import Timeline
from affuse.media.write import write_clip


def size(path) -> tuple[int, int, float]:
    """Width and height (pixels) and dots per inch of a PNG."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    at = data.index(b"pHYs")
    return width, height, struct.unpack(">I", data[at + 4 : at + 8])[0] * 0.0254


@pytest.mark.parametrize("make", [conversation, unknown])
def test_the_figure_spans_two_columns_at_300_dpi(make, tmp_path):
    pytest.importorskip("matplotlib")
    width, height, dpi = size(make().plot(tmp_path / "t.png"))
    assert width == 2148
    assert 200 < height < 2700
    assert dpi == pytest.approx(300, abs=0.1)


def test_pictures_and_sound_add_lanes(tmp_path):
    pytest.importorskip("matplotlib")
    frames = [np.full((48, 64, 3), 10 * k, np.uint8) for k in range(20)]
    write_clip(tmp_path / "c.mp4", frames, 10.0, np.sin(np.arange(32000) / 9).astype(np.float32), 16000)
    with_clip = replace(conversation(), clip=str(tmp_path / "c.mp4"))
    bare, whole = (size(timeline.plot(tmp_path / "t.png")) for timeline in (conversation(), with_clip))
    assert whole[1] > bare[1]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_vector_formats_and_hostile_names(tmp_path):
    pytest.importorskip("matplotlib")
    assert hostile().plot(tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in conversation(n=4).plot(tmp_path / "t.svg").read_text()


def test_what_cannot_be_drawn_is_said(tmp_path, monkeypatch):
    with pytest.raises(BadConfig, match=r"\.gif"):
        conversation().plot(tmp_path / "t.gif")
    with pytest.raises(BadMedia, match="holds nothing"):
        failed().plot(tmp_path / "t.png")
    with pytest.raises(BadMedia, match="no segment"):
        Timeline("t.mp4", 2.0, "run", ("a",)).plot(tmp_path / "t.png")
    monkeypatch.setattr(registry, "find_spec", lambda package: None)
    with pytest.raises(MissingDependency, match="matplotlib"):
        conversation().plot(tmp_path / "t.png")
    assert list(tmp_path.iterdir()) == []
