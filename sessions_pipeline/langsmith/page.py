"""What is asked of the API's list, and what comes back: the two things that readers and client exchange."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sessions_pipeline.validation.records import Record


class Ask(NamedTuple):
    """A page wanted now: by `offset` in version 1, by `cursor` in version 2, where `ids` are the only ones wanted.

    `ahead` is what will probably be wanted next. A cursor is taken by the API with the same other values only.
    """

    limit: int
    include_stats: bool = True
    offset: int = 0
    cursor: str | None = None
    ids: tuple[str, ...] = ()
    ahead: tuple["Ask", ...] = ()


class Page(NamedTuple):
    """An answer: the records in the API's order, without what is private.

    `total` is what `X-Pagination-Total` says, None where it is absent; `next_cursor` asks for the next page, None at
    the list's end and in version 1; `server_time` is the server's, where it tells, and `clock_error_seconds` by how
    much this machine's clock differs from it at least; `sunset` is this version's announced end.
    """

    records: Sequence[Record]
    total: int | None = None
    next_cursor: str | None = None
    server_time: datetime | None = None
    clock_error_seconds: float = 0.0
    sunset: datetime | None = None


def identity(record: Record) -> str:
    """What makes two records the same session: the id in any letter case, or the whole text where there is none."""
    return record.session_id.lower() if record.session_id is not None else record.payload
