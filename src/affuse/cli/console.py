"""Output of the command line: messages and progress on stderr, tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token
from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, Task


class Output(Console):
    """The console of stdout; a reader that has gone away (`affuse show mlp | head`) ends the command in `main`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = Console(stderr=True, highlight=False)
output = Output(highlight=False)

MOST_THREADS = 1024  # more are never faster, and OpenMP may crash on them
Device = Annotated[str, Parameter(help="cpu, cuda, or auto: cuda where there is one")]


def _whole(_type: object, tokens: Sequence[Token]) -> int:
    """A whole number: cyclopts by itself would take 1.5 for 2."""
    try:
        return int(tokens[0].value)
    except ValueError as error:
        raise ValueError(f'"{tokens[0].value}" is no whole number') from error


Whole = Parameter(converter=_whole)
Threads = Annotated[int | None, Whole, Parameter(help="torch threads; default 1 on machines with two cores or fewer")]
Quiet = Annotated[bool, Parameter(help="no progress and no notices", negative="")]


def print_error(message: str, remedy: str = "") -> None:
    """One error on stderr: what is wrong, then what to do."""
    console.print("[bold red]error[/]:", end=" ")
    console.print(message, markup=False, soft_wrap=True)
    if remedy:
        console.print("   ->", remedy, markup=False, soft_wrap=True)


def note(text: str, quiet: bool = False) -> None:
    """A line on stderr."""
    if not quiet:
        console.print(text, soft_wrap=True)


def choose_device(name: str, threads: int | None) -> str:
    """Set torch's threads and resolve `auto`; BadConfig for a device that is not there, or for too many threads."""
    import torch

    from affuse.core.errors import BadConfig
    from affuse.core.seed import set_threads

    if threads is not None and threads > MOST_THREADS:
        raise BadConfig(f"--threads {threads}", f"give at most {MOST_THREADS}; as many as there are cores is plenty")
    set_threads(threads)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise BadConfig(f"--device {name} is none that affuse uses", "give cpu, cuda or auto")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise BadConfig(f"--device {name}: no CUDA device here", "use --device cpu, or install a CUDA build of torch")
    return name


def by_modality(option: str, given: Sequence[str], what: str) -> dict[str, str]:
    """Modality -> value of a repeated option MODALITY=WHAT; BadConfig for another form or a modality named twice."""
    from affuse.core.errors import BadConfig

    pairs = [item.partition("=")[::2] for item in given]
    for item, (modality, value) in zip(given, pairs, strict=True):
        if not modality or not value:
            raise BadConfig(f"{option} {item} is not MODALITY={what}", f"write for example {option} audio={what}")
        if [m for m, _ in pairs].count(modality) > 1:
            raise BadConfig(f"{option} names {modality} twice", "give one per modality")
    return dict(pairs)


@contextmanager
def progress(quiet: bool, window: float = 30) -> Iterator[Progress]:
    """A rich progress display on stderr, its speed over `window` seconds.

    Silent under --quiet, and where stderr is closed or no terminal.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    silent = quiet or sys.stderr is None or not sys.stderr.isatty()
    with Progress(*columns, console=console, disable=silent, transient=True, speed_estimate_period=window) as bar:
        yield bar


def metric_cell(value: Mapping[str, Any]) -> str:
    """A metric with its interval as text; a dash where it has no value."""
    if value["value"] is None:
        return "-"
    if value["low"] is None:
        return f"{value['value']:z.3f}"
    return f"{value['value']:z.3f} [{value['low']:z.3f}, {value['high']:z.3f}]"
