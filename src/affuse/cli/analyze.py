"""affuse analyze: clips to emotion timelines."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.console import Device, Quiet, Threads, Whole, by_modality, choose_device, note, print_error, progress
from affuse.cli.timeline_table import print_table
from affuse.core import registry, run_files

if TYPE_CHECKING:
    from affuse.core.timeline import Timeline

FORMATS = ("table", *registry.cards("writers"))  # for the help; parts of one's own may come later
SETTINGS, ANSWERS, FAILURES = "analyze.json", "answers.jsonl", "failures.json"


def run(
    *clips: str,
    model: str = "affuse-base",
    transcript: Path | None = None,
    every: float | None = None,
    expert: Annotated[list[str] | None, Parameter(negative="")] = None,
    causal: Annotated[bool, Parameter(negative="")] = False,
    context: Annotated[bool, Parameter(negative="")] = False,
    labels: Literal["compound", "compound-sum", "compound-avcer"] | None = None,
    format: Annotated[str, Parameter(help=", ".join(FORMATS))] = "table",
    out: Path | None = None,
    workers: Annotated[int, Whole] = 1,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Analyse CLIPS (files, folders, globs): who seems to feel what when, and how sure that is (exit 1 if one failed).

    Parameters
    ----------
    model
        The shipped model, or a run folder.
    transcript
        A .srt or .vtt file (default: the one beside the clip, else the subtitles inside it).
    every
        A row every so many seconds, from 0.1 on (default: the subtitles, else the segments of speech, else windows).
    expert
        MODALITY=MODEL (audio, vision, text): a classifier of the Hugging Face hub, or a folder, in place of the shipped
        model's own expert; MODEL@0.7 gives its reliability. Repeatable, one per modality.
    causal
        Answer every segment from what came before its end only, as live; for a model of conversations trained with
        context mode=causal, or one without context.
    context
        Show on which other utterances each answer of a model of conversations rests (html, json).
    labels
        Answer in compound emotions (happily surprised, ...), made of the model's basic ones without any training.
    out
        Folder for one file per clip; the same command again goes on where it stopped (default: standard output for
        table, json and csv, else the working folder).
    workers
        Processes for several clips.
    """
    from affuse.core import io
    from affuse.core.errors import AffuseError
    from affuse.core.memory import keep_flat
    from affuse.inference.clips import Job, analyze_clips, find_clips

    out, transcript = expanded(out), expanded(transcript)
    _check(clips, every, format, out, workers)
    card = registry.cards("writers").get(format, {})
    files_only = bool(card) and not card.get("stdout")
    folder = out if out is not None else Path() if files_only else None
    _check_place(folder)
    skipped: set[str] = set()
    found = find_clips(clips, skipped)
    note_skipped(skipped, quiet)
    _check_words(transcript, found)
    experts = by_modality("--expert", expert or [], "MODEL")
    chosen = choose_device(device, threads)
    keep_flat()
    from affuse.inference.recognizer import load  # here: its imports take longer than all that is checked above

    recognizer = load(model, chosen, experts, labels or "")
    if causal:
        recognizer.live()  # raises here, once, and not for every clip
    words = None if transcript is None else str(transcript)
    job = Job(model, words, every, chosen, experts, causal, context, labels or "")
    places = {} if folder is None else _places(found, folder, card["suffix"])
    if out is not None:
        extra = {"experts": experts, "causal": causal, "context": context, "labels": labels}
        settings = {"model": model, "every": every, "format": format} | {k: v for k, v in extra.items() if v}
        marks = {clip: _mark(clip, transcript, Path(model)) for clip in found}
        found = _left(out, places, marks, settings, quiet)
    failures: dict[str, dict[str, Any]] = {}
    header = True
    with progress(quiet or len(found) < 2) as bar:
        task = bar.add_task("clips", total=len(found))
        for timeline in analyze_clips(recognizer, job, found, workers):
            if timeline.error is not None:
                failures[timeline.clip] = timeline.error
            if folder is None:
                emit(timeline, format, header)
                header = header and timeline.error is not None
            elif timeline.error is None:
                try:
                    timeline.save(places[timeline.clip], format)
                except AffuseError as error:
                    failures[timeline.clip] = error.to_dict()
                else:
                    if out is not None:
                        file = str(places[timeline.clip].relative_to(out))
                        io.append_jsonl(out / ANSWERS, {"file": file, **marks[timeline.clip]})
                    note(escape(one_line(f"{timeline.clip} -> {places[timeline.clip]}")), quiet)
            bar.advance(task)
    _list(failures, out, shown=folder is None)
    return 1 if failures else 0


