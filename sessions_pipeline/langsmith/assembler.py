"""From pages to days: each session once, newest reading of it, with what was received accounted for. Pure."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta

from sessions_pipeline.days import day_of_us, day_start_us
from sessions_pipeline.langsmith.page import identity
from sessions_pipeline.validation.records import FetchedDay, Record


class DayAssembler:
    """Collects records and hands out the days of a window, newest first, as soon as they are proven complete.

    `requests` counts the answered requests since the last day was handed out.
    """

    def __init__(self, first: date, last: date, *, workspace: str | None, fetched_at: datetime) -> None:
        """A window of UTC days, both included, of a workspace whose reading began at `fetched_at`."""
        self.requests = 0
        self._workspace = workspace
        self._fetched_at = fetched_at
        self._first = first
        self._next = last
        self._received: defaultdict[date | None, list[Record]] = defaultdict(list)

    def add(self, records: Iterable[Record]) -> None:
        """Take records; those of days outside the window, or handed out already, are passed over."""
        start_us, end_us = day_start_us(self._first), day_start_us(self._next + timedelta(days=1))
        for record in records:
            if record.start_us is None:
                self._received[None].append(record)
            elif start_us <= record.start_us < end_us:
                self._received[day_of_us(record.start_us)].append(record)

    def close(self, frontier_us: int) -> Iterator[FetchedDay]:
        """The days that lie wholly above the frontier and were not handed out yet."""
        while self._next >= self._first and day_start_us(self._next) > frontier_us:
            day = self._next
            self._next -= timedelta(days=1)
            yield self.hand_out(day)

    def hand_out(self, day: date | None) -> FetchedDay:
        """A day of which nothing is missing; None when the whole reading is over: the sessions without a day."""
        received, sessions = self._received.pop(day, []), dict[str, Record]()
        for record in received:
            name = identity(record)
            sessions[name] = newest(sessions.get(name, record), record)
        requests, self.requests = self.requests, 0
        records = tuple(sessions.values())
        return FetchedDay(day, self._workspace, self._fetched_at, records, len(received), requests)


def newest(held: Record, received: Record) -> Record:
    """The newer of two readings of one session: by its latest run, then its runs, then the later received."""
    return held if held.payload == received.payload or _age(held) > _age(received) else received


def _age(record: Record) -> tuple[str, int]:
    try:
        values = dict(json.loads(record.payload))
    except (ValueError, TypeError, RecursionError):
        return "", 0
    latest = values.get("last_run_start_time_live") or values.get("last_run_start_time")
    runs = values.get("run_count")
    return (latest if isinstance(latest, str) else "", runs if isinstance(runs, int) else 0)
