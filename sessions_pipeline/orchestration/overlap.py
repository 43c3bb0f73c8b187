"""Two things at a time: while a day is compressed and written, the next one is prepared."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def one_behind(works: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The works' results in order; each runs in a thread while the next is taken from the iterable.

    At most two are held at a time. Where the next one can't be had, the result of the one before is still given, and
    then the failure is raised; after a work that fails no other is begun.
    """
    source = iter(works)
    running: Future[T] | None = None
    failure: Exception | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="write") as executor:
        while True:
            work = None
            try:
                work = next(source, None)
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
            if running is not None:
                yield running.result()
            if work is None:
                break
            running = executor.submit(work)
    if failure is not None:
        raise failure