def _check(clips: Sequence[str], every: float | None, format: str, out: Path | None, workers: int) -> None:
    """Raise BadConfig for impossible options, MissingDependency for a format whose package is absent."""
    from affuse.core.errors import BadConfig
    from affuse.inference.windows import check_every

    if not clips:
        raise BadConfig("no clip given", "affuse analyze CLIP...")
    check_every(every)
    check_workers(workers)
    writers = registry.cards("writers")
    if format != "table" and format not in writers:
        raise BadConfig(f"--format {format} is unknown", f"give table | {' | '.join(writers)}")
    if out is not None and format == "table":
        raise BadConfig("a table is for the terminal", f"with --out give --format {' | '.join(writers)}")
    if format in writers:
        registry.load("writers", format)  # now, rather than after the first clip, where its package is absent


def check_workers(workers: int) -> None:
    """Raise BadConfig for fewer than one process, or for so many that they only wait for each other."""
    from affuse.core.errors import BadConfig

    if workers < 1:
        raise BadConfig(f"--workers {workers}", "give at least 1")
    if workers > (most := max(16, 2 * (os.cpu_count() or 1))):
        remedy = f"give at most {most}: each loads the model anew, and keeps a core busy"
        raise BadConfig(f"--workers {workers}", remedy)


def _check_words(transcript: Path | None, clips: Sequence[str]) -> None:
    """Raise MissingFile or BadConfig where `transcript` is no file, or is for more than one clip."""
    from affuse.core.errors import BadConfig, MissingFile

    if transcript is not None and not transcript.is_file():
        raise MissingFile(f"no subtitle file {transcript}", "give --transcript a .srt or .vtt file")
    if transcript is not None and len(clips) > 1:
        raise BadConfig(f"--transcript for {len(clips)} clips", "give one clip, or put a .srt or .vtt file beside each")


def emit(timeline: Timeline, format: str, header: bool) -> None:
    """Write one answer to stdout, a table of columns with its `header` or without."""
    if format == "json":
        _print(str(timeline.render("json")))
    elif timeline.error is not None:
        print_failed(timeline.clip, timeline.error)
    elif format == "csv":
        _print(str(timeline.render("csv", header=header)))
    else:
        print_table(timeline)


def failure(clip: str, error: Mapping[str, str]) -> str:
    """Why a clip has no answer, and which clip where the message does not name it."""
    return one_line(error["message"] if clip in error["message"] else f"{clip}: {error['message']}")


def print_failed(clip: str, error: Mapping[str, str]) -> None:
    """Print why a clip has no answer, and what to do."""
    print_error(failure(clip, error), one_line(error["remedy"]))


