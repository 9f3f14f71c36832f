"""affuse submit: real clips with affuse-base, the other challenges with curves, lists, and refusals."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from affuse.cli.app import main
from affuse.core.labels import SPACES
from affuse.core.tasks import Task
from affuse.core.timeline import Curve, TaskInfo, Timeline
from affuse.inference import recognizer as recognizers
from affuse.media.video import frame_times, iter_frames
from affuse.media.write import write_clip
from affuse.reporting.submissions.challenges import CHALLENGES
from affuse.reporting.submissions.files import read_submission

FRAMES = {  # of the clips, as their table has them
    "eamm__happy.mp4": 141,
    "grid__bbaf2n.mpg": 75,
    "pyfeat__face_noface.mov": 169,
    "pyfeat__no_face.mp4": 95,
    "ravdess__01-01-01-01-01-01-01.mp4": 98,
}


def variable(path: Path, times: list[float]) -> Path:
    """A clip whose frames begin at these times (s)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_times_of_frames_are_the_container_s_own(tmp_path, shared_data):
    times = [0.0, 0.04, 0.24, 0.25, 0.65, 0.9]
    path = variable(tmp_path / "v.mp4", times)
    assert frame_times(path).tolist() == pytest.approx(times, abs=1e-3)
    for name, count in FRAMES.items():
        found = frame_times(shared_data / "av_clips" / name)
        assert len(found) == count
        assert (np.diff(found) > 0).all()
    clip = shared_data / "av_clips" / "grid__bbaf2n.mpg"
    assert frame_times(clip).tolist() == [frame.time for frame in iter_frames(clip)]
    write_clip(tmp_path / "sound.mp4", None, audio=np.zeros(16000, np.float32))
    assert frame_times(tmp_path / "sound.mp4").tolist() == []


