"""Work spread over processes; when a process dies, only the item it worked on is lost."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, current_process, get_context
from typing import Any, TypeVar

from affuse.core.errors import AffuseError, BadConfig

Item = TypeVar("Item")
Result = TypeVar("Result")
CRASH = "the process that worked on it died (a crash in a decoder, or no memory left)"
BEGUN, READY = 1, 2  # stages of a process: it runs, and its `start` has returned
GUARD = 'put what it does below  if __name__ == "__main__":  or use one process'

_failed: AffuseError | None = None  # in a process: why its `start` failed


def spread(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    start: Callable[..., None],
    arguments: tuple[Any, ...],
) -> Iterator[tuple[Item, Result | None]]:
    """(item, result) in the order in which `workers` processes finish; None: the process died on that item.

    Each process first calls `start(*arguments)`. When one dies it is not known on which item, so all items in progress
    are done again, each in a process of its own. After an interruption, or when the iterator is closed, the processes
    are ended without waiting for the items in progress.

    Raises BadConfig, once and for no item, where no process can start (a script without `if __name__ == "__main__":`,
    or one from standard input) or where `start` fails; an AffuseError of `start` is raised as it is.
    """
    _check_script()
    waiting, others = list(reversed(items)), set(active_children())
    while waiting:
        suspects: list[Item] = []
        pool, stage = _pool(workers, start, arguments)
        running: dict[Future[Result], Item] = {}
        try:
            while (waiting and not suspects) or running:
                while waiting and not suspects and len(running) < 2 * workers:
                    item = waiting.pop()
                    running[pool.submit(_run, work, item)] = item
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    item = running.pop(future)
                    try:
                        yield item, future.result()
                    except BrokenProcessPool:
                        suspects.append(item)
        except BrokenProcessPool:  # at submit: the item to be submitted, and all in progress
            suspects += [item, *running.values()]
        except (KeyboardInterrupt, GeneratorExit):
            for process in set(active_children()) - others:
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if suspects:
            _check_stage(stage.value)
        for item in suspects:
            yield item, _alone(work, item, start, arguments)


def _alone(
    work: Callable[[Item], Result], item: Item, start: Callable[..., None], arguments: tuple[Any, ...]
) -> Result | None:
    """One item in a process of its own; None where the process dies."""
    pool, stage = _pool(1, start, arguments)
    with pool:
        try:
            return pool.submit(_run, work, item).result()
        except BrokenProcessPool:
            _check_stage(stage.value)
            return None


def _pool(workers: int, start: Callable[..., None], arguments: tuple[Any, ...]) -> tuple[ProcessPoolExecutor, Any]:
    """A pool, and the furthest stage of its processes (without a lock, which a process that dies might keep)."""
    context = get_context("spawn")
    stage = context.RawValue("b", 0)
    return ProcessPoolExecutor(workers, context, _start, (stage, start, arguments)), stage


def _start(stage: Any, start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    global _failed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and keeps what is complete
    stage.value = max(stage.value, BEGUN)
    try:
        start(*arguments)
    except AffuseError as error:
        _failed = error
    except Exception as error:  # noqa: BLE001 any error here concerns the run, not an item
        message = f"a process could not get ready: {type(error).__name__}: {error}"
        _failed = BadConfig(message, "use one process, or fewer")
        _failed.__cause__ = error
    stage.value = READY


def _run(work: Callable[[Item], Result], item: Item) -> Result:
    if _failed is not None:
        raise _failed
    return work(item)


def _check_script() -> None:
    """Raise BadConfig where the main script cannot be read again, which every process does when it starts."""
    if getattr(current_process(), "_inheriting", False):
        sys.exit(1)  # such a process, in a script without the guard; the parent process raises the error
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is not None and getattr(main, "__spec__", None) is None and not os.path.isfile(file):
        raise BadConfig(f"{file} is no script that processes can read anew", f"save it to a file; there, {GUARD}")


def _check_stage(stage: int) -> None:
    """Raise BadConfig where no process reached its work, so that no item is the cause."""
    if stage < BEGUN:
        script = getattr(sys.modules["__main__"], "__file__", "the script")
        what = f'each first runs {script} anew, which lacks  if __name__ == "__main__":  or fails'
        raise BadConfig(f"no process could begin: {what}", GUARD)
    if stage < READY:
        raise BadConfig("a process died before it was ready (no memory left, or a crash)", "use one process, or fewer")
