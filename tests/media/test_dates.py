"""The date of a recording: by its name, else by its container, never by a guess."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path, PurePath

import av
import numpy as np
import pytest

from affuse.media.dates import date_of, dates_in

DAY = datetime(2026, 11, 3)
EVENING = datetime(2026, 11, 3, 18, 30)


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("2026-11-03.mp4", DAY),
        ("20261103.mp4", DAY),
        ("2026_11_03 session 4.mp4", DAY),
        ("anna-2026.11.03-b.wav", DAY),
        ("2026-11-03T18-30.mp4", EVENING),
        ("2026-11-03_1830.mp4", EVENING),
        ("2026-11-03 at 18.30.mov", EVENING),
        ("20261103T183000.mp4", EVENING),
        ("PXL_20261103_183000123.mp4", EVENING),
        ("VID-20261103-WA0007.mp4", DAY),
        ("2026-11-03_9999.mp4", DAY),
        ("2024-02-29.mp4", datetime(2024, 2, 29)),
    ],
)
def test_a_name_states_the_date(name: str, date: datetime) -> None:
    assert date_of(Path("nowhere") / name) == (date, "name")


@pytest.mark.parametrize(
    "name", ["talk.mp4", "2026-02-30.mp4", "2026-13-01.mp4", "120261103.mp4", "202611031.mp4", "2026-1103.mp4"]
)
def test_what_is_no_date_is_none(name: str) -> None:
    assert dates_in(name) == []
    assert date_of(Path(name)) == (None, "no date in its name or container")


def test_two_dates_are_none_and_the_folder_counts_where_the_file_has_none() -> None:
    date, why = date_of(Path("2026-11-03 to 2026-11-10.mp4"))
    assert date is None
    assert "two dates in its name (2026-11-03, 2026-11-10)" in why
    assert date_of(Path("x"), PurePath("2026-11-03/camera 1/talk.mp4")) == (DAY, "name")
    assert date_of(Path("x"), PurePath("2026-11-10/2026-11-03.mp4")) == (DAY, "name")


@pytest.mark.parametrize(("stated", "date"), [("2026-11-03T18:30:00.000000Z", EVENING), ("1970-01-01T00:00:00Z", None)])
def test_a_container_states_the_date_unless_its_clock_was_not_set(tmp_path: Path, stated: str, date) -> None:
    with av.open(tmp_path / "talk.mp4", "w") as out:
        out.metadata["creation_time"] = stated
        stream = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        out.mux([*stream.encode(frame), *stream.encode(None)])
    found, source = date_of(tmp_path / "talk.mp4")
    assert found == date
    assert (source == "container") == (date is not None)
