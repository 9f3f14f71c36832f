"""Many clips: how they are found, what is written, and that the same command goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from affuse.cli.app import main
from affuse.core.errors import BadConfig, BadMedia, BadRun, MissingFile
from affuse.inference.clips import Job, analyze_clip, analyze_clips, find_clips
from affuse.inference.recognizer import load
from affuse.media.files import MEDIA, check_clip


@pytest.fixture
def folder(demo_run, tmp_path: Path) -> Path:
    """A folder with a nested one: three clips of which one is damaged, and a file that is no clip."""
    first, second, *_ = sorted((demo_run[1] / "clips").glob("*.mp4"))
    (tmp_path / "in" / "nested").mkdir(parents=True)
    shutil.copy(first, tmp_path / "in" / "a.mp4")
    shutil.copy(second, tmp_path / "in" / "nested" / "b.mp4")
    (tmp_path / "in" / "c.mp4").write_bytes(b"no clip")
    (tmp_path / "in" / "notes.txt").write_text("words")
    return tmp_path / "in"


def test_folders_and_globs_name_clips_once(folder: Path) -> None:
    names = [Path(p).name for p in find_clips([str(folder), str(folder / "*.mp4"), str(folder / "notes.txt")])]
    assert names == ["a.mp4", "c.mp4", "b.mp4", "notes.txt"]
    assert find_clips([str(folder / "none.mp4")]) == [str(folder / "none.mp4")]


def test_answers_are_files_failures_are_listed_and_the_rest_is_not_done_again(
    demo_run, folder: Path, tmp_path: Path, capsys
) -> None:
    command = ["analyze", str(folder), "--model", str(demo_run[0]), "--format", "json", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "c.mp4" in capsys.readouterr().err
    a, b = tmp_path / "out" / "a.json", tmp_path / "out" / "nested" / "b.json"
    assert json.loads(a.read_text())["segments"]
    assert list(json.loads((tmp_path / "out" / "failures.json").read_text())) == [str(folder / "c.mp4")]
    stamp = a.stat().st_mtime_ns
    b.unlink()
    assert main([*command, "--quiet"]) == 1
    assert a.stat().st_mtime_ns == stamp
    assert b.is_file()
    os.utime(folder / "a.mp4", (2e9, 2e9))
    assert main([*command, "--quiet"]) == 1
    assert a.stat().st_mtime_ns != stamp
    with pytest.raises(BadRun, match="holds answers"):
        from affuse.cli.analyze import run

        run(str(folder), model=str(demo_run[0]), format="csv", out=tmp_path / "out", quiet=True)


@pytest.mark.parametrize(
    ("format", "suffix"),
    [("html", ".html"), ("elan", ".eaf"), ("textgrid", ".TextGrid"), ("webvtt", ".emotion.vtt")],
)
def test_every_format_is_written(demo_run, folder: Path, tmp_path: Path, format: str, suffix: str) -> None:
    out = tmp_path / "out"
    command = ["analyze", str(folder / "a.mp4"), "--model", str(demo_run[0]), "--format", format]
    assert main([*command, "--out", str(out), "--quiet"]) == 0
    assert (out / f"a{suffix}").stat().st_size > 80


def test_processes_answer_what_one_process_answers(demo_run, folder: Path) -> None:
    clips = find_clips([str(folder)])
    recognizer = load(demo_run[0])
    alone = {t.clip: t for t in analyze_clips(recognizer, Job(str(demo_run[0])), clips)}
    shared = {t.clip: t for t in analyze_clips(recognizer, Job(str(demo_run[0])), clips, workers=2)}
    assert shared == alone
    assert [bool(alone[c].error) for c in clips] == [False, True, False]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--workers", "0"], "--workers 0"),
        (["--workers", "100000"], "--workers 100000"),
        (["--workers", "1.5"], '"1.5" is no whole number'),
        (["--threads", "1.5"], '"1.5" is no whole number'),
        (["--threads", "100000"], "--threads 100000"),
        *((["--every", value], f"--every {float(value)}") for value in ("0", "-1", "nan", "inf", "1e-9", "0.099")),
        (["--out", "x"], "--format csv | elan"),
        (["--format", "xml"], "table | csv | elan"),
        (["--format", "json", "--transcript", "none.srt"], "no subtitle file none.srt"),
        (["--transcript", "{}/notes.txt"], "--transcript for 3 clips"),
    ],
)
def test_impossible_options_are_refused_before_the_model_loads(
    folder: Path, options: list[str], named: str, capsys
) -> None:
    assert main(["analyze", str(folder), "--model", "none", *(o.format(folder) for o in options)]) == 2
    shown = capsys.readouterr().err
    assert named in shown
    assert "->" in shown


def command(run: Path, *more: object) -> int:
    return main(["analyze", *map(str, more), "--model", str(run), "--quiet"])


def test_an_answer_belongs_to_its_clip(demo_run, folder: Path, tmp_path: Path, capsys) -> None:
    """A clip of the same name elsewhere is never taken for one that has an answer."""
    ask = ("--format", "json", "--out", tmp_path / "out")
    assert command(demo_run[0], folder / "a.mp4", *ask) == 0
    other = tmp_path / "day2" / "a.mp4"
    other.parent.mkdir()
    shutil.copy(folder / "nested" / "b.mp4", other)
    assert command(demo_run[0], other, *ask) == 1
    assert "is the answer for" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["sidecar", "transcript", "run"])
def test_new_words_or_a_new_run_are_a_new_question(demo_run, folder: Path, tmp_path: Path, change: str) -> None:
    run = shutil.copytree(demo_run[0], tmp_path / "run")
    ask = (folder / "a.mp4", "--format", "json", "--out", tmp_path / "out")
    assert command(run, *ask) == 0
    answer = tmp_path / "out" / "a.json"
    stamp = answer.stat().st_mtime_ns
    assert command(run, *ask) == 0
    assert answer.stat().st_mtime_ns == stamp
    words = folder / ("a.srt" if change == "sidecar" else "other.srt")
    words.write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    if change == "run":
        info = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(info | {"created": "later"}))
    assert command(run, *ask, *(("--transcript", words) if change == "transcript" else ())) == 0
    assert answer.stat().st_mtime_ns != stamp


def test_captions_do_not_replace_subtitles_and_are_no_words(
    demo_run, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    from affuse.media.subtitles import sidecar

    monkeypatch.chdir(folder)
    (folder / "a.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nthe user's own\n")
    assert command(demo_run[0], "a.mp4", "--format", "webvtt") == 0
    assert "the user's own" in (folder / "a.vtt").read_text()
    assert "NOTE affuse" in (folder / "a.emotion.vtt").read_text()
    (folder / "a.vtt").unlink()
    assert sidecar(folder / "a.mp4") is None


def test_what_breaks_on_one_clip_leaves_the_others(demo_run, folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    from affuse.inference import clips

    recognizer = load(demo_run[0])
    whole = type(recognizer).__call__

    def broken(self, clip, **asked):
        if Path(clip).name == "a.mp4":
            raise ValueError("zero-size array")
        return whole(self, clip, **asked)

    monkeypatch.setattr(type(recognizer), "__call__", broken)
    found = list(clips.analyze_clips(recognizer, Job(str(demo_run[0])), find_clips([str(folder)])))
    assert [t.error is None for t in found] == [False, False, True]
    assert "ValueError: zero-size array" in found[0].error["message"]


def test_one_answer_that_cannot_be_written_is_listed(demo_run, folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    (out / "nested" / "b.json").mkdir(parents=True)  # in the way
    assert command(demo_run[0], folder, "--format", "json", "--out", out) == 1
    assert (out / "a.json").is_file()
    assert {Path(c).name for c in json.loads((out / "failures.json").read_text())} == {"b.mp4", "c.mp4"}


def test_out_that_is_a_file_and_names_that_are_too_long(demo_run, folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "out.json").write_text("{}")
    assert command(demo_run[0], folder / "a.mp4", "--format", "json", "--out", tmp_path / "out.json") == 1
    assert "cannot write" in capsys.readouterr().err
    assert command(demo_run[0], "x" * 300 + ".mp4") == 1
    assert "too long" in capsys.readouterr().err


def test_answers_stay_below_out(demo_run, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder / "nested")
    assert command(demo_run[0], "b.mp4", "../a.mp4", "--format", "json", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "nested" / "b.json").is_file()
    assert (tmp_path / "out" / "a.json").is_file()


def test_a_table_has_its_header_after_a_failure_and_names_of_any_bytes(demo_run, folder: Path, capfdbinary) -> None:
    odd = folder / os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(folder / "a.mp4", odd)
    assert command(demo_run[0], folder / "c.mp4", odd, folder / "a.mp4", "--format", "csv") == 1
    lines = capfdbinary.readouterr().out.splitlines()
    assert lines[0].startswith(b"clip,start,end")
    assert sum(line.startswith(b"clip,") for line in lines) == 1
    assert b"/caf" in lines[1]
    for format in ("html", "json", "elan", "textgrid"):
        assert command(demo_run[0], odd, "--format", format, "--out", folder / format) == 0


def names(found: list[str]) -> list[str]:
    return [Path(clip).name for clip in found]


def test_what_systems_leave_in_folders_is_no_clip(tmp_path: Path) -> None:
    hidden = ("._a.wav", ".DS_Store", ".b.mp4", "__MACOSX/._d.mp4", ".git/f.mp4")
    for name in (*hidden, "Thumbs.db", "@eaDir/c.mp4", "$RECYCLE.BIN/e.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "in" / "a.wav").touch()
    skipped: set[str] = set()
    assert names(find_clips([str(tmp_path / "in")], skipped)) == ["a.wav"]
    assert skipped == set()
    shown = tmp_path / ".hidden"
    (tmp_path / "in").rename(shown)
    assert names(find_clips([str(shown)])) == ["a.wav"]  # whoever names a hidden folder means it


def test_the_folder_of_a_mac_has_one_clip(shared_data: Path) -> None:
    assert names(find_clips([str(shared_data / "odd_inputs" / "F16_folder")])) == ["a.wav"]


def test_every_suffix_that_is_decoded_is_taken() -> None:
    """Those that FFmpeg knows for the containers that affuse opens, pictures and lone subtitles aside."""
    import av

    from affuse.media.probe import CONTAINERS

    known = {f".{e}" for name in CONTAINERS.split(",") for e in av.format.ContainerFormat(name, "r").extensions}
    pictures, others = {".avif", ".heic", ".heif", ".mpo"}, {".mks", ".ism", ".isma", ".psp", ".h26l", ".apl", ".mac"}
    assert known - MEDIA == pictures | others
    assert {".mxf", ".rm", ".m2ts", ".vob", ".mpe", ".m2v", ".mpv", ".asf", ".qt", ".divx"} < MEDIA
    assert {".w64", ".amr", ".aif", ".au", ".voc"} < MEDIA


def test_files_that_are_no_clips_are_counted_once_and_sidecars_are_not(folder: Path, capsys) -> None:
    for name in ("a.srt", "nested/b.en.vtt", "one.jpg", "nested/two.JPG", "README", "a.html"):
        (folder / name).touch()
    (folder / "nested" / "d.MXF").touch()
    skipped: set[str] = set()
    found = find_clips([str(folder), str(folder / "nested"), str(folder / "*")], skipped)
    assert names(found) == ["a.mp4", "c.mp4", "b.mp4", "d.MXF"]
    assert {Path(p).name for p in skipped} == {"notes.txt", "one.jpg", "two.JPG", "README", "a.html"}
    assert main(["analyze", str(folder), "--model", "none"]) == 2
    assert "skipped 5 files that are no clips: 2 .jpg, 1 .html, 1 .txt, 1 without a suffix" in capsys.readouterr().err
    assert main(["analyze", str(folder), "--model", "none", "--quiet"]) == 2
    assert "skipped" not in capsys.readouterr().err


def test_links_are_followed_once_and_broken_ones_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(folder / "c.mp4", tmp_path / "elsewhere" / "c.mp4")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "nested" / "round").symlink_to(folder)
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    assert names(find_clips([str(folder)])) == ["a.mp4", "gone.mp4", "c.mp4", "b.mp4"]
    with pytest.raises(MissingFile, match=r"broken link: nowhere\.mp4"):
        check_clip(folder / "gone.mp4")


def test_one_file_is_one_clip_and_names_are_no_patterns(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("[1].mp4", "1.mp4", "-x.mp4", "u.dat"):
        (folder / name).touch()
    assert find_clips(["a.mp4", "./a.mp4", str(folder / "a.mp4"), "~/a.mp4"]) == ["a.mp4"]
    assert find_clips(["[1].mp4"]) == ["[1].mp4"]
    assert find_clips(["~/nested"]) == [str(folder / "nested" / "b.mp4")]
    assert find_clips(["*.dat", "nest*"]) == ["u.dat", "nested/b.mp4"]


PICTURES = {
    "photo.jpg": b"\xff\xd8\xff\xe0", "photo.png": b"\x89PNG\r\n", "photo.heic": b"\0\0\0\x18ftypheic",
    "renamed.mp4": b"\xff\xd8\xff\xe1",
    "photo.webp": b"RIFF\x10\0\0\0WEBPVP8 ", "scan.tif": b"II*\0", "photo.avif": b"\0\0\0\x1cftypavif",
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_no_clip(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PICTURES[name] + bytes(64))
    with pytest.raises(BadMedia, match=f"{name} is a picture, not a clip"):
        check_clip(tmp_path / name)


def test_motion_jpeg_and_sound_with_a_header_of_text_are_clips(tmp_path: Path) -> None:
    (tmp_path / "a.mjpeg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(64))
    (tmp_path / "a.sph").write_bytes(b"NIST_1A\n   1024\n".ljust(1024))
    (tmp_path / "a.amr").write_bytes(b"#!AMR\n" + b"|" * 64)
    (tmp_path / "a.dat").write_bytes(b"\0\0\1\xba" + bytes(64))
    for name in ("a.mjpeg", "a.sph", "a.amr", "a.dat"):
        assert check_clip(tmp_path / name).st_size > 60


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("paper.pdf", b"%PDF-1.7", "a document"),
        ("talk.docx", b"PK\3\4", "a document"),
        ("page.mp4", "<!DOCTYPE html> é".encode(), "is text .a failed download"),
        ("list.m3u8", b"#EXTM3U\n", "is text"),
        ("talk.srt", b"1\n00:00:00,000 --> 00:00:01,000\nwords\n", "holds subtitles"),
        ("._talk.mp4", b"\0\5\x16\7" + bytes(64), "AppleDouble"),
    ],
)
def test_what_is_plainly_no_clip_is_named(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadMedia, match=words) as error:
        check_clip(tmp_path / name)
    assert error.value.remedy


def test_what_is_no_file_is_named_and_the_others_go_on(demo_run, folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    os.mkfifo("pipe.mp4")
    (folder / "empty.mp4").mkdir()
    (folder / "zero.wav").touch()
    door = socket.socket(socket.AF_UNIX)
    door.bind("door.mp4")
    addresses = ["http://x.org/a.mp4", "RTSP://cam/1", "https://x.org/watch?v=1", "file:///a/b%20c.mp4"]
    files = ["empty.mp4", "zero.wav", "no\nne.mp4", "[9].mp4", "a.mp4"]
    clips = ["", "pipe.mp4", "door.mp4", "/dev/null", *addresses, *files]
    assert command(demo_run[0], *clips) == 1
    door.close()
    shown = capsys.readouterr()
    assert "a.mp4" in shown.out.splitlines()[0]
    errors = [line.removeprefix("error: ") for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(clips) - 1
    kinds = ["an empty name is no clip", "pipe.mp4 is a pipe", "is a socket", "is a device"]
    kinds += [*["is an address"] * 4, "empty.mp4 holds no clip"]
    kinds += ["zero.wav is empty (0 bytes)", "no\\nne.mp4 does not exist", "no clip matches it"]
    assert [kind for kind, line in zip(kinds, errors, strict=True) if kind not in line] == []
    assert "give its path: /a/b c.mp4" in shown.err
    assert "download it first" in shown.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "nested").chmod(0)
    found = find_clips([str(folder)])
    assert names(found) == ["a.mp4", "c.mp4", "nested"]
    with pytest.raises(MissingFile, match="may not be read"):
        check_clip(found[-1])
    (folder / "nested").chmod(0o700)


@pytest.mark.parametrize("change", ["grows", "vanishes"])
def test_a_clip_that_changes_meanwhile_has_no_answer(demo_run, folder: Path, change: str, monkeypatch) -> None:
    clip = folder / "a.mp4"
    recognizer = load(demo_run[0])
    whole = type(recognizer).__call__

    def meanwhile(self, path, **asked):
        answer = whole(self, path, **asked)
        clip.unlink() if change == "vanishes" else clip.write_bytes(clip.read_bytes() + b"more")
        return answer

    assert analyze_clip(recognizer, str(clip)).error is None
    monkeypatch.setattr(type(recognizer), "__call__", meanwhile)
    error = analyze_clip(recognizer, str(clip)).error
    assert error is not None
    assert f"a.mp4 {'vanished' if change == 'vanishes' else 'changed'} while it was analysed" in error["message"]


@pytest.mark.parametrize("every", [0, -1, 1e-9, 0.09, float("nan"), float("inf"), "2"])
def test_rows_of_a_job_last_at_least_a_tenth_of_a_second(every) -> None:
    with pytest.raises(BadConfig, match="every"):
        Job("affuse-base", every=every)
    assert Job("affuse-base", every=0.1).every == 0.1


def test_a_row_may_be_longer_than_the_clip(demo_run, folder: Path, capsys) -> None:
    assert command(demo_run[0], folder / "a.mp4", "--every", "1e6", "--format", "json") == 0
    assert len(json.loads(capsys.readouterr().out)["segments"]) == 1


@pytest.mark.parametrize("out", ["c.mp4", "c.mp4/below"])
def test_a_place_that_is_no_folder_is_told_before_the_model_loads(folder: Path, out: str, capsys) -> None:
    assert command(folder / "none", folder / "a.mp4", "--format", "json", "--out", folder / out) == 1
    assert f"cannot write to {folder / out}: {folder / 'c.mp4'} is not a folder" in capsys.readouterr().err


def test_out_may_be_at_home(demo_run, folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert command(demo_run[0], folder / "a.mp4", "--format", "json", "--out=~/answers") == 0
    assert (folder / "answers" / "a.json").is_file()
    assert names(find_clips([str(folder)])) == ["a.mp4", "c.mp4", "b.mp4"]  # answers are no clips
