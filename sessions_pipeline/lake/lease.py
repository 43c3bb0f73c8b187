"""The lock in an object store: one small object under `_locks/`, changed by conditional puts alone.

Who holds it renews it every ten seconds. Who waits replaces it when it has not changed for thirty seconds of the
waiter's own time: no two clocks need agree, only run at about the same speed. A holder that could not renew it for 25
seconds, because its machine stood still or the network was gone, writes nothing more. What is left is a put that was
already on its way then: an object store has no way to call it back.
"""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import uniform
from time import monotonic, sleep
from typing import Any, NamedTuple
from uuid import uuid4

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from sessions_pipeline.errors import LakeBusyError, LakeError
from sessions_pipeline.lake.store import OnWait

SECONDS = 30.0
PAUSE = (0.2, 1.0)

_HELD: dict[tuple[int, int, str], "Lease"] = {}
"""What each thread of this process holds, by process, thread and the lock's address."""


class Found(NamedTuple):
    """A lock object as it was read."""

    etag: str
    token: str
    is_held: bool
    seconds: float


class Lease:
    """A lock that is held, kept from running out by a thread."""

    def __init__(self, files: S3Store, key: str, lake: str, token: str) -> None:
        self.lake = lake
        self._files, self._key, self._token = files, key, token
        self._etag, self._sent = "", 0.0
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def take(self, etag: str | None) -> bool:
        """Put it in the place of what has this etag, or of nothing; False if somebody else was faster."""
        if not self._put(etag, is_held=True):
            return False
        self._renewing.start()
        return True

    def check(self) -> None:
        """See that nobody else can hold it by now.

        Raises:
            LakeBusyError: it ran out.
        """
        if monotonic() > self._sent + SECONDS * 5 / 6:
            raise LakeBusyError(f"{self.lake}: this run stood still so long that it has lost its lock; run it again")

    def release(self) -> None:
        """Let the next one in; if the store can't be reached it waits until the lease has run out."""
        self._released.set()
        self._renewing.join()
        with suppress(BaseError, OSError):
            self._put(self._etag, is_held=False)

    def _renew(self) -> None:
        while not self._released.wait(SECONDS / 3):
            with suppress(BaseError, OSError):
                if not self._put(self._etag, is_held=True):
                    self._sent = -SECONDS
                    return

    def _put(self, etag: str | None, *, is_held: bool) -> bool:
        sent = monotonic()
        holder = {"host": socket.gethostname(), "process": os.getpid()}
        content = {"held": is_held, "token": self._token, "seconds": SECONDS, "turn": uuid4().hex, "holder": holder}
        try:
            new = self._files.put(
                self._key, json.dumps(content).encode(), mode="create" if etag is None else {"e_tag": etag}
            )["e_tag"]
        except BaseError as error:
            # The put may have been done all the same: its answer was lost, and sent again it met its own first one.
            found = look(self._files, self._key)
            if found is None or found.token != self._token:
                if isinstance(error, AlreadyExistsError | PreconditionError):
                    return False
                raise
            new = found.etag
        self._etag, self._sent = str(new), sent
        return True


@contextmanager
def leased(files: S3Store, key: str, lake: str, on_wait: OnWait | None, timeout: float | None) -> Iterator[None]:
    """Hold the lock object `key` of `lake`; re-entrant within a thread.

    Raises:
        LakeBusyError: another run still holds it after `timeout` seconds, or it was lost before the end.
    """
    mine = (os.getpid(), threading.get_ident(), f"{lake}/{key}")
    if mine in _HELD:
        yield
        return
    lease = _HELD[mine] = _acquire(files, key, lake, on_wait, timeout)
    try:
        yield
        # What other processes wrote for this one was not checked as it was written.
        lease.check()
    finally:
        del _HELD[mine]
        lease.release()


def check_leases(lake: str) -> None:
    """See that this process has lost no lock of `lake` that it believes to hold.

    Raises:
        LakeBusyError: it has.
    """
    for (process, _, _), lease in list(_HELD.items()):
        if process == os.getpid() and lease.lake == lake:
            lease.check()


def look(files: S3Store, key: str) -> Found | None:
    """The lock object; None if there is none yet."""
    try:
        got = files.get(key)
        content: Any = json.loads(bytes(got.bytes()))
        return Found(str(got.meta["e_tag"]), content["token"], content["held"], float(content["seconds"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise LakeError(f"{key}: broken; delete it when no run is writing") from None


def is_conditional(files: S3Store, key: str) -> bool:
    """Whether the store refuses a put whose condition does not hold, tried on the object `key`."""
    files.put(key, b"")
    conditions: Any = (("create", AlreadyExistsError), ({"e_tag": '"0"'}, PreconditionError))
    for mode, refused in conditions:
        try:
            files.put(key, b"", mode=mode)
        except refused:
            continue
        except BaseError as error:
            if "501" in str(error):
                return False
            raise
        return False
    return True


def _acquire(files: S3Store, key: str, lake: str, on_wait: OnWait | None, timeout: float | None) -> Lease:
    end = None if timeout is None else monotonic() + timeout
    etag, since = "", 0.0
    while True:
        found = look(files, key)
        if found is not None and found.etag != etag:
            etag, since = found.etag, monotonic()
        if found is None or not found.is_held or monotonic() > since + found.seconds:
            lease = Lease(files, key, lake, uuid4().hex)
            if lease.take(None if found is None else found.etag):
                return lease
        if end is not None and monotonic() >= end:
            raise LakeBusyError(
                f"{lake}: another run is still writing after {timeout:g} s; try again when it has ended"
            )
        if on_wait is not None:
            on_wait(f"waiting for another run that is writing to {lake}")
            on_wait = None
        sleep(uniform(*PAUSE))  # noqa: S311
