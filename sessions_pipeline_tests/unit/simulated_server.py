"""A simulated server whose list of sessions changes while it is paged, to test the readers.

Pages go through the loop that runs in production (`source.fetch_pages`). Only its threads are replaced, by two
executors that make the order of answers deterministic.
"""

import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from sessions_pipeline.days import days_between
from sessions_pipeline.langsmith.page import Page, PageRequest
from sessions_pipeline.langsmith.records import Record
from sessions_pipeline.langsmith.source import Reader, assemble, fetch_pages
from sessions_pipeline.tables.readings import RawDay, Reading


def record(name: str, start_us: int | None) -> Record:
    return Record(
        f'{{"id": "{name}"}}', name, "t", None if start_us is None else str(start_us), start_us, start_us is None
    )


class AnswerAtOnce(Executor):
    """Answers a page as soon as it is requested. A page that was prefetched is then out of date when it is used."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(fn(*args))
        return future


class AnswerWhenUsed(Executor):
    """Answers a page only when its result is used. A prefetched page that is no longer needed is never answered."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> "Future[Any]":
        return _LazyFuture(lambda: fn(*args))


class _LazyFuture(Future[Any]):
    def __init__(self, answer: Callable[[], Any]) -> None:
        super().__init__()
        self._answer = answer

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        return self._answer()


@dataclass
class SimulatedServer:
    """A list sorted by start time, newest first, with ties in random order.

    Before each answer it takes the next step of `schedule` and changes the list, its page cap or its totals. Deleted
    sessions are in `deleted`. If `totals`, answers have a header with the list's length.
    """

    sessions: dict[str, int | None]
    cap: int = 100
    undated_first: bool = True
    schedule: list[str] = field(default_factory=list)
    seed: int = 0
    totals: bool = False
    requests: list[PageRequest] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._ties: dict[str, float] = {}
        self._capped = self.cap
        self._lie = 0
        self._sorted: list[str] = []
        self._sorted_from: dict[str, int | None] | None = None

    def answer(self, ask: PageRequest) -> Page:
        self.requests.append(ask)
        if self.schedule:
            self._change(self.schedule.pop(0))
        listed = self.listed()
        names = listed[ask.offset : ask.offset + min(ask.limit, self._capped)]
        headers = {"x-pagination-total": str(max(0, len(listed) + self._lie))} if self.totals else {}
        return Page([record(name, self.sessions[name]) for name in names], headers=headers)

    def listed(self) -> list[str]:
        """The names in the list's order, sorted again only after a change, also one that a test made itself.

        Otherwise as many random numbers are skipped as sorting would draw, so that a seed still means the same changes.
        """
        if self._sorted_from == self.sessions:
            self._random.getrandbits(64 * len(self.sessions))
        else:
            self._sorted = sorted(self.sessions, key=self._sort_key)
            self._sorted_from = dict(self.sessions)
        return self._sorted

    def _sort_key(self, name: str) -> tuple[float, float]:
        start = self.sessions[name]
        undated = -float("inf") if self.undated_first else float("inf")
        return (undated if start is None else -start, self._ties.setdefault(name, self._random.random()))

    def _change(self, what: str) -> None:
        if what == "reorder":
            self._ties.clear()
            self._sorted_from = None
        elif what == "insert":
            others = [start for start in self.sessions.values() if start is not None] or [0]
            self.sessions[f"new-{len(self.requests)}"] = self._random.choice(others) + self._random.choice(
                [0, 0, 1, -1]
            )
        elif what == "insert newest":
            self.sessions[f"new-{len(self.requests)}"] = 10**16
        elif what == "delete" and self.sessions:
            name = self._random.choice(sorted(self.sessions))
            del self.sessions[name]
            self.deleted.add(name)
        elif what == "sink":
            self._capped = self._random.randint(1, self.cap)
        elif what == "sink low":
            self._capped = self._random.randint(1, 2)
        elif what == "rise":
            self._capped = self.cap
        elif what == "lie":
            self._lie = self._random.choice([-40, -3, -1, 1, 3, 40])


class StillServer:
    """Serves a list that never changes, in the given order (newest first), and records requests."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.requests: list[PageRequest] = []

    def answer(self, ask: PageRequest) -> Page:
        self.requests.append(ask)
        return Page(self.records[ask.offset : ask.offset + ask.limit])


def collected(
    reader: Reader, answer: Callable[[PageRequest], Page], first: date, last: date, executor: Executor
) -> list[RawDay]:
    """The days that the reader returns, given these answers."""
    pages = fetch_pages(reader, lambda ask: executor.submit(answer, ask), {})
    days = days_between(first, last)[::-1]
    return list(assemble(reader, pages, days, Reading(0, datetime(2026, 1, 13, tzinfo=UTC))))
