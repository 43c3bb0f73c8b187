"""What is asked of the list, what comes back, and what one page proves. Pure.

The API has no time filter and no stable order, so offsets are only hints. What counts is one idea:

    A page is one answer, so it is a contiguous piece of the list, newest first. Every session that starts strictly
    between its first and its last start time was in it, if it existed. A page at offset 0 also proves all that is
    newer, a page at the list's end all that is older.

That a page lies at the list's end it can't say itself: a short page may be a server's cap (see `window`).
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from sessions_pipeline.errors import PagingError
from sessions_pipeline.validation.json_text import UNREADABLE
from sessions_pipeline.validation.records import Record
from sessions_pipeline.validation.types import parse_timestamp

UNDATED_FIRST = 2**62  # sort key of a session without a start time where the server sorts them first
UNDATED_LAST = -(2**62)  # and where it sorts them last
LIST_END = UNDATED_LAST - 1
# Of a list's length; a number of more digits is none.
MOST_DIGITS = 15


class Ask(NamedTuple):
    """A page wanted now: by `offset` in version 1, by `cursor` in version 2, where `ids` are the only ones wanted.

    A page with stats is read for its sessions; one without them, which costs the API little, only tells where in the
    list something lies. `ahead` is what will probably be wanted next. A cursor is taken by the API with the same other
    values only.
    """

    limit: int
    include_stats: bool = True
    offset: int = 0
    cursor: str | None = None
    ids: tuple[str, ...] = ()
    ahead: tuple["Ask", ...] = ()


class Page(NamedTuple):
    """An answer: the records in the API's order, without what is private.

    `next_cursor` asks for the next page: it is empty at the list's end, and None in version 1, which has none. What the
    `headers` say, in any case, is None where it is absent or can't be read.
    """

    records: Sequence[Record]
    next_cursor: str | None = None
    headers: Mapping[str, str] = MappingProxyType({})

    @property
    def names(self) -> list[str]:
        """Which sessions the records are: see `identity`."""
        return [identity(record) for record in self.records]

    @property
    def total(self) -> int | None:
        """The list's length."""
        total = self.headers.get("x-pagination-total", "")
        return int(total) if total.isdecimal() and len(total) <= MOST_DIGITS else None

    @property
    def server_time(self) -> datetime | None:
        """When the server answered, by its clock, UTC."""
        return http_date(self.headers.get("date", ""))

    @property
    def sunset(self) -> datetime | None:
        """The announced end of this version of the API."""
        return http_date(self.headers.get("sunset", ""))


def http_date(value: str) -> datetime | None:
    """An HTTP date, aware UTC; None if it is not one."""
    try:
        parsed = parsedate_to_datetime(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


class Piece(NamedTuple):
    """A page placed on the time line: it holds the list's places from `offset` to `end` (exclusive).

    `first` and `last` are sort keys in microseconds since the epoch (None: no record with a known place). A next page
    holds the last key's sessions in its interior if it begins at `overlap`, or before. `is_end`: that nothing lies
    behind is proven.
    """

    offset: int
    end: int
    first: int | None
    last: int | None
    overlap: int
    is_end: bool

    @classmethod
    def of(cls, records: Sequence[Record], offset: int, *, undated_key: int, is_end: bool = False) -> "Piece":
        """Place a page; a session whose start time can't be read has no place and is passed over.

        Raises:
            PagingError: the records are not sorted by start time, newest first.
        """
        keys = sort_keys(records, undated_key)
        placed = [key for key in keys if key is not None]
        end = offset + len(records)
        if not placed:
            return cls(offset, end, None, None, offset, is_end)
        if placed != sorted(placed, reverse=True):
            raise PagingError(
                "The API did not sort the sessions by start time, so their days can't be told; "
                "check that LANGSMITH_ENDPOINT is the LangSmith API"
            )
        # A page that begins at a record without a place would not show that it begins before the last key.
        before_last = [place for place, key in enumerate(keys) if key is not None and key > placed[-1]]
        return cls(offset, end, placed[0], placed[-1], offset + max(before_last, default=-1), is_end)

    @property
    def is_empty(self) -> bool:
        """Whether the page has no record at all."""
        return self.end == self.offset

    @property
    def reach(self) -> int | None:
        """The key down to which (exclusive) the page proves everything, from where it begins."""
        return LIST_END if self.is_end else self.last

    def begins_before(self, frontier: int) -> bool:
        """Whether the page begins at a record newer than `frontier`, so that it joins what is proven."""
        return self.offset == 0 or (self.first is not None and self.first > frontier)

    def proves_below(self, frontier: int) -> bool:
        """Whether the page carries the frontier further down."""
        return self.begins_before(frontier) and self.reach is not None and self.reach < frontier


def identity(record: Record) -> str:
    """What makes two records the same session: the id in any letter case, or the whole text where there is none."""
    return record.session_id.lower() if record.session_id is not None else record.payload


def latest_run(record: Record) -> datetime | None:
    """When the session's latest run started; None where that is not told, or not readably."""
    try:
        values: Any = json.loads(record.payload, parse_int=str)  # Python refuses to read one of 5,000 digits
        times = [values.get("last_run_start_time"), values.get("last_run_start_time_live")]
        return max((parse_timestamp(time) for time in times if isinstance(time, str)), default=None)
    except (ValueError, AttributeError, RecursionError):
        return None


def newest(held: Record, received: Record) -> Record:
    """The newer of two readings of one session: by its latest run, else the later received."""
    if held.payload == received.payload:
        return held
    never = datetime.min.replace(tzinfo=UTC)
    return held if (latest_run(held) or never) > (latest_run(received) or never) else received


class _Counted(msgspec.Struct, gc=False):
    run_count: int | None = None


def run_count(record: Record) -> int | None:
    """How many runs the session's stats count; None where that is not told, or not readably."""
    with suppress(*UNREADABLE):
        return msgspec.json.decode(record.payload, type=_Counted).run_count
    return None


def sort_keys(records: Sequence[Record], undated_key: int) -> list[int | None]:
    """Undated records before the first dated one sort first, after it last; where none is dated, `undated_key`."""
    keys = [record.start_us for record in records]
    dated = [place for place, key in enumerate(keys) if key is not None]
    for place, record in enumerate(records):
        if record.undated:
            beside = UNDATED_FIRST if dated and place < dated[0] else UNDATED_LAST
            keys[place] = beside if dated else undated_key
    return keys
