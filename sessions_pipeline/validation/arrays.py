"""Arrow arrays from Python values and back."""

from array import array
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa

from sessions_pipeline.days import EPOCH
from sessions_pipeline.validation.types import TIMESTAMP


def text_array(values: Sequence[str | None]) -> "pa.Array[Any]":
    """Strings, None as null."""
    return pa.array(values, pa.string())


def utf8_array(values: Iterable[bytes]) -> "pa.Array[Any]":
    """Strings given in UTF-8, empty as null."""
    return pa.array([value or None for value in values], pa.string())


def few_texts_array(values: Sequence[str]) -> "pa.Array[Any]":
    """Strings that come again and again, none of them null."""
    return text_array(values)


def number_array(numbers: "array[int]") -> "pa.Array[Any]":
    """Integers, without nulls."""
    return pa.array(numbers, pa.int64())


def int64_array(values: Sequence[int | None], type_: pa.DataType) -> "pa.Array[Any]":
    """Integers as any type of 64 bits, None as null."""
    return pa.array(values, pa.int64()).cast(type_)


def double_array(values: Sequence[float | None]) -> "pa.Array[Any]":
    """Floating-point numbers, None as null, negative zero as zero."""
    return pa.array([None if value is None else value + 0.0 for value in values], pa.float64())


def value_array(values: Sequence[Any], type_: pa.DataType) -> "pa.Array[Any]":
    """Values of a column, None as null."""
    return pa.array(values, type_)


def time_array(time: datetime, count: int) -> "pa.Array[Any]":
    """One moment, so many times."""
    return pa.repeat(pa.scalar(time, TIMESTAMP), count)


def moments(column: pa.ChunkedArray) -> list[datetime]:
    """The times of a column without nulls."""
    return [EPOCH + timedelta(microseconds=value) for value in column.cast(pa.int64()).to_pylist()]


def date_array(days: Sequence[date]) -> "pa.Array[Any]":
    """UTC days as date32."""
    return pa.array(days, pa.date32())


def flag_array(flags: bytes) -> "pa.Array[Any]":
    """Booleans from one byte each, 0 or 1."""
    return pa.array(list(map(bool, flags)), pa.bool_())
