"""affuse submit abaw-...: videos to the file that a challenge asks for, a row per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.console import Device, Quiet, Threads, Whole, choose_device, note, output, progress

if TYPE_CHECKING:
    import numpy as np

    from affuse.core.tasks import Task
    from affuse.inference.recognizer import Recognizer
    from affuse.reporting.submissions.challenges import Challenge, Row

RECORD = "submission.json"


def run(
    challenge: Literal["abaw-compound", "abaw-expression", "abaw-va", "abaw-au"],
    model: str,
    *videos: str,
    out: Path,
    samples: Annotated[Path | None, Parameter(name="--list")] = None,
    labels: Literal["compound", "compound-sum", "compound-avcer"] | None = None,
    every: float = 0.5,
    workers: Annotated[int, Whole] = 1,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Write the file of CHALLENGE into --out: what MODEL predicts for every frame of VIDEOS (predictions.txt).

    mer2023 and muse-mimic have a row per clip of a corpus, and options of their own: affuse submit mer2023 --help

    MODEL: affuse-base, or a run folder. VIDEOS: files, folders, globs; a video is named by its file, without suffix.

    Parameters
    ----------
    out
        Folder for predictions.txt, and for submission.json, which says how it was made.
    samples
        The organisers' list of frames (VIDEO/00001.jpg per line): the file gets exactly these, in this order.
    labels
        How basic emotions become compound ones, for a model without compound classes (default: compound).
    every
        Seconds that share an answer, for a model that does not answer per frame.
    workers
        Processes for several videos.
    """
    from affuse.core import io
    from affuse.core.errors import BadMedia
    from affuse.core.memory import keep_flat
    from affuse.inference.clips import Job, analyze_clips
    from affuse.inference.windows import check_every
    from affuse.reporting.submissions.challenges import CHALLENGES
    from affuse.reporting.submissions.files import NAME, write_submission
    from affuse.reporting.submissions.frames import rows_of
    from affuse.reporting.submissions.samples import check_videos, fit, read_samples

    asked = CHALLENGES[challenge]
    check_every(every)
    _check(asked, labels, workers)
    paths = _named(videos)
    wanted = None if samples is None else read_samples(samples, asked)
    if samples is not None and wanted is not None:
        check_videos(paths, wanted, samples)
    chosen = choose_device(device, threads)
    keep_flat()
    from affuse.inference.recognizer import crops_of, load

    recognizer, task, mapped = _answering(load(model, chosen), asked, labels)
    if never := asked.never(task):
        note(f"{recognizer.name} has no class for {', '.join(never)}: no frame gets it", quiet)
    looked = any(crops_of(extractor) is not None for extractor in recognizer.extractors.values())
    times = {name: _times(path) for name, path in paths.items()}  # before the long part: what cannot be read fails here
    rows: dict[str, list[Row]] = {}
    made: dict[str, Video] = {}
    names = {path: name for name, path in paths.items()}
    job = Job(model, every=every, device=chosen, labels=mapped)
    with progress(quiet or len(paths) < 2) as bar:
        shown = bar.add_task("videos", total=len(paths))
        for timeline in analyze_clips(recognizer, job, list(names), workers):
            if timeline.error is not None:
                raise BadMedia(timeline.error["message"], timeline.error["remedy"])
            name = names[timeline.clip]
            rows[name], unanswered = rows_of(timeline, asked, task, times[name])
            made[name] = Video(len(rows[name]), unanswered, len(timeline.faces))
            note(escape(_line(name, made[name], looked)), quiet)
            bar.advance(shown)
    fitted = fit({name: rows[name] for name in paths}, wanted)
    for name in paths:
        made[name] = replace(made[name], repeated=fitted.repeated.get(name, 0), dropped=fitted.dropped.get(name, 0))
    _note_lengths(made, quiet)
    write_submission(out / NAME, asked, fitted.rows)
    settings = {"challenge": challenge, "model": model, "task": task.name, "labels": mapped, "every": every}
    videos_made = {name: vars(video) for name, video in made.items()}
    io.write_json(out / RECORD, settings | {"rows": len(fitted.rows), "videos": videos_made})
    output.print(f"{len(fitted.rows)} rows of {len(paths)} videos: {out / NAME}", soft_wrap=True, markup=False)
    return 0


@dataclass(frozen=True)
class Video:
    """How one video's rows were made: its frames, those without a prediction, face tracks, rows repeated or dropped."""

    frames: int
    unanswered: int
    faces: int
    repeated: int = 0
    dropped: int = 0


def _check(challenge: Challenge, labels: str | None, workers: int) -> None:
    """Raise BadConfig for impossible options."""
    from affuse.core.errors import BadConfig

    if labels and challenge.name != "abaw-compound":
        raise BadConfig(f"--labels {labels} for {challenge.name}", "it is for abaw-compound only: leave it out")
    if workers < 1:
        raise BadConfig(f"--workers {workers}", "give at least 1")


def _named(videos: Sequence[str]) -> dict[str, str]:
    """Name -> path of every video. Raises BadConfig for none, and for two of one name."""
    from affuse.core.errors import BadConfig
    from affuse.inference.clips import find_clips

    found: dict[str, str] = {}
    for path in find_clips(videos):
        name = Path(path).stem
        if name in found:
            raise BadConfig(f"{found[name]} and {path} are both named '{name}'", "give one of them, or rename it")
        found[name] = path
    if not found:
        raise BadConfig("no video given", "affuse submit CHALLENGE MODEL VIDEO... --out DIR")
    return found


def _answering(recognizer: Recognizer, challenge: Challenge, labels: str | None) -> tuple[Recognizer, Task, str]:
    """(the recognizer, its task that answers the challenge, the mapping to compound emotions or "").

    Basic emotions become compound ones where the challenge is of these and the model is not, or where `labels` says so.
    """
    from affuse.core.compound import derived
    from affuse.core.errors import BadConfig

    mapped = labels or ""
    if challenge.name == "abaw-compound" and not labels:
        try:
            return recognizer, challenge.task_of(recognizer.name, recognizer.tasks), ""
        except BadConfig:
            mapped = "compound"
    if mapped:
        recognizer = replace(recognizer, compound=derived(mapped))
    return recognizer, challenge.task_of(recognizer.name, recognizer.tasks), mapped


def _times(path: str) -> np.ndarray:
    """When the frames of a video begin; BadMedia where it has none."""
    from affuse.core.errors import BadMedia
    from affuse.media.video import frame_times

    times = frame_times(path)
    if not len(times):
        raise BadMedia(f"{path} has no picture, so there is no frame to predict", "give a video")
    return times


def _line(name: str, video: Video, looked: bool) -> str:
    """What the reader should know about a video's rows; `looked`: whether the model looks for faces."""
    line = f"{name}: {video.frames} frames"
    if looked and not video.faces:
        line += "; no face found"
    if video.unanswered == video.frames:
        return f"{line}; no prediction at all: its rows hold the default"
    if video.unanswered:
        return f"{line}; {video.unanswered} without a prediction have that of the nearest frame before or after"
    return f"{line}; its rows rest on what else there is" if looked and not video.faces else line


def _note_lengths(made: Mapping[str, Video], quiet: bool) -> None:
    """Name the videos that are shorter or longer than the list has them."""
    for name, video in made.items():
        if video.repeated:
            note(escape(f"{name}: {video.repeated} rows beyond its {video.frames} frames repeat the last one"), quiet)
        if video.dropped:
            note(escape(f"{name}: {video.dropped} of its {video.frames} frames are not in the list, left out"), quiet)
