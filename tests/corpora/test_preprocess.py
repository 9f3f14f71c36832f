"""Clips as files: what they hold, what stays after an interruption, and what is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from tests.core import dying

from affuse.core import io
from affuse.core.errors import BadConfig, BadRun, StorageError
from affuse.corpora import preprocess as module
from affuse.corpora.clip_files import ClipFiles, FileSettings, file_names
from affuse.corpora.manifest import Corpus, write_corpus
from affuse.corpora.preprocess import COMPLETE, FAILURES, preprocess
from affuse.corpora.table import import_table
from affuse.features.face_crops import FaceCrops
from affuse.media.clip import Clip
from affuse.media.probe import probe
from affuse.media.video import iter_frames
from affuse.media.write import jpeg, write_clip, write_wav

N = 12


def picture(path: Path) -> np.ndarray:
    """A JPEG as uint8 [H, W, 3] RGB."""
    codec = av.CodecContext.create("mjpeg", "r")
    frames = [*codec.decode(av.Packet(path.read_bytes())), *codec.decode(None)]
    return frames[0].to_ndarray(format="rgb24")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def index_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "index.csv", keep_default_na=False).set_index("id")


def make_media(folder: Path) -> Path:
    """A clip of 2 s whose grey rises from frame to frame, with a tone."""
    frames = [np.full((48, 64, 3), 20 + 4 * k, np.uint8) for k in range(50)]
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
    write_clip(folder / "talk.mp4", frames, 25, tone.astype(np.float32), crf=5)
    return folder / "talk.mp4"


def make_corpus(path: Path, media: Path, n: int = N) -> Corpus:
    """n utterances of 0.4 s of one file; number 5 is no media file."""
    broken = media.parent / "broken.mp4"
    broken.write_bytes(b"not a film")
    rows = [
        {"id": f"u{i:03d}", "video": str(media), "start": 0.1 * i, "end": 0.1 * i + 0.4, "label": "sad"}
        for i in range(n)
    ]
    rows[5] |= {"video": str(broken)}
    return write_corpus(path, rows, "grey", "ekman-7")


def one(path: Path, **row: object) -> Corpus:
    return write_corpus(path, [{"id": "a", "label": "sad", **row}], "one", "ekman-7")


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    return make_media(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory, media) -> tuple[Corpus, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("reference")
    corpus = make_corpus(folder / "corpus", media)
    done = preprocess(corpus, folder / "out")
    assert list(done.failures) == ["u005"]
    assert (done.added, done.complete, done.missing) == (N - 1, N - 1, {})
    return corpus, content(folder / "out")


@pytest.mark.parametrize(
    "name",
    ["grid__bbaf2n.mpg", "opendbm__subj01_t01.mp4", "facerec__short_hamilton_clip.mp4", "whisperx__sample01.mp4"],
)
def test_files_of_real_clips(name, tmp_path, shared_data):
    path = shared_data / "av_clips" / name
    end = min(probe(path).duration, 3.0)
    preprocess(one(tmp_path / "c", video=str(path), end=end), tmp_path / "out", FileSettings(rate=4, size=320))
    with wave.open(str(tmp_path / "out" / "audio" / "a.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 16000, round(end * 16000))
        heard = np.frombuffer(file.readframes(1 << 20), "<i2")
    np.testing.assert_allclose(heard / 32768, Clip(path, end=end).read_audio().samples.clip(-1, 1), atol=1 / 32768)
    shown = {frame.index + 1: frame.image for frame in iter_frames(path, 4, 0.0, end, 320)}
    files = sorted((tmp_path / "out" / "frames" / "a").iterdir())
    assert [file.name for file in files] == [f"{n:05d}.jpg" for n in shown]
    for file, expected in zip(files, shown.values(), strict=True):
        found = picture(file)
        assert found.shape == expected.shape
        assert np.abs(found.astype(float) - expected).mean() < 3
    row = index_of(tmp_path / "out").loc["a"]
    assert (row["frame_count"], row["frame_rate"], row["seconds"]) == (len(shown), 4, pytest.approx(end))


def test_two_utterances_of_one_file_have_their_own_frames(tmp_path, media):
    rows = [
        {"id": "first", "video": str(media), "start": 0.2, "end": 1.0, "label": "sad", "speaker": "s"},
        {"id": "second", "video": str(media), "start": 1.2, "label": "happy", "text": 'so, "well"\nyes', "take": 3},
    ]
    rows[0]["split"] = "train"
    preprocess(write_corpus(tmp_path / "c", rows, "two", "ekman-7"), tmp_path / "out", FileSettings(rate=5))
    index = index_of(tmp_path / "out")
    for name, start in (("first", 0.2), ("second", 1.2)):
        greys = [picture(file).mean() for file in sorted((tmp_path / "out" / index.frames[name]).iterdir())]
        assert greys == pytest.approx([20 + 4 * 25 * (start + k / 5) for k in range(4)], abs=4)
    columns = ["label", "split", "speaker", "text", "source_start", "seconds", "frame_count", "frame_share", "missing"]
    assert index.loc["first", columns].tolist() == ["sad", "train", "s", "", 0.2, 0.8, 4, 1.0, ""]
    assert index.loc["second", columns].tolist() == ["happy", "", "", 'so, "well"\nyes', 1.2, 0.8, 4, 1.0, ""]


def test_the_index_is_a_table_that_can_be_imported(tmp_path, media, reference):
    preprocess(reference[0], tmp_path / "out")
    again = import_table(tmp_path / "out" / "index.csv", tmp_path / "again")
    assert len(again) == N - 1
    assert again.table["label"].tolist() == ["sad"] * (N - 1)
    assert Clip(audio=again.path / again.table["audio"][0]).duration == pytest.approx(0.4)


def test_a_frame_is_the_one_shown_at_its_time_where_the_rate_varies(tmp_path):
    times = [0.0, 0.1, 0.4, 0.45, 0.6, 0.9]
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for k, begun in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(begun * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    corpus = one(tmp_path / "c", video=str(tmp_path / "v.mp4"))
    assert preprocess(corpus, tmp_path / "out", FileSettings(rate=4)).missing == {"sound": 1}
    shown = [round(picture(file).mean() / 40) for file in sorted((tmp_path / "out" / "frames" / "a").iterdir())]
    assert shown[:4] == [0, 1, 3, 4]


def test_the_sound_of_a_wav_of_that_kind_is_the_same_bit_by_bit(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 16001).astype("<i2")
    write_wav(tmp_path / "s.wav", samples / np.float32(32768), 16000)
    preprocess(one(tmp_path / "c", audio=str(tmp_path / "s.wav")), tmp_path / "out", FileSettings(only=("audio",)))
    assert (tmp_path / "out" / "audio" / "a.wav").read_bytes() == (tmp_path / "s.wav").read_bytes()


def test_stereo_at_another_rate_and_a_clip_without_picture(tmp_path):
    t = np.arange(44100 * 2) / 44100
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 300 * t), np.zeros_like(t)], 1)
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes((stereo * 32767).astype("<i2").tobytes())
    assert preprocess(one(tmp_path / "c", audio=str(tmp_path / "s.wav")), tmp_path / "out").missing == {"picture": 1}
    row = index_of(tmp_path / "out").loc["a"]
    assert (row["frames"], row["frame_count"], row["audio_share"]) == ("", 0, 1.0)
    with wave.open(str(tmp_path / "out" / row["audio"])) as file:
        assert file.getparams()[:4] == (1, 2, 16000, 32000)
        assert np.frombuffer(file.readframes(32000), "<i2").max() == pytest.approx(0.5 * 32768, rel=0.02)


def test_a_clip_that_lacks_all_that_is_asked_is_a_failure(tmp_path, media):
    rows = [{"id": "words", "text": "hello", "label": "sad"}, {"id": "mute", "video": str(tmp_path / "mute.mp4")}]
    write_clip(tmp_path / "mute.mp4", [np.zeros((32, 32, 3), np.uint8)] * 5)
    corpus = write_corpus(tmp_path / "c", rows, "few", "ekman-7")
    done = preprocess(corpus, tmp_path / "out", FileSettings(only=("audio",)))
    assert {i: e["message"] for i, e in done.failures.items()} == {
        "words": "the utterance has no sound", "mute": f"{tmp_path / 'mute.mp4'} has no sound",
    }  # fmt: skip
    assert done.failures == io.read_json(tmp_path / "out" / FAILURES)
    assert len(index_of(tmp_path / "out")) == 0
    assert not (tmp_path / "out" / "audio").exists()


def test_face_crops_are_the_extractor_s_and_a_frame_without_a_face_has_no_file(tmp_path, shared_data):
    path = shared_data / "av_clips" / "pyfeat__face_noface.mov"
    corpus = one(tmp_path / "c", video=str(path))
    preprocess(corpus, tmp_path / "out", FileSettings(("vision",), rate=4, size=96, faces=True))
    feature = FaceCrops(fps=4, size=96)(Clip(path))
    there = np.flatnonzero(feature.valid)
    assert 0 < len(there) < len(feature.valid)
    files = sorted((tmp_path / "out" / "frames" / "a").iterdir())
    assert [file.name for file in files] == [f"{k + 1:05d}.jpg" for k in there]
    for k, file in zip(there, files, strict=True):
        assert np.abs(picture(file).astype(float) - feature.values[k]).mean() < 4
    row = index_of(tmp_path / "out").loc["a"]
    assert row["face_share"] == pytest.approx(len(there) / len(feature.valid), abs=1e-4)
    ranges = [list(map(int, part.split("-"))) for part in str(row["frames_absent"]).split()]
    absent = [n for part in ranges for n in range(part[0], part[-1] + 1)]
    assert absent == (np.flatnonzero(~feature.valid) + 1).tolist()


def test_a_clip_without_a_face_is_no_failure(tmp_path, media):
    corpus = one(tmp_path / "c", video=str(media))
    done = preprocess(corpus, tmp_path / "out", FileSettings(("vision",), faces=True))
    assert (done.failures, done.missing) == ({}, {"face": 1})
    row = index_of(tmp_path / "out").loc["a"]
    assert (row["frames"], row["face_share"], row["frames_absent"], row["missing"]) == ("", 0.0, "1-10", "face")


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_write_the_same_files(reference, tmp_path, workers):
    preprocess(reference[0], tmp_path / "out", workers=workers)
    assert content(tmp_path / "out") == reference[1]


def test_killed_and_restarted_it_is_the_same_and_does_nothing_twice(reference, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "affuse", "preprocess", str(reference[0].path), str(out), "--quiet"]
    first = subprocess.Popen([*command, "--workers", "0"], start_new_session=True)
    while len(io.read_jsonl(out / COMPLETE)) < 3 and first.poll() is None:
        time.sleep(0.002)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (out / "index.csv").exists(), "it was over before it could be killed"
    (out / "frames" / ".aside-left").mkdir()
    (out / "frames" / ".aside-left" / "00001.jpg").write_bytes(b"half")
    for left in ("audio/.aside-left.wav", ".aside-left.json"):
        (out / left).write_bytes(b"half")
    complete = {row["id"]: (out / "frames" / row["id"]).stat().st_mtime_ns for row in io.read_jsonl(out / COMPLETE)}
    again = subprocess.run(command, check=False, capture_output=True)
    assert again.returncode == 1, again.stderr
    assert content(out) == reference[1]
    assert {i: (out / "frames" / i).stat().st_mtime_ns for i in complete} == complete


def test_half_written_frames_never_count(reference, tmp_path, monkeypatch):
    out, real, written = tmp_path / "out", Path.write_bytes, []

    def interrupted(self: Path, data: bytes) -> int:
        written.append(self)
        if len(written) == 4:  # the second of the two frames of the second clip
            raise KeyboardInterrupt
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        preprocess(reference[0], out)
    assert [p.name for p in (out / "frames").iterdir()] == ["u000"]
    assert [row["id"] for row in io.read_jsonl(out / COMPLETE)] == ["u000"]
    monkeypatch.setattr(Path, "write_bytes", real)
    assert preprocess(reference[0], out).added == N - 2
    assert content(out) == reference[1]


def test_what_is_gone_or_made_of_other_media_or_times_is_written_again(tmp_path, media):
    talk = shutil.copy(media, tmp_path / "talk.mp4")
    corpus, out = make_corpus(tmp_path / "corpus", Path(talk), 8), tmp_path / "out"
    preprocess(corpus, out)
    assert preprocess(corpus, out).added == 0
    shutil.rmtree(out / "frames" / "u001")
    (out / "audio" / "u002.wav").unlink()
    assert preprocess(corpus, out).added == 2
    assert [row["id"] for row in io.read_jsonl(out / COMPLETE)] == [f"u{i:03d}" for i in range(8) if i != 5]
    corpus.table.loc[3, "end"] = 1.5
    assert preprocess(corpus, out).added == 1
    assert index_of(out).seconds["u003"] == pytest.approx(1.2)
    os.utime(talk, ns=(0, 0))
    assert preprocess(corpus, out).added == 7


def test_a_crash_is_one_failed_clip(tmp_path, media, monkeypatch):
    monkeypatch.setattr(module, "_work", dying.write)
    monkeypatch.setattr(module, "_start", dying.begin_files)
    done = preprocess(make_corpus(tmp_path / "corpus", media, 6), tmp_path / "out", workers=1)
    assert set(done.failures) == {"u003", "u005"}
    assert "died" in done.failures["u003"]["message"]
    assert done.complete == 4


def test_other_settings_other_folders_and_two_at_once_are_refused(reference, tmp_path, media):
    out = tmp_path / "out"
    preprocess(reference[0], out)
    with pytest.raises(BadRun, match=r"rate 5.0, not with rate 10.0"):
        preprocess(reference[0], out, FileSettings(rate=10.0))
    with pytest.raises(BadRun, match="corpus grey, not with corpus one"):
        preprocess(one(tmp_path / "c", video=str(media)), out)
    with io.exclusive(out, "test"), pytest.raises(StorageError, match="in use"):
        preprocess(reference[0], out)
    assert content(out) == reference[1]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with pytest.raises(BadRun, match=r"holds other files"):
        preprocess(reference[0], tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "wrong",
    [{"rate": 0}, {"rate": float("nan")}, {"size": 0}, {"quality": 32}, {"only": ()}]
    + [{"only": ("audio",), "faces": True}],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(BadConfig):
        FileSettings(**wrong)


def test_every_id_has_a_file_name_of_its_own(tmp_path, media):
    ids = ["../../up", "a/b", "a_b", "A_b", "..", ".hidden", "x" * 300, "x" * 299 + "y", "a b", "é", "-v"]
    ids.append("dia1_utt-2.x")
    names = file_names(ids)
    assert len({name.lower() for name in names.values()}) == len(ids)
    assert all(Path(name).name == name and len(name) < 110 and name[0] not in ".-" for name in names.values())
    assert names["dia1_utt-2.x"] == "dia1_utt-2.x"
    rows = [{"id": i, "video": str(media), "end": 0.2, "label": "sad"} for i in ids]
    done = preprocess(write_corpus(tmp_path / "c", rows, "odd", "ekman-7"), tmp_path / "below" / "out")
    assert (done.complete, os.listdir(tmp_path / "below")) == (len(ids), ["out"])
    assert set(index_of(done.index.parent).frames) == {f"frames/{name}" for name in names.values()}


def test_columns_of_the_corpus_with_the_same_name_are_kept(tmp_path, media):
    preprocess(one(tmp_path / "c", video=str(media), frames=50), tmp_path / "out")
    row = index_of(tmp_path / "out").loc["a"]
    assert (row["frames_of_corpus"], row["frames"]) == (50, "frames/a")


def test_a_full_disk_ends_it(reference, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match="no space left"):
        ClipFiles(tmp_path, FileSettings()).write("a", Clip(Path(reference[0].table.video[0]), end=0.4))
    assert content(tmp_path) == {}


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (5, 7)])
def test_a_jpeg_is_its_picture_and_finer_ones_are_nearer(tmp_path, size):
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([3 * x, 4 * y, 255 - 2 * x], 2).clip(0, 255).astype(np.uint8)
    errors = []
    for quality in (1, 31):
        (tmp_path / "p.jpg").write_bytes(jpeg(image, quality))
        errors.append(np.abs(picture(tmp_path / "p.jpg").astype(float) - image).mean())
    assert errors[0] < 3
    assert errors[0] <= errors[1]
