"""A page of the API, split into records whose text stays verbatim. They are not validated yet."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from operator import attrgetter

import msgspec
import pyarrow as pa

from sessions_pipeline.days import microseconds
from sessions_pipeline.validation.json_text import UNREADABLE, split_array, split_object
from sessions_pipeline.validation.rows import Rows
from sessions_pipeline.validation.types import parse_timestamp


class Record(msgspec.Struct, frozen=True, gc=False):
    """One element of the API's array. No tuple: that takes twice as long to make, and is searched for garbage.

    `payload` is its JSON text, verbatim; `session_id`, `tenant_id` and `start_time` are what it says, as sent, None
    where that is not text. `start_us` is the start in microseconds since the epoch, UTC; None if absent, null or
    unreadable. `undated` tells the first two from the last; it is also False for what is no object.
    """

    payload: str
    session_id: str | None
    tenant_id: str | None
    start_time: str | None
    start_us: int | None
    undated: bool


@dataclass(frozen=True, slots=True)
class FetchedDay:
    """All sessions that started on one UTC day (`day` None: on no known day) in one workspace, as the API has them.

    `workspace` is the one asked for, None the key's own. `fetched_at` is when the reading of the workspace began, UTC.
    `rows` (the columns of `SENT`) hold each session once, the newest of this reading, without what is private;
    `received` counts the day's records in all pages, repeats included, and `requests` the pages read since the day
    before was handed out.
    """

    day: date | None
    workspace: str | None
    fetched_at: datetime
    rows: Rows
    received: int
    requests: int


SENT = pa.schema([pa.field(name, pa.string()) for name in ("session_id", "tenant_id", "start_time", "payload")])


def sent(records: Collection[Record]) -> pa.Table:
    """What records say, as they were sent: the columns of `SENT`."""
    columns = (list(map(attrgetter(name), records)) for name in SENT.names)
    return pa.table([pa.array(values, pa.string()) for values in columns], SENT)


class _Head(msgspec.Struct, gc=False):
    id: str | None = None
    tenant_id: str | None = None
    start_time: str | None = None


_TO_THE_SECOND = len("2025-06-01T10:00:00")
_PAGE = msgspec.json.Decoder(list[msgspec.Raw])
_HEADS = msgspec.json.Decoder(list[_Head])
_HEAD = msgspec.json.Decoder(_Head)


def read_page(body: bytes) -> list[Record]:
    """The records of one answer, in its order.

    Raises:
        ValueError: the body is not one JSON array in UTF-8, because it is truncated or something else.
    """
    try:
        payloads = [bytes(raw).decode() for raw in _PAGE.decode(body)]
    except UNREADABLE:
        # NaN, Infinity, lone surrogates and deep nesting: these cost their own record, not the page.
        return [_record(payload) for payload in split_array(body.decode())]
    try:
        # All in one go, which saves a quarter of the time.
        heads = _HEADS.decode(body)
    except UNREADABLE:
        return [_record(payload) for payload in payloads]
    starts = _starts([head.start_time for head in heads])
    return [_of_head(*one) for one in zip(payloads, heads, starts, strict=True)]


def _record(payload: str) -> Record:
    try:
        head = _HEAD.decode(payload)
    except UNREADABLE:
        return _odd_record(payload)
    return _of_head(payload, head, _start_us(head.start_time))


def _of_head(payload: str, head: _Head, start_us: int | None) -> Record:
    return Record(payload, head.id, head.tenant_id, head.start_time, start_us, head.start_time is None)


def _odd_record(payload: str) -> Record:
    if not payload.startswith("{"):
        # Not "undated": where the API sorts undated sessions is known, where it puts such a thing is not.
        return Record(payload, None, None, None, None, False)
    members = split_object(payload)
    start_time = _text(members, "start_time")
    undated = members.get("start_time", "null") == "null"
    return Record(
        payload, _text(members, "id"), _text(members, "tenant_id"), start_time, _start_us(start_time), undated
    )


def _text(members: dict[str, str], name: str) -> str | None:
    text = members.get(name, "null")
    if not text.startswith('"'):
        return None
    try:
        return msgspec.json.decode(text, type=str)
    except UNREADABLE:
        return None


def _starts(texts: Sequence[str | None]) -> list[int | None]:
    # 0.3 us each instead of 1.2. Arrow would also take a date without the time to the second, and the year 0.
    if all(text is None or (len(text) >= _TO_THE_SECOND and text > "0001") for text in texts):
        with suppress(pa.ArrowInvalid):
            moments = pa.array(texts, pa.string()).cast(pa.timestamp("us"))
            return list(moments.view(pa.int64()).to_pylist())
    return list(map(_start_us, texts))


def _start_us(start_time: str | None) -> int | None:
    if start_time is None:
        return None
    try:
        return microseconds(parse_timestamp(start_time))
    except ValueError:
        return None
