"""Columns of records into Arrow, whole columns at a time, deciding only what can be decided exactly.

Each function takes a column's values as msgspec read them and gives an Arrow array. A position whose value may be
wrong is put into `doubtful`, and is null in the array: the verdict decides on that record.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.validation.arrays import double_array, int64_array, text_array, utf8_array
from sessions_pipeline.validation.fields import field_types
from sessions_pipeline.validation.json_text import MAX_DEPTH
from sessions_pipeline.validation.model import INT64_MAX, INT64_MIN, ExperimentProgress, parse_cost
from sessions_pipeline.validation.timestamps import parse_timestamp
from sessions_pipeline.validation.types import MONEY, TIMESTAMP

Convert = Callable[[Sequence[Any], set[int]], "pa.Array[Any]"]
# msgspec's refusals, text that is not Unicode, and nesting.
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
# A text of this many characters can't be nested too deeply: every level takes two.
_LONG = 2 * MAX_DEPTH
_UUID = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
# What Arrow reads exactly. Its own reader would round, or take, some of the rest.
_PLAIN_TIME = (
    r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|\+00:00)?$"
)
# The second form is how floats below 1e-4 are written; with so few digits it can't have more than 18 in its fraction.
_PLAIN_COST = r"^[0-9]{1,20}(\.[0-9]{1,18})?$|^[0-9]{1,10}(\.[0-9]{1,9})?[eE]-0?[1-9]$"


class _AnyObject(msgspec.Struct):
    """An object of whatever properties."""


_FACETS = msgspec.json.Decoder(list[_AnyObject])
_PROGRESS: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct("Progress", field_types(ExperimentProgress))
)


def deep_at(parts: Sequence[bytes]) -> list[int]:
    """Positions of JSON texts that may be nested deeper than is read, told from their length and brackets."""
    return [position for position, part in enumerate(parts) if len(part) > _LONG and _may_be_deep(part)]


def texts(values: Sequence[str | None], _doubtful: set[int]) -> "pa.Array[Any]":
    """Text as it is."""
    return text_array(values)


def uuids(values: Sequence[str | None], doubtful: set[int]) -> "pa.Array[Any]":
    """Canonical lower-case UUID text."""
    column = text_array(values)
    odd = _unlike(column, _UUID)
    return pc.ascii_lower(text_array(_without(values, odd, doubtful)) if odd else column)


def times(values: Sequence[str | None], doubtful: set[int]) -> "pa.Array[Any]":
    """Moments in UTC, microseconds."""
    column = text_array(values)
    if odd := _unlike(column, _PLAIN_TIME):
        column = text_array(_respelt(values, odd, _plain_time, doubtful))
    if any(pc.any(pc.ends_with(column, pattern=zone)).as_py() for zone in ("Z", "+00:00")):
        column = pc.replace_substring_regex(column, pattern=r"(Z|\+00:00)$", replacement="")
    try:
        return column.cast(pa.timestamp("us")).cast(TIMESTAMP)
    except pa.ArrowInvalid:
        # One of them has the form of a date-time, but is none, such as 30 February.
        present = [position for position, value in enumerate(values) if value is not None]
        return text_array(_respelt(values, present, _plain_time, doubtful)).cast(pa.timestamp("us")).cast(TIMESTAMP)


def integers(values: Sequence[int | None], doubtful: set[int]) -> "pa.Array[Any]":
    """Integers of 64 bits."""
    try:
        return int64_array(values, pa.int64())
    except OverflowError:
        huge = [i for i, value in enumerate(values) if value is not None and not INT64_MIN <= value <= INT64_MAX]
        return int64_array(_without(values, huge, doubtful), pa.int64())


def doubles(values: Sequence[float | None], _doubtful: set[int]) -> "pa.Array[Any]":
    """Floating-point numbers; msgspec has refused what a double can't hold."""
    return double_array(values)


def costs(values: Sequence[msgspec.Raw], doubtful: set[int]) -> "pa.Array[Any]":
    """Exact decimals from the digits as sent, in quotes or not."""
    spelt = [part.strip(b'"') for part in _parts(values)]
    column = utf8_array(spelt)
    if odd := _unlike(column, _PLAIN_COST):
        decoded = [part.decode() or None for part in spelt]
        column = text_array(_respelt(decoded, odd, _plain_cost, doubtful))
    return column.cast(MONEY)


def objects(values: Sequence[msgspec.Raw], doubtful: set[int]) -> "pa.Array[Any]":
    """The verbatim text of JSON objects."""
    parts = _parts(values)
    column = utf8_array(parts)
    doubtful.update(_false_at(pc.starts_with(column, pattern="{")))
    doubtful.update(deep_at(parts))
    return column


def facets(values: Sequence[msgspec.Raw], doubtful: set[int]) -> "pa.Array[Any]":
    """The verbatim text of arrays of objects."""
    return _decoded(values, _FACETS.decode, doubtful)


def progress(values: Sequence[msgspec.Raw], doubtful: set[int]) -> "pa.Array[Any]":
    """The verbatim text of an experiment's progress."""
    return _decoded(values, _read_progress, doubtful)


CONVERSIONS: dict[type, Convert] = {
    UUID: uuids,
    datetime: times,
    str: texts,
    int: integers,
    float: doubles,
    Decimal: costs,
    dict: objects,
    list: facets,
    ExperimentProgress: progress,
}


def _read_progress(text: bytes) -> None:
    expected = _PROGRESS.decode(text).expected_run_count
    if not INT64_MIN <= expected <= INT64_MAX:
        raise msgspec.ValidationError


def _decoded(values: Sequence[msgspec.Raw], decode: Callable[[bytes], Any], doubtful: set[int]) -> "pa.Array[Any]":
    parts = _parts(values)
    # Most are the same few texts, such as an empty array.
    wrong = {part for part in set(parts) if part and not _reads(decode, part)}
    if wrong:
        doubtful.update(position for position, part in enumerate(parts) if part in wrong)
    return utf8_array(parts)


def _reads(decode: Callable[[bytes], Any], part: bytes) -> bool:
    try:
        decode(part)
    except UNREADABLE:
        return False
    return len(part) <= _LONG or not _may_be_deep(part)


def _may_be_deep(part: bytes) -> bool:
    return part.count(b"{") + part.count(b"[") > MAX_DEPTH


def _parts(values: Sequence[msgspec.Raw]) -> list[bytes]:
    """Verbatim texts; empty for null and for what is absent."""
    return [b"" if part == b"null" else part for part in map(bytes, values)]


def _unlike(column: "pa.Array[Any]", pattern: str) -> list[int]:
    """Positions whose text does not match; null is no text."""
    return _false_at(pc.match_substring_regex(column, pattern=pattern))


def _false_at(flags: "pa.Array[Any]") -> list[int]:
    positions: list[Any] = pc.indices_nonzero(pc.invert(flags)).to_pylist()
    return positions


def _without(values: Sequence[Any], positions: Sequence[int], doubtful: set[int]) -> list[Any]:
    doubtful.update(positions)
    kept = list(values)
    for position in positions:
        kept[position] = None
    return kept


def _respelt(
    values: Sequence[str | None], positions: Sequence[int], spell: Callable[[str], str], doubtful: set[int]
) -> list[str | None]:
    """The values with those at the positions in the form that Arrow reads."""
    result = list(values)
    for position in positions:
        try:
            result[position] = spell(result[position] or "")
        except ValueError:
            doubtful.add(position)
            result[position] = None
    return result


def _plain_time(text: str) -> str:
    return parse_timestamp(text).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _plain_cost(text: str) -> str:
    return f"{parse_cost(text):f}"
