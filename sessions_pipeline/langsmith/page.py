"""A request for a page of the list, the page that comes back, and what that page proves. Pure.

The API has no filter by start time and no stable order, so offsets are only hints. The proof rests on one idea:

    A page is one answer, so it is a contiguous piece of the list, newest first. It holds every session that existed and
    started strictly between the page's first and last start time: these are its interior. A page at offset 0 also
    proves everything newer, and a page at the list's end everything older.

A page alone can't show that it lies at the list's end: it may be short because the server caps pages (see `window`).
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.records import Record
from sessions_pipeline.validation.rules import IS_UUID
from sessions_pipeline.validation.types import parse_timestamp

UNDATED_FIRST = 2**62  # sort key of a session without a start time if the server sorts them first
UNDATED_LAST = -(2**62)  # and if it sorts them last
LIST_END = UNDATED_LAST - 1
# Longer values of `X-Pagination-Total` are not taken for a list's length.
MOST_TOTAL_DIGITS = 15


class PageRequest(NamedTuple):
    """A page to read now: at `offset` in version 1, at `cursor` in version 2; if `ids` are given, only those sessions.

    A page with stats is read for its sessions. A page without stats costs the API little and only shows where in the
    list something lies. `prefetch` are the requests that will probably follow. The API accepts a cursor only together
    with the parameters of the request that returned it.
    """

    limit: int
    include_stats: bool = True
    offset: int = 0
    cursor: str | None = None
    ids: tuple[str, ...] = ()
    prefetch: tuple["PageRequest", ...] = ()


class Page(NamedTuple):
    """An answer: the records in the API's order, with private properties removed.

    `next_cursor` requests the next page; it is "" at the list's end, and None in version 1, which has no cursors.
    Header names are looked up in lower case. A property read from a header is None if the header is absent or
    unreadable.
    """

    records: Sequence[Record]
    next_cursor: str | None = None
    headers: Mapping[str, str] = MappingProxyType({})

    @property
    def identities(self) -> list[str]:
        """The `identity` of each record."""
        return [identity(record) for record in self.records]

    @property
    def total(self) -> int | None:
        """The list's length, from `X-Pagination-Total`."""
        total = self.headers.get("x-pagination-total", "")
        return int(total) if total.isdecimal() and len(total) <= MOST_TOTAL_DIGITS else None

    @property
    def server_time(self) -> datetime | None:
        """When the server answered, by its own clock, UTC."""
        return http_date(self.headers.get("date", ""))


def http_date(value: str) -> datetime | None:
    """Parse an HTTP date into an aware datetime in UTC; None if the value is not one."""
    with suppress(ValueError, OverflowError):
        parsed = parsedate_to_datetime(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    return None


class Piece(NamedTuple):
    """A page placed on the time line. It covers the list's offsets from `offset` to `end` (exclusive).

    `first` and `last` are its first and last sort keys, in microseconds since the epoch (None: no record has one). The
    next page has to begin at the offset `overlap` or before, so that its interior has the sessions of the last key.
    `reach` is the sort key (exclusive) down to which the page proves everything from its own beginning: `last`, or
    `LIST_END` if it is proven that the list ends with this page.
    """

    offset: int
    end: int
    first: int | None
    last: int | None
    overlap: int
    reach: int | None

    @classmethod
    def of(cls, records: Sequence[Record], offset: int, *, undated_key: int, is_end: bool = False) -> "Piece":
        """Place a page; sessions whose start time can't be read have no sort key and are skipped.

        Raises:
            PagingError: the records are not sorted by start time, newest first.
        """
        keys = sort_keys(records, undated_key)
        placed = [key for key in keys if key is not None]
        end = offset + len(records)
        if not placed:
            return cls(offset, end, None, None, offset, LIST_END if is_end else None)
        if placed != sorted(placed, reverse=True):
            raise PagingError(
                "The API did not sort the sessions by start time, so their days can't be proven complete; "
                "check that LANGSMITH_ENDPOINT is the LangSmith API"
            )
        # The next page must begin with a record that has a sort key, or it would not show that it overlaps.
        before_last = [index for index, key in enumerate(keys) if key is not None and key > placed[-1]]
        reach = LIST_END if is_end else placed[-1]
        return cls(offset, end, placed[0], placed[-1], offset + max(before_last, default=-1), reach)

    @property
    def is_empty(self) -> bool:
        """Whether the page has no record at all."""
        return self.end == self.offset

    def begins_before(self, frontier: int) -> bool:
        """Whether the page begins with a record newer than `frontier`, so that it joins what is already proven."""
        return self.offset == 0 or (self.first is not None and self.first > frontier)

    def lowered(self, frontier: int) -> int:
        """The frontier with what this page proves; the same if it proves nothing new."""
        if self.reach is None or not self.begins_before(frontier):
            return frontier
        return min(self.reach, frontier)


def identity(record: Record) -> str:
    """The key by which two records are the same session: the id in lower case, or the whole text if it is no UUID."""
    id_ = record.session_id or ""
    return id_.lower() if IS_UUID.fullmatch(id_) else record.payload


def last_active(record: Record) -> datetime | None:
    """When the session's latest run started, UTC; None if the record does not say or can't be read."""
    with suppress(ValueError, AttributeError, RecursionError):
        values: Any = json.loads(record.payload, parse_int=str)  # int() refuses more than 4,300 digits
        times = [values.get("last_run_start_time"), values.get("last_run_start_time_live")]
        return max((parse_timestamp(time) for time in times if isinstance(time, str)), default=None)
    return None


def newest(earlier: Record, later: Record) -> Record:
    """The newer of two records of one session: the one with the latest run, else the one received later."""
    # Pages overlap, so most repeated records are equal. Reading the times of a pair takes 20 µs.
    if earlier.payload == later.payload:
        return earlier
    never = datetime.min.replace(tzinfo=UTC)
    return earlier if (last_active(earlier) or never) > (last_active(later) or never) else later


def sort_keys(records: Sequence[Record], undated_key: int) -> list[int | None]:
    """Sort keys of a page's records: start times in microseconds since the epoch, None if unreadable.

    Undated records above the first dated one get `UNDATED_FIRST`, those below it `UNDATED_LAST`; if no record is dated,
    they get `undated_key`.
    """
    keys = [record.start_us for record in records]
    dated = [index for index, key in enumerate(keys) if key is not None]
    for index, record in enumerate(records):
        if record.undated:
            beside = UNDATED_FIRST if dated and index < dated[0] else UNDATED_LAST
            keys[index] = beside if dated else undated_key
    return keys
