"""A process that dies costs its item only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from tests.core import dying

from affuse.core.errors import BadConfig, MissingFile
from affuse.core.processes import spread

UNGUARDED = """from affuse.core.processes import spread
print(sorted(spread(abs, [-1, 2, -3], 2, len, ([],))))
"""
GUARDED = UNGUARDED.replace("print", 'if __name__ == "__main__":\n    print')


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_comes_back_once_and_the_deadly_ones_as_none(workers):
    items = [1, 2, -3, 4, 5, 6, -7, 8]
    found = dict(spread(dying.double, items, workers, dying.begin, ()))
    assert found == {n: 2 * n if n > 0 else None for n in items}


def test_no_items_start_no_process():
    assert list(spread(dying.double, [], 2, dying.begin, ())) == []


@pytest.mark.parametrize("how", ["ctrl-c", "close"])
def test_who_interrupts_does_not_wait_for_what_is_under_way(how):
    found = spread(dying.sleep, [0, 600, 600, 600], 2, dying.begin, ())
    assert next(found) == (0, 0)
    began = time.perf_counter()
    if how == "close":
        found.close()
    else:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(found)
        signal.signal(signal.SIGINT, before)
    assert time.perf_counter() - began < 30
    assert active_children() == []


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        (dying.refuse, MissingFile, "no model here"),
        (dying.run_out, BadConfig, "MemoryError: 40 GB"),
        (dying.die, BadConfig, "before it was ready"),
    ],
)
def test_a_start_that_fails_is_one_error_and_no_items(start, error, words):
    with pytest.raises(error, match=words):
        list(spread(dying.double, [1, 2, 3], 2, start, ()))
    assert active_children() == []


def python(*arguments: str, script: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], input=script, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "again", ["", "import os\nos.mkdir(__file__ + '.out')\n", "if __name__ == '__mp_main__':\n    raise SystemExit\n"]
)
def test_a_script_without_its_guard_is_told_so_once(tmp_path: Path, again: str):
    """Whether it comes to its processes a second time, breaks before, or stops."""
    script = tmp_path / "script.py"
    script.write_text(again + UNGUARDED)
    done = python(str(script))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("BadConfig: no process could begin") == 1
    assert str(script) in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr
    assert "bootstrapping" not in done.stderr
    assert done.stderr.count("Traceback") == 1 or "mkdir" in again


def test_scripts_with_a_guard_and_commands_go_on_and_standard_input_raises(tmp_path: Path):
    (tmp_path / "script.py").write_text(GUARDED)
    expected = "[(-3, 3), (-1, 1), (2, 2)]\n"
    assert python(str(tmp_path / "script.py")).stdout == expected
    assert python("-c", UNGUARDED).stdout == expected  # it has no file that could be run anew
    refused = python(script=GUARDED)
    assert refused.returncode == 1
    assert refused.stderr.count("Traceback") == 1
    assert "BadConfig: <stdin> is no script" in refused.stderr
