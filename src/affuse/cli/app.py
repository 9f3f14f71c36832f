"""The `affuse` command: one file per verb, results on stdout, everything else on stderr.

Exit codes: 0 all succeeded, 1 something failed, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from cyclopts import App, CycloptsError

from affuse.cli import analyze, bench, check, compare, demo, doctor, evaluate, extract, import_, list_, show, train
from affuse.cli.console import console, output, print_error
from affuse.core.errors import AffuseError, BadConfig, MissingFile, UnknownName

app = App(
    name="affuse",
    help="Multimodal emotion recognition: from a video file to an emotion timeline.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
    console=output,
    result_action="return_value",
)
for verb in (analyze, train, evaluate, compare, bench, extract, check):
    app.command(verb.run, name=verb.__name__.rsplit(".", 1)[-1])
app.command(import_.app, name="import")
app.command(list_.run, name="list")
app.command(show.run, name="show")
app.command(doctor.run, name="doctor")
app.command(demo.run, name="demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        print_error(str(error), "see: affuse --help")
        return 2
    except (UnknownName, BadConfig, MissingFile) as error:
        print_error(error.message, error.remedy)
        return 2
    except AffuseError as error:
        print_error(error.message, error.remedy)
        return 1
    except KeyboardInterrupt:
        console.print("[yellow]interrupted[/]: what was complete is kept; run the same command again to go on")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a folder that cannot be written, a disk that is full, where nothing else has said so
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error), "check the path, its permissions and the space left")
        return 1


def entry() -> None:
    """Console-script entry point."""
    if isinstance(sys.stdout, TextIOWrapper):  # a character that the terminal's encoding lacks costs a "?", not the answer
        sys.stdout.reconfigure(errors="replace")
    sys.exit(main())
