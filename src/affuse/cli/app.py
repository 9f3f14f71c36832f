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

from affuse.cli import (
    analyze,
    bench,
    check,
    compare,
    demo,
    doctor,
    evaluate,
    extract,
    import_,
    list_,
    monitor,
    preprocess,
    pretrain,
    show,
    submit,
    train,
)
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
for verb in (analyze, monitor, train, pretrain, evaluate, compare, bench, extract, preprocess, check):
    app.command(verb.run, name=verb.__name__.rsplit(".", 1)[-1])
app.command(submit.app, name="submit")
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
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except CycloptsError as error:
        print_error(str(error), _dashed(sys.argv[1:] if arguments is None else arguments) or "see: affuse --help")
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
    except OSError as error:  # a folder that cannot be written, a disk that is full, where nothing else reported it
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        print_error(message, "check the path, its permissions and the space left")
        return 1


def _dashed(arguments: Sequence[str]) -> str:
    """How to write a path that begins with a dash and was taken for an option; "" where none was."""
    from affuse.media.files import MEDIA

    if "-" in arguments:
        return "nothing is read from standard input (-): save it to a file, and give its path"
    dashed = (a for a in arguments if a.startswith("-"))
    paths = (a for a in dashed if os.path.lexists(a) or os.path.splitext(a)[1].lower() in MEDIA)
    return next((f"a path that begins with a dash needs ./ before it: ./{path}" for path in paths), "")


def entry() -> None:
    """Console-script entry point."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next file to be opened gets its number, and what libraries print
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if isinstance(sys.stdout, TextIOWrapper):
        # a character that the terminal's encoding lacks costs a "?", not all of the output
        sys.stdout.reconfigure(errors="replace")
    sys.exit(main())
