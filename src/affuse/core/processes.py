"""Work spread over processes, where a process that dies costs one item and not the run."""

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
BEGUN, READY = 1, 2  # how far a process got: to its own beginning, and past `start`
GUARD = 'put what it does below  if __name__ == "__main__":  or use one process'

_refused: AffuseError | None = None  # in a process: why its `start` failed


def spread(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, start: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[tuple[Item, Result | None]]:
    """(item, result) as they come from `workers` processes, each begun with `start(*arguments)`; None: it died on that item.

    When a process dies nobody knows on which item, so those then under way are done again, each in a process of its own.
    Who interrupts, or asks for no more, does not wait for what is under way: its processes are ended.

    Raises BadConfig, once and for no item, where no process can begin (a script without `if __name__ == "__main__":`, or
    one from standard input) or where `start` fails; an AffuseError of `start` is raised as it is.
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
        except BrokenProcessPool:  # at submit: the item that was to go in, and all under way
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


def _alone(work: Callable[[Item], Result], item: Item, start: Callable[..., None], arguments: tuple[Any, ...]) -> Result | None:
    pool, stage = _pool(1, start, arguments)
    with pool:
        try:
            return pool.submit(_run, work, item).result()
        except BrokenProcessPool:
            _check_stage(stage.value)
            return None


def _pool(workers: int, start: Callable[..., None], arguments: tuple[Any, ...]) -> tuple[ProcessPoolExecutor, Any]:
    """Processes, and how far the foremost of them got (without a lock, which a process that dies might keep)."""
    context = get_context("spawn")
    stage = context.RawValue("b", 0)
    return ProcessPoolExecutor(workers, context, _start, (stage, start, arguments)), stage


def _start(stage: Any, start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    global _refused
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and keeps what is complete
    stage.value = max(stage.value, BEGUN)
    try:
        start(*arguments)
    except AffuseError as error:
        _refused = error
    except Exception as error:  # noqa: BLE001 whatever it is, it is the whole run's and no item's
        _refused = BadConfig(f"a process could not get ready: {type(error).__name__}: {error}", "use one process, or fewer")
        _refused.__cause__ = error
    stage.value = READY


def _run(work: Callable[[Item], Result], item: Item) -> Result:
    if _refused is not None:
        raise _refused
    return work(item)


def _check_script() -> None:
    """BadConfig where the script that runs cannot be read anew, as every process that begins does first."""
    if getattr(current_process(), "_inheriting", False):
        sys.exit(1)  # this is such a process, in a script without its guard: the one that started it says so
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is not None and getattr(main, "__spec__", None) is None and not os.path.isfile(file):
        raise BadConfig(f"{file} is no script that processes can read anew", f"save it to a file; there, {GUARD}")


def _check_stage(stage: int) -> None:
    """BadConfig where no process got as far as its work, so that no item is to blame."""
    if stage < BEGUN:
        script = getattr(sys.modules["__main__"], "__file__", "the script")
        what = f'each first runs {script} anew, which lacks  if __name__ == "__main__":  or fails'
        raise BadConfig(f"no process could begin: {what}", GUARD)
    if stage < READY:
        raise BadConfig("a process died before it was ready (no memory left, or a crash)", "use one process, or fewer")
