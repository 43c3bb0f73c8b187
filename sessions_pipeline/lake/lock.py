"""A lock that keeps two runs from writing to the same days: a file lock, freed by the system when its process dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sessions_pipeline.errors import LakeBusyError
from sessions_pipeline.lake.store import OnWait, problem


class RunLock:
    """The lock in the file `path`, held while a run writes to `lake`; re-entrant within a thread of a process."""

    def __init__(self, path: Path, lake: str) -> None:
        self._lake = lake
        # One lock object per path and process, so that a second Lake on the same root re-enters it.
        self._lock = FileLock(path, mode=0o640, is_singleton=True)

    @contextmanager
    def held(self, on_wait: OnWait | None, timeout: float | None) -> Iterator[bool]:
        """Hold the lock; gives whether this thread did not hold it already. `timeout` is in seconds, None waits on.

        Raises:
            LakeBusyError: another run still holds it after `timeout`.
            LakeError: the file can't be locked.
        """
        is_outermost = not self._lock.is_locked
        try:
            self._acquire(on_wait, timeout)
        except OSError as error:
            raise problem(self._lock.lock_file, error) from error
        try:
            yield is_outermost
        finally:
            self._lock.release()

    def _acquire(self, on_wait: OnWait | None, timeout: float | None) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            if on_wait is not None:
                on_wait(f"waiting for another run that is writing to {self._lake}")
        else:
            return
        try:
            self._lock.acquire(timeout=-1 if timeout is None else timeout)
        except Timeout:
            raise LakeBusyError(
                f"{self._lake}: another run is still writing after {timeout:g} s; try again when it has ended"
            ) from None