def one_line(text: str) -> str:
    """Text in one line, with file names of any characters: those that are not printed are written as in Python."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def note_skipped(skipped: Collection[str], quiet: bool) -> None:
    """Note how many files of the folders are no clips, by suffix."""
    suffixes = Counter(sorted(os.path.splitext(file)[1].lower() or "without a suffix" for file in skipped))
    if skipped:
        what = "files that are no clips" if len(skipped) > 1 else "file that is no clip"
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in suffixes.most_common())
        note(escape(one_line(f"skipped {len(skipped)} {what}: {kinds}")), quiet)


def expanded(path: Path | None) -> Path | None:
    """A path whose ~ the shell left as it was (--out=~/answers)."""
    return None if path is None else Path(os.path.expanduser(path))


def _check_place(folder: Path | None) -> None:
    """Raise StorageError, before the first clip, where answers cannot be written: to `folder`, or None: to stdout."""
    from affuse.core.errors import StorageError

    if folder is None:
        if sys.stdout is None:
            message = "standard output is closed: there is no place for the answers"
            raise StorageError(message, "give --out FOLDER with --format, or > FILE")
        return
    above = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not above.is_dir():
        raise StorageError(f"cannot write to {folder}: {above} is not a folder", "choose another --out")
    if not os.access(above, os.W_OK | os.X_OK):
        message = f"cannot write to {folder}: {above} is not yours to change"
        raise StorageError(message, "choose another --out, or change its permissions")


def _print(text: str) -> None:
    """Text with file names of any bytes, as it is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text))
    sys.stdout.buffer.flush()


def _places(clips: list[str], folder: Path, suffix: str) -> dict[str, Path]:
    """The file of every clip: its path below the clips' common folder, named after the clip with `suffix` added.

    A suffix of the clip's own is kept where two clips differ in nothing else.
    """
    paths = [Path(os.path.abspath(clip)) for clip in clips]  # without ..
    root = Path(os.path.commonpath([p.parent for p in paths]))
    bare = [p.relative_to(root).with_suffix("") for p in paths]
    names = [b if bare.count(b) == 1 else p.relative_to(root) for b, p in zip(bare, paths, strict=True)]
    return {clip: folder / f"{name}{suffix}" for clip, name in zip(clips, names, strict=True)}


def _mark(clip: str, transcript: Path | None, model: Path) -> dict[str, Any]:
    """The state of what an answer depends on: the clip, its subtitle file and the run."""
    from affuse.core import io
    from affuse.media.subtitles import sidecar

    def state(path: Path | None) -> list[Any] | None:
        try:
            return None if path is None else [os.path.abspath(path), (now := path.stat()).st_size, now.st_mtime_ns]
        except OSError:
            return None

    run = model / run_files.INFO
    made = io.read_json(run).get("created") if run.is_file() else None
    return {"clip": state(Path(clip)), "words": state(transcript or sidecar(clip)), "run": made}


def _left(
    out: Path, places: dict[str, Path], marks: dict[str, dict[str, Any]], settings: dict[str, Any], quiet: bool
) -> list[str]:
    """The clips that have no answer yet, or whose answer is of another state of the clip, its words or the run.

    Raises BadRun if `out` holds answers to another question, or another clip's answer where one of these would be.
    """
    from affuse.core import io
    from affuse.core.errors import BadRun

    if (out / SETTINGS).is_file() and (old := io.read_json(out / SETTINGS)) != settings:
        raise BadRun(f"{out} holds answers for {old}", "choose another --out, or delete it")
    io.write_json(out / SETTINGS, settings)
    answered = {out / row.pop("file"): row for row in io.read_jsonl(out / ANSWERS)}
    left = []
    for clip, file in places.items():
        if not file.is_file() or file not in answered or marks[clip]["clip"] is None:
            left.append(clip)
        elif answered[file]["clip"][0] != marks[clip]["clip"][0]:
            message = f"{file} is the answer for {answered[file]['clip'][0]}, not for {clip}"
            raise BadRun(message, "choose another --out, or give both clips at once")
        elif answered[file] != marks[clip]:
            left.append(clip)
    if len(left) < len(places):
        note(f"{len(places) - len(left)} of {len(places)} clips are there already", quiet)
    return left


def _list(failures: dict[str, dict[str, Any]], out: Path | None, shown: bool) -> None:
    """Print the failed clips (unless already `shown` one by one) and record them in the folder of the answers."""
    from affuse.core import io

    if not shown:
        for clip, error in failures.items():
            print_failed(clip, error)
    if out is not None:
        io.write_json(out / FAILURES, failures)
