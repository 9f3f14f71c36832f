"""Work spread over processes, where a process that dies costs one item and not the run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
CRASH = "the process that worked on it died (a crash in a decoder, or no memory left)"


def spread(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, start: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[tuple[Item, Result | None]]:
    """(item, result) as they come from `workers` processes, each begun with `start(*arguments)`; None: it died on that item.

    When a process dies nobody knows on which item, so those then under way are done again, each in a process of its own.
    Who interrupts, or asks for no more, does not wait for what is under way: its processes are ended.
    """
    waiting, others = list(reversed(items)), set(active_children())
    while waiting:
        suspects: list[Item] = []
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (start, arguments))
        running: dict[Future[Result], Item] = {}
        try:
            while (waiting and not suspects) or running:
                while waiting and not suspects and len(running) < 2 * workers:
                    item = waiting.pop()
                    running[pool.submit(work, item)] = item
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
        for item in suspects:
            yield item, _alone(work, item, start, arguments)


def _alone(work: Callable[[Item], Result], item: Item, start: Callable[..., None], arguments: tuple[Any, ...]) -> Result | None:
    with ProcessPoolExecutor(1, get_context("spawn"), _start, (start, arguments)) as pool:
        try:
            return pool.submit(work, item).result()
        except BrokenProcessPool:
            return None


def _start(start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and keeps what is complete
    start(*arguments)
