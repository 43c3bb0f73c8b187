"""Workers that process days: several processes for a backfill, one thread for the few days of a refresh.

Reading pages and validating records compete for Python's global interpreter lock: on two cores, a backfill of 100,000
sessions takes twice as long in one process. Starting a process takes about 0.3 s, more than it saves on a few days.
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
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from sessions_pipeline.errors import WorkerLostError

if TYPE_CHECKING:
    from sessions_pipeline.lake import Lake

# A run of at least this many days is a backfill.
BACKFILL_DAYS = 8
# Each process holds a day and its tables in memory. With more than four, reading from the API is the bottleneck.
MOST_PROCESSES = 4
MALLOC_ARENAS = 2
_M_ARENA_MAX = -8  # `mallopt`'s number for this option, from malloc.h
_PRELOADED = ["sessions_pipeline.process_day"]

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class Workers:
    """Runs a function on days, and passes on the results in the days' order. See `workers_for`."""

    def __init__(self, executor: Executor, call: Callable[..., Any], ahead: int) -> None:
        """`call(work, *task)` must pass the lake to `work`. `ahead`: how many may be started while one is awaited."""
        self._executor = executor
        self._call = call
        self._ahead = ahead

    def run(
        self, work: "Callable[[Lake, *Ts], R]", tasks: Iterable[tuple[*Ts]], on_result: Callable[[R], object]
    ) -> None:
        """Call `on_result(work(lake, *task))` for each task, in order. Only a few are taken from `tasks` ahead of time.

        If `tasks` or the work on one of them fails, no further task is started. The results of the tasks that were
        started before are still passed on, and then the failure is raised. So it is if signals interrupt this, however
        many, except that tasks on which no work has begun are canceled. `on_result` is called in a thread of its own,
        since signals only interrupt the main one: whenever they come, each result is passed on once.
        """
        started, failures = deque[Future[R]](), list[BaseException]()
        remaining, end = iter(tasks), None

        def start(task: tuple[*Ts]) -> None:
            started.append(self._executor.submit(self._call, work, *task))
            while started and (len(started) > self._ahead or started[0].done()):
                on_result(started.popleft().result())

        with ThreadPoolExecutor(1, thread_name_prefix="results") as thread:
            thread.submit(bool).result()  # Starts the thread. Where none can be started, nothing has begun yet.
            while end is None or not end.done():
                try:
                    for task in () if failures else remaining:
                        thread.submit(start, task).result()
                    if not all(isinstance(failure, Exception) for failure in failures):
                        for future in [*started]:
                            future.cancel()
                    end = end or thread.submit(_pass_on, started, on_result, failures)
                    end.result()
                except BaseException as error:  # noqa: BLE001 - raised below
                    failures.append(error)
        if failures and isinstance(failures[0], BrokenProcessPool):
            raise WorkerLostError(
                "A worker process was killed, most likely because memory ran out; days already written stay, "
                "run the others again"
            )
        if failures:
            raise failures[0]


def _pass_on(started: deque[Future[R]], on_result: Callable[[R], object], failures: list[BaseException]) -> None:
    while started:
        try:
            result = started.popleft().result()
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            failures.append(error)
        else:
            # If this fails, it ends here: a locked database makes each wait half a minute.
            on_result(result)


def processes_for(days: int, most: int | None = None) -> int:
    """How many processes to use for this many days; 0: a thread of this process. `most` replaces the core count."""
    cores = most or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    # A Celery worker is a daemonic process, which may not start processes. Celery runs several workers anyway.
    if days < BACKFILL_DAYS or cores == 1 or current_process().daemon:
        return 0
    return min(cores, MOST_PROCESSES)


@contextmanager
def workers_for(processes: int, lake: "Lake", root: str, query: Mapping[str, Any]) -> Iterator[Workers]:
    """Workers for the lake, on this many processes (0: one thread), until the block ends.

    A process can't be handed `lake`: it opens its own from `root` and `query`, which must be those of `lake`.
    """
    if processes == 0:
        with ThreadPoolExecutor(1, thread_name_prefix="days") as executor:
            yield Workers(executor, lambda work, *task: work(lake, *task), ahead=1)
        return
    prepare(processes)
    with ProcessPoolExecutor(processes, get_context("forkserver"), initializer=_initialize) as executor:
        try:
            yield Workers(executor, partial(_with_lake_at, root, dict(query)), ahead=processes + 1)
        finally:
            executor.shutdown(cancel_futures=True)


def prepare(processes: int) -> None:
    """Set up memory allocation, and start to import in the background what worker processes need, if there will be any.

    Only a call before Arrow is imported changes the memory pool of this process.
    """
    # Arrow's own memory pool holds on to freed memory: 90 of 370 MB in a backfill on two cores. Arrow reads this
    # variable when it is imported, here and in the processes, so this module does not import it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # Otherwise its pool starts a thread even if it is not used, and Python 3.12 and later warn of forks beside threads.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    # glibc gives threads heaps of their own, and holds on to what is freed there: 70 of 490 MB in a backfill of 500,000
    # sessions. The variable is for the processes, `mallopt` for this one.
    os.environ.setdefault("MALLOC_ARENA_MAX", str(MALLOC_ARENAS))
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, MALLOC_ARENAS)
    if processes:
        forkserver.set_forkserver_preload(_PRELOADED)
        # Only this process reacts to a closed terminal and Ctrl-C. The processes that it starts inherit the blocked
        # signals; otherwise they would print tracebacks, or die before it. The resource tracker ignores SIGINT itself,
        # and starting it unblocks that signal.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_LAKES: "dict[str, Lake]" = {}


def _initialize() -> None:
    """Prepare a worker process: it ignores Ctrl-C, and ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Some supervisors start programs with SIGTERM ignored. If a worker is lost, the pool stops the others with SIGTERM
    # and waits for them.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # With Python's default threshold of 700 new objects, garbage collection takes a twentieth of the time, and finds
    # next to nothing: imported modules are never freed, and processing a day leaves no reference cycles.
    gc.freeze()
    gc.set_threshold(50_000)


def _end_with_parent() -> None:
    if parent := parent_process():
        connection.wait([parent.sentinel])
        os._exit(1)


def _with_lake_at(root: str, query: Mapping[str, Any], work: "Callable[[Lake, *Ts], R]", *task: *Ts) -> R:
    from sessions_pipeline.lake import Lake  # noqa: PLC0415 - see `prepare`

    # Not opened in `_initialize`: Python prints the traceback of an error there, and only reports a broken pool.
    if root not in _LAKES:
        _LAKES[root] = Lake.open(root, query=query)
    return work(_LAKES[root], *task)
