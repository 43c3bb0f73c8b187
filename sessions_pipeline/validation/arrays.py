"""Arrow arrays from Python values and back, where Arrow's own ways would import pandas: 0.3 s or more, and 50 MB."""

from array import array
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any

import pyarrow as pa

from sessions_pipeline.days import EPOCH, microseconds
from sessions_pipeline.validation.types import TIMESTAMP

_INTEGERS = {"b": pa.int8(), "i": pa.int32(), "q": pa.int64()}
_EPOCH = date(1970, 1, 1).toordinal()


def text_array(values: Sequence[str | None]) -> "pa.Array[Any]":
    """Strings, None as null."""
    try:
        # Where nothing is null this takes a third of the time.
        filled: Sequence[str] = values  # type: ignore[assignment]
        joined, validity = "".join(filled), None
    except TypeError:
        filled = [value or "" for value in values]
        joined, validity = "".join(filled), _validity(values)
    if joined.isascii():
        return _strings(map(len, filled), joined.encode(), len(values), validity)
    parts = [value.encode() for value in filled]
    return _strings(map(len, parts), b"".join(parts), len(values), validity)


def utf8_array(values: Sequence[bytes]) -> "pa.Array[Any]":
    """Strings given in UTF-8, empty as null."""
    validity = None if all(values) else _flags(bytes(map(bool, values)))
    return _strings(map(len, values), b"".join(values), len(values), validity)


def few_texts_array(values: Sequence[str]) -> "pa.Array[Any]":
    """Strings that come again and again, none of them null."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return text_array(list(places)).take(number_array(array("i", map(places.__getitem__, values))))


def number_array(numbers: "array[int]") -> "pa.Array[Any]":
    """Integers as wide as they are in the array, without nulls."""
    return pa.Array.from_buffers(_INTEGERS[numbers.typecode], len(numbers), [None, pa.py_buffer(numbers)])


def int64_array(values: Sequence[int | None], type_: pa.DataType) -> "pa.Array[Any]":
    """Integers as any type of 64 bits, None as null.

    Raises:
        OverflowError: a value does not fit 64 bits.
    """
    try:
        return _fixed(array("q", values), None, type_)
    except TypeError:
        filled = [0 if value is None else value for value in values]
    return _fixed(array("q", filled), _validity(values), type_)


def double_array(values: Sequence[float | None]) -> "pa.Array[Any]":
    """Floating-point numbers, None as null, negative zero as zero."""
    try:
        return _fixed(array("d", [value + 0.0 for value in values]), None, pa.float64())  # type: ignore[operator]
    except TypeError:
        filled = [0.0 if value is None else value + 0.0 for value in values]
    return _fixed(array("d", filled), _validity(values), pa.float64())


def value_array(values: Sequence[Any], type_: pa.DataType) -> "pa.Array[Any]":
    """Values of a column of `sessions`: text, int, float, Decimal or datetime as the Arrow type says, None as null."""
    if pa.types.is_decimal(type_):
        moneys: Sequence[Decimal | None] = values
        return text_array([None if value is None else f"{value:f}" for value in moneys]).cast(type_)
    if pa.types.is_timestamp(type_):
        times: Sequence[datetime | None] = values
        return int64_array([None if value is None else microseconds(value) for value in times], type_)
    if pa.types.is_integer(type_):
        return int64_array(values, type_)
    if pa.types.is_floating(type_):
        return double_array(values)
    return text_array(values)


def time_array(time: datetime, count: int) -> "pa.Array[Any]":
    """One moment, so many times."""
    return pa.Array.from_buffers(TIMESTAMP, count, [None, pa.py_buffer(array("q", [microseconds(time)]) * count)])


def moments(column: pa.ChunkedArray) -> list[datetime]:
    """The times of a column without nulls."""
    return [EPOCH + timedelta(microseconds=value) for value in column.cast(pa.int64()).to_pylist()]


def date_array(days: Sequence[date]) -> "pa.Array[Any]":
    """UTC days as date32."""
    since_epoch = int64_array([day.toordinal() - _EPOCH for day in days], pa.int64())
    return since_epoch.cast(pa.int32()).cast(pa.date32())


def flag_array(flags: bytes) -> "pa.Array[Any]":
    """Booleans from one byte each, 0 or 1."""
    return pa.Array.from_buffers(pa.uint8(), len(flags), [None, pa.py_buffer(flags)]).cast(pa.bool_())


def _strings(lengths: Iterable[int], data: bytes, count: int, validity: pa.Buffer | None) -> "pa.Array[Any]":
    offsets = array("i", accumulate(lengths, initial=0))
    return pa.Array.from_buffers(pa.string(), count, [validity, pa.py_buffer(offsets), pa.py_buffer(data)])


def _fixed(numbers: "array[Any]", validity: pa.Buffer | None, type_: pa.DataType) -> "pa.Array[Any]":
    return pa.Array.from_buffers(type_, len(numbers), [validity, pa.py_buffer(numbers)])


def _validity(values: Sequence[Any]) -> pa.Buffer | None:
    return _flags(bytes([value is not None for value in values]))


def _flags(flags: bytes) -> pa.Buffer | None:
    return flag_array(flags).buffers()[1]