def test_five_real_clips_with_affuse_base(shared_data, tmp_path, capsys):
    clips = [str(shared_data / "av_clips" / name) for name in FRAMES]
    assert main(["submit", "abaw-compound", "affuse-base", *clips, "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr()
    assert "578 rows of 5 videos" in printed.out
    assert "pyfeat__no_face: 95 frames; no face found; no prediction at all: its rows hold the default" in printed.err
    assert "pyfeat__face_noface: 169 frames; 93 without a prediction" in printed.err
    found = read_submission(tmp_path / "a" / "predictions.txt", CHALLENGES["abaw-compound"])
    by_video: dict[str, list[float]] = {}
    for where, row in found:
        by_video.setdefault(where.split("/")[0], []).append(row[0])
    assert {name: len(rows) for name, rows in by_video.items()} == {Path(n).stem: c for n, c in FRAMES.items()}
    assert set(by_video["eamm__happy"]) == {1.0}  # happily surprised
    assert set(by_video["pyfeat__no_face"]) == {0.0}
    record = json.loads((tmp_path / "a" / "submission.json").read_text())
    assert (record["labels"], record["rows"], record["videos"]["pyfeat__no_face"]["faces"]) == ("compound", 578, 0)

    lines = [f"eamm__happy/{n:05d}.jpg" for n in range(1, 151)] + [f"grid__bbaf2n/{n:05d}.jpg" for n in range(1, 71)]
    (tmp_path / "samples.txt").write_text("\n".join([CHALLENGES["abaw-compound"].head, *lines]) + "\n")
    two = [clips[1], clips[0], "--list", str(tmp_path / "samples.txt"), "--out", str(tmp_path / "b")]
    assert main(["submit", "abaw-compound", "affuse-base", *two, "--labels", "compound-sum"]) == 0
    said = capsys.readouterr().err
    assert "eamm__happy: 9 rows beyond its 141 frames repeat the last one" in said
    assert "grid__bbaf2n: 5 of its 75 frames are not in the list, left out" in said
    listed = read_submission(tmp_path / "b" / "predictions.txt", CHALLENGES["abaw-compound"])
    assert [where for where, _ in listed] == lines
    videos = json.loads((tmp_path / "b" / "submission.json").read_text())["videos"]
    assert (videos["eamm__happy"]["repeated"], videos["grid__bbaf2n"]["dropped"]) == (9, 5)


class PerFrame:
    """A recognizer that answers three tasks per frame, ten times a second: row k holds numbers made of k."""

    def __init__(self):
        self.name, self.extractors = "per-frame", {}
        self.tasks = {
            "expression": Task("expression", SPACES["abaw-8"], "frame"),
            "affect": Task("affect", SPACES["va"], "frame"),
            "units": Task("units", SPACES["action-units-12"], "frame", thresholds=(0.5,) * 12),
        }

    def __call__(self, clip, **options):
        steps = np.arange(10)
        values = {
            "expression": np.eye(8)[steps % 8],
            "affect": np.stack([steps / 10, -steps / 10], axis=1),
            "units": (steps[:, None] >= np.arange(12)) * 0.9,
        }
        curves = {t: Curve(self.tasks[t].space.labels, 10.0, 0.0, v.tolist()) for t, v in values.items()}
        infos = {t: TaskInfo(task.kind, task.space.labels) for t, task in self.tasks.items()}
        return Timeline(clip, 1.0, self.name, SPACES["abaw-8"].labels, tasks=infos, curves=curves)


@pytest.fixture
def per_frame(monkeypatch):
    monkeypatch.setattr(recognizers, "load", lambda *_: PerFrame())


def submitted(challenge: str, video: Path, out: Path) -> list[str]:
    assert main(["submit", challenge, "per-frame", str(video), "--out", str(out), "--quiet"]) == 0
    read_submission(out / "predictions.txt", CHALLENGES[challenge])
    return (out / "predictions.txt").read_text().splitlines()[1:]


def test_curves_of_the_other_challenges_at_a_variable_rate(per_frame, tmp_path):
    video = variable(tmp_path / "5-60-x.mp4", [0.0, 0.04, 0.24, 0.25, 0.65, 0.9])  # steps 0, 0, 2, 2, 6, 9
    assert submitted("abaw-expression", video, tmp_path / "e") == [
        f"5-60-x/{n:05d}.jpg,{c}" for n, c in enumerate((0, 0, 2, 2, 6, 1), 1)
    ]
    affect = submitted("abaw-va", video, tmp_path / "v")
    assert affect[2] == "5-60-x/00003.jpg,0.200000,-0.200000"
    assert affect[5] == "5-60-x/00006.jpg,0.900000,-0.900000"
    units = submitted("abaw-au", video, tmp_path / "a")
    assert units[0] == "5-60-x/00001.jpg,1,0,0,0,0,0,0,0,0,0,0,0"
    assert units[4] == "5-60-x/00005.jpg,1,1,1,1,1,1,1,0,0,0,0,0"


def refused(capsys, *arguments: str) -> tuple[int, str]:
    code = main(["submit", *arguments])
    return code, " ".join(capsys.readouterr().err.split())


def test_refusals_name_what_is_wrong_and_write_nothing(demo_run, tmp_path, capsys):
    clip, out = tmp_path / "01.mp4", tmp_path / "out"
    write_clip(clip, np.zeros((5, 64, 64, 3), np.uint8))
    (tmp_path / "more").mkdir()
    shutil.copy(clip, tmp_path / "more" / "01.mp4")
    (tmp_path / "s.txt").write_text("01/00001.jpg\n02/00001.jpg\n")
    (tmp_path / "t.txt").write_text("02/00001.jpg\n")
    write_clip(tmp_path / "02.mp4", None, audio=np.zeros(16000, np.float32))
    (tmp_path / "03.mp4").write_bytes(b"nothing")
    rest = ["--out", str(out)]
    base = ["abaw-compound", "affuse-base"]
    cases = {
        "no video given": (2, [*base]),
        "are both named '01'": (2, [*base, str(clip), str(tmp_path / "more" / "01.mp4")]),
        "are missing, such as '02'": (2, [*base, str(clip), "--list", str(tmp_path / "s.txt")]),
        "1 of the 1 videos": (2, [*base, str(clip), "--list", str(tmp_path / "t.txt")]),
        "lacks '01'": (2, [*base, str(clip), str(tmp_path / "02.mp4"), "--list", str(tmp_path / "t.txt")]),
        "no file": (2, [*base, str(clip), "--list", str(tmp_path / "none.txt")]),
        "has no picture": (1, [*base, str(tmp_path / "02.mp4")]),
        "03.mp4": (1, [*base, str(tmp_path / "03.mp4")]),
        "04.mp4": (2, [*base, str(tmp_path / "04.mp4")]),
        "--every 0": (2, [*base, str(clip), "--every", "0"]),
        "--workers 0": (2, [*base, str(clip), "--workers", "0"]),
        "abaw-va needs values, and affuse-base predicts emotion (classes)": (2, ["abaw-va", "affuse-base", str(clip)]),
        "abaw-au needs multilabel": (2, ["abaw-au", "affuse-base", str(clip)]),
        "--labels compound for abaw-va": (2, ["abaw-va", "affuse-base", str(clip), "--labels", "compound"]),
        "compound emotions need disgust, fear, surprise": (2, ["abaw-compound", str(demo_run[0]), str(clip)]),
        "abaw-comp": (2, ["abaw-comp", "affuse-base", str(clip)]),
    }
    for message, (code, arguments) in cases.items():
        found, said = refused(capsys, *arguments, *rest)
        assert found == code, (message, said)
        assert message in said
    assert not out.exists()


def test_a_run_that_lacks_classes_says_which_no_frame_gets(demo_run, tmp_path, capsys):
    write_clip(tmp_path / "01.mp4", np.zeros((5, 64, 64, 3), np.uint8))
    command = ["abaw-expression", str(demo_run[0]), str(tmp_path / "01.mp4"), "--out", str(tmp_path / "out")]
    code, said = refused(capsys, *command)
    assert code == 0
    assert "has no class for disgust, fear, surprise, other: no frame gets it" in said
    assert len(read_submission(tmp_path / "out" / "predictions.txt", CHALLENGES["abaw-expression"])) == 5
