"""Who processes days: processes of their own for a backfill, one thread for the few days of a refresh.

Reading pages and validating records both need Python's one lock, so a backfill of 100,000 sessions in one process takes
twice as long on two cores. A process takes some 0.3 s to be ready, which a refresh of a few days would not win back.
"""

import ctypes
import gc
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import connection, current_process, forkserver, get_context, parent_process, resource_tracker
from typing import TYPE_CHECKING, Any, TypeVar

from sessions_pipeline.errors import WorkerLostError

if TYPE_CHECKING:
    from sessions_pipeline.lake.lake import Lake

# From this many days on a run is a backfill.
BACKFILL_DAYS = 8
# Each holds a day and its tables in memory; with more than four the reading is what limits.
MOST_PROCESSES = 4
HEAPS = 2
_M_ARENA_MAX = -8
_PRELOADED = ["sessions_pipeline.process_day"]

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """Does work on days, each with the lake, in the order given. A context manager through `workers_for`."""

    def __init__(self, executor: Executor, call: Callable[..., Any], ahead: int) -> None:
        self._executor = executor
        self._call = call
        self._ahead = ahead

    def each(self, work: "Callable[[Lake, T], R]", tasks: Iterable[T]) -> Iterator[R]:
        """The results in order; while tasks are worked on, the next ones are taken from the iterable, a few at most.

        Where a task can't be had, or its work fails, no other is begun; the results of those that were are still
        given, and then the failure is raised.
        """
        begun: deque[Future[R]] = deque()
        failure: Exception | None = None
        source = iter(tasks)
        while failure is None:
            try:
                task = next(source)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
                break
            begun.append(self._executor.submit(self._call, work, task))
            while begun and failure is None and (len(begun) > self._ahead or begun[0].done()):
                result, failure = _outcome(begun.popleft())
                yield from result
        for future in begun:
            result, later = _outcome(future)
            yield from result
            failure = failure or later
        if failure is not None:
            raise failure


def processes_for(days: int, most: int | None = None) -> int:
    """How many processes a number of days is shared out to, `most` instead of the processors; 0: this one does them."""
    cores = most or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    # A run in a worker of Celery's may have no processes of its own; the workers there are many themselves.
    if days < BACKFILL_DAYS or cores == 1 or current_process().daemon:
        return 0
    return min(cores, MOST_PROCESSES)


@contextmanager
def workers_for(processes: int, lake: "Lake", root: str, query: Mapping[str, Any]) -> Iterator[Workers]:
    """This many processes (0: a thread) for work on `lake`, the one at `root` for `query`. They end with the block."""
    if processes == 0:
        with ThreadPoolExecutor(1, thread_name_prefix="days") as executor:
            yield Workers(executor, partial(_with_lake, lake), ahead=1)
        return
    prepare(processes)
    context = get_context("forkserver")
    with ProcessPoolExecutor(processes, context, initializer=_begin) as executor:
        try:
            yield Workers(executor, partial(_in_process, root, dict(query)), ahead=processes + 1)
        finally:
            executor.shutdown(cancel_futures=True)


def prepare(processes: int) -> None:
    """Begin to load what processes need, in the background, where there will be any."""
    # Arrow's own pool keeps what it freed, 90 MB of 370 in a backfill on two cores. Read when Arrow is loaded, here and
    # in the processes, which is why this module does not load it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # glibc lets each thread have a heap, and what is freed stays there: 70 of 490 MB in a backfill of 500,000 sessions.
    os.environ.setdefault("MALLOC_ARENA_MAX", str(HEAPS))
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, HEAPS)
    if processes:
        forkserver.set_forkserver_preload(_PRELOADED)
        # Ctrl-C is for this process: what it starts inherits the mask, and would else print where it was interrupted.
        # The tracker first, since starting it takes the mask away.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outcome(future: Future[R]) -> tuple[list[R], Exception | None]:
    try:
        return [future.result()], None
    except BrokenProcessPool:
        return [], WorkerLostError(
            "A worker process was killed, most likely because memory ran out; days already written stay, "
            "run the others again"
        )
    except Exception as error:  # noqa: BLE001 - raised by the caller when all others have ended
        return [], error


_OPENED: "dict[str, Lake]" = {}


def _begin() -> None:
    """Make a process a worker: it leaves Ctrl-C to its parent, and ends when that is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Some supervisors start programs with SIGTERM ignored; a pool that lost a worker ends the others by it, and waits.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What is loaded by now is never freed, a day leaves no garbage that needs a search, and at Python's threshold of
    # 700 new objects the search takes a twentieth of the time.
    gc.freeze()
    gc.set_threshold(50_000)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _in_process(root: str, query: Mapping[str, Any], work: "Callable[[Lake, T], R]", task: T) -> R:
    from sessions_pipeline.lake.lake import Lake  # noqa: PLC0415 - see `prepare`

    # Not when the process begins: what fails there is printed by Python with its traceback, and told as a lost worker.
    if root not in _OPENED:
        _OPENED[root] = Lake.open(root, query=query)
    return work(_OPENED[root], task)


def _with_lake(lake: "Lake", work: "Callable[[Lake, T], R]", task: T) -> R:
    return work(lake, task)
