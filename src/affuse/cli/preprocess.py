"""affuse preprocess: a corpus' clips as WAV and JPEG files with an index, for any other tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.console import Quiet, Whole, note, output, progress
from affuse.core.errors import BadConfig

if TYPE_CHECKING:
    from affuse.corpora.preprocess import Preprocessed


def run(
    corpus: Path,
    out: Path,
    *,
    only: Annotated[list[Literal["audio", "vision"]] | None, Parameter(negative="", consume_multiple=True)] = None,
    rate: float = 5.0,
    size: Annotated[int | None, Whole] = None,
    quality: Annotated[int, Whole] = 2,
    faces: Annotated[bool, Parameter(negative="")] = False,
    workers: Annotated[int, Whole] = 1,
    quiet: Quiet = False,
) -> int:
    """Write the clips of CORPUS into OUT as audio/ID.wav (16 kHz, mono) and frames/ID/00001.jpg, with index.csv.

    Goes on where it stopped, and lists what failed; exits with 1 then.

    Parameters
    ----------
    only
        Modalities to write (default: both).
    rate
        Frames per second: frame n shows (n - 1) / rate seconds after the utterance's start.
    size
        Longest side of a frame in pixels (default: as it is), or the side of a face crop (default: 224).
    quality
        Of the JPEGs, as FFmpeg's -q:v: 1 (finest) to 31.
    faces
        Aligned crops of the most prominent face; a frame without it has no file.
    workers
        Processes that write side by side; 0 writes in this one.
    """
    from affuse.core.seed import set_threads
    from affuse.corpora.clip_files import FileSettings
    from affuse.corpora.manifest import Corpus
    from affuse.corpora.preprocess import preprocess

    if workers < 0:
        raise BadConfig(f"--workers {workers}", "give 0 or more")
    settings = FileSettings(tuple(only or ("audio", "vision")), rate, size, quality, faces)
    opened = Corpus.open(corpus)
    set_threads(None)
    with progress(quiet) as bar:
        task = bar.add_task("clips", total=None)

        def show(done: int, total: int, failed: int) -> None:
            description = f"clips ({failed} failed)" if failed else "clips"
            bar.update(task, completed=done, total=total, description=description)

        done = preprocess(opened, out, settings, workers, show)
    _report(done, len(opened), quiet)
    return 1 if done.failures else 0


def _report(done: Preprocessed, total: int, quiet: bool) -> None:
    """What was written, what clips lack, and what failed."""
    for what, count in done.missing.items():
        note(f"  [yellow]{count} of {total} clips have no {what}[/]", quiet)
    for name, error in list(done.failures.items())[:10]:
        note("  [red]failed[/] " + escape(f"{name}: {error['message']}"))
    if done.failures:
        failed = f"{len(done.failures)} of {total} failed, see {done.index.with_name('failures.json')}"
        output.print(failed, soft_wrap=True, markup=False)
    written = f"{done.added} new, {done.complete} of {total} clips in all: {done.index}"
    output.print(written, soft_wrap=True, markup=False)
