"""From pages to days: each session once, newest reading of it, with what was received accounted for. Pure."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from sessions_pipeline.days import day_start_us
from sessions_pipeline.langsmith.coverage import Page, identity
from sessions_pipeline.validation.records import FetchedDay, Record

_EPOCH = date(1970, 1, 1)
_DAY_US = 86_400_000_000


@dataclass(slots=True)
class _Day:
    records: dict[str, Record] = field(default_factory=dict)
    received: int = 0

    def add(self, record: Record) -> None:
        self.received += 1
        key = identity(record)
        held = self.records.setdefault(key, record)
        if held is not record:
            self.records[key] = newest(held, record)


class DayAssembler:
    """Collects pages and hands out the days of a window, newest first, as soon as they are proven complete."""

    def __init__(self, first: date, last: date, *, workspace: str | None, fetched_at: datetime) -> None:
        """A window of UTC days, both included, of a workspace whose reading began at `fetched_at`."""
        self._workspace = workspace
        self._fetched_at = fetched_at
        self._first = first
        self._next = last
        # By the day's number from the epoch, since making a date of each record's time would take 1 us.
        self._days: defaultdict[int | None, _Day] = defaultdict(_Day)
        self._requests = 0

    def add(self, page: Page) -> None:
        """Take a page's records; those of days outside the window, or handed out already, are passed over."""
        first, last = _number(self._first), _number(self._next)
        for record in page.records:
            if record.start_us is None:
                self._days[None].add(record)
            elif first <= (number := record.start_us // _DAY_US) <= last:
                self._days[number].add(record)

    def count_request(self) -> None:
        """Count an answered request, to be told with the next day handed out."""
        self._requests += 1

    def close(self, frontier_us: int) -> Iterator[FetchedDay]:
        """The days that lie wholly above the frontier and were not handed out yet."""
        while self._next >= self._first and day_start_us(self._next) > frontier_us:
            day = self._next
            self._next -= timedelta(days=1)
            yield self._hand_out(day)

    def close_undated(self) -> FetchedDay:
        """The sessions without a day; to be called when the whole reading is over."""
        return self._hand_out(None)

    def _hand_out(self, day: date | None) -> FetchedDay:
        bucket = self._days.pop(None if day is None else _number(day), _Day())
        requests, self._requests = self._requests, 0
        records = tuple(bucket.records.values())
        return FetchedDay(day, self._workspace, self._fetched_at, records, bucket.received, requests)


def _number(day: date) -> int:
    return (day - _EPOCH).days


def newest(held: Record, received: Record) -> Record:
    """The newer of two readings of one session: by its latest run, then its runs, then the later received."""
    if held.payload == received.payload:
        return held
    return held if _age(held) > _age(received) else received


def _age(record: Record) -> tuple[str, int]:
    try:
        values = json.loads(record.payload)
    except (ValueError, RecursionError):
        return ("", 0)
    if not isinstance(values, dict):
        return ("", 0)
    latest = values.get("last_run_start_time_live") or values.get("last_run_start_time")
    runs = values.get("run_count")
    return (latest if isinstance(latest, str) else "", runs if isinstance(runs, int) else 0)
