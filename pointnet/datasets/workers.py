"""Work on many files spread over processes, one per core; nothing is left running when this process ends."""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from pointnet.devices import free_cores

FEWEST = 8  # items that are worth starting processes for


class WorkerDiedError(Exception):
    """A worker process ended abnormally; `args` are the items that were being worked on or about to be."""


def on_all_cores(work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """The results of `work(item)` for each item, in the order they are ready.

    What `work` raises is raised here, and the remaining items are dropped. Where processes are started by forking
    (Linux), `work` need not be picklable.

    Raises:
        WorkerDiedError: a worker process ended abnormally, such as one that ran out of memory.
    """
    cores = min(free_cores(), len(items))
    if cores < 2 or len(items) < FEWEST or multiprocessing.current_process().daemon:  # which may have no children
        yield from map(work, items)
        return
    # Forked where that is safe: workers need only numpy, have all modules, and a script needs no main guard.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    pool = ProcessPoolExecutor(cores, context, _start, (work,))
    rest, running = iter(items), dict[Future[Any], Any]()

    def submit(count: int) -> None:
        running.update((pool.submit(_run, item), item) for item in islice(rest, count))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which workers do not use
            submit(2 * cores)  # no more than that: if a worker dies, these are the items it may have died of
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield future.result()
                del running[future]
                submit(1)
    except BrokenProcessPool as error:
        unfinished = (item for future, item in running.items() if not future.done() or future.exception())
        raise WorkerDiedError(*unfinished) from error
    finally:
        pool.shutdown(cancel_futures=True)


_work: Callable[[Any], Any]  # what this process does with an item; set in workers alone


def _start(work: Callable[[Any], Any]) -> None:
    """Runs first in each worker. Handing `work` over once is cheaper than with every item, and it is not pickled."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed: it would wait for items for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(item: Any) -> Any:
    return _work(item)
