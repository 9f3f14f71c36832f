"""affuse extract: fill a corpus' feature stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.markup import escape

from affuse.cli.console import Quiet, Threads, note, output, progress
from affuse.core.config import parse_value
from affuse.core.errors import BadConfig
from affuse.core.types import Modality

if TYPE_CHECKING:
    from affuse.corpora.manifest import Corpus

CONTENT: dict[Modality, str] = {"audio": "sound", "vision": "face or picture", "text": "words"}


def run(
    corpus: Path,
    extractor: str,
    *options: str,
    workers: int = 1,
    on: Literal["processes", "ray"] = "processes",
    half: Annotated[bool, Parameter(negative="")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> int:
    """Run EXTRACTOR over CORPUS with key=value OPTIONS.

    Goes on where it stopped, and lists what failed; exits with 1 then, also where nothing is usable.

    Parameters
    ----------
    workers
        Processes (or Ray actors) that extract side by side; 0 extracts in this one.
    on
        ray: on the cluster of $RAY_ADDRESS (or one started here), whose nodes all see CORPUS and its media.
    half
        Store numbers in half precision: half the space, three digits.
    """
    from affuse.cli.import_ import pairs
    from affuse.core.seed import set_threads
    from affuse.corpora.manifest import Corpus

    set_threads(threads)
    parameters = {k: parse_value(v) for k, v in pairs(list(options), "option").items()}
    return extract_into(Corpus.open(corpus), extractor, parameters, workers, quiet, on, half=half)


def extract_into(
    corpus: Corpus,
    extractor: str,
    parameters: dict[str, Any],
    workers: int,
    quiet: bool,
    on: Literal["processes", "ray"] = "processes",
    needed: bool = True,
    half: bool = False,
) -> int:
    """Extract with a progress bar; prints the store, what is unusable and what failed; returns the exit code.

    It is 1 for failures, and where nothing is usable unless the stream is not `needed`: then it is absent, which is
    normal.
    """
    from affuse.corpora.extraction.extract import TEXTS, extract

    if workers < 0:
        raise BadConfig(f"--workers {workers}", "give 0 or more")
    with progress(quiet) as bar:
        task = bar.add_task(extractor, total=None)

        def show(done: int, total: int, failed: int) -> None:
            description = f"{extractor} ({failed} failed)" if failed else extractor
            bar.update(task, completed=done, total=total, description=description)

        done = extract(corpus, extractor, parameters, workers, show, on, half)
    note(escape(f"{extractor}: {done.added} new, {len(done.store)} in all -> {done.store.path}"), quiet)
    if (texts := done.store.path / TEXTS).is_file():
        note(escape(f"  what the ids stand for: {texts}"), quiet)
    for name, error in list(done.failures.items())[:10]:
        note("  [red]failed[/] " + escape(f"{name}: {error['message']}"))
    if done.failures:
        output.print(
            f"{len(done.failures)} of {len(corpus)} failed, see {done.store.path / 'failures.json'}",
            soft_wrap=True,
            markup=False,
        )
    content = CONTENT[done.store.spec.modality]
    if needed and done.unusable and len(done.unusable) == len(done.store):
        note(
            f"  [red]nothing usable[/]: none of the {len(done.store)} utterances has any {content} for "
            f"{escape(extractor)}; check start and end, and the media"
        )
        return 1
    if done.unusable:
        listed = ", ".join(done.unusable[:3]) + (", ..." if len(done.unusable) > 3 else "")
        note(
            f"  [yellow]{len(done.unusable)} of {len(corpus)} utterances have no {content}[/] for "
            f"{escape(f'{extractor}: {listed}')}",
            quiet,
        )
    return 1 if done.failures else 0
