"""Exact sums. Values are widened while Arrow adds them (decimals to 256 bits): its narrower sums wrap silently."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import reduce
from operator import add
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.errors import SumOverflowError
from sessions_pipeline.tables.rows import PART, release
from sessions_pipeline.validation.types import LAST_DIGIT

# More digits than a sum of 38-digit numbers can have.
EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)
_Number = TypeVar("_Number", int, Decimal)
_Value = TypeVar("_Value")
# 76 digits hold the sum of 38-digit numbers for any number of rows that a table can have.
_WIDE_PRECISION = 76
ROWS_PER_SUM = 16_384
"""Of more rows, one measure is summed at a time: the widened copies take more memory than the rows."""


def sums(rows: pa.Table, keys: Sequence[str], measures: Sequence[str]) -> pa.Table:
    """Exact sums of `measures` by group: one row for each combination of `keys`, sorted by `keys`.

    Nulls are skipped; a sum is null if all its values are. The sum of an int64 or decimal128(38, 18) measure has the
    measure's type; the sum of a boolean measure is the number of true values, int64. A last column, `rows`, has the
    number of rows in the group.

    Raises:
        SumOverflowError: a sum does not fit its type; the text names the column and the group.
    """
    at_once, narrow = len(measures) if rows.num_rows <= ROWS_PER_SUM else 1, list[Any]()
    for first in range(0, len(measures), at_once):
        names = measures[first : first + at_once]
        wide = [pa.field(name, _wide(rows.schema.field(name).type)) for name in names]
        widened = rows.select([*keys, *names]).cast(pa.schema([*map(rows.schema.field, keys), *wide]))
        summed = widened.group_by(list(keys), use_threads=False)
        summed = summed.aggregate([*((name, "sum") for name in names), ([], "count_all")])
        summed = summed.sort_by([(key, "ascending") for key in keys])
        for name in names:
            type_ = rows.schema.field(name).type
            try:
                narrow.append(summed.column(f"{name}_sum").cast(pa.int64() if pa.types.is_boolean(type_) else type_))
            except pa.ArrowInvalid:
                raise _overflow(summed, keys, name) from None
        if at_once < len(measures):
            release()
    return pa.table([*map(summed.column, keys), *narrow, summed.column("count_all")], [*keys, *measures, "rows"])


def sums_by_days(
    rows: pa.Table, keys: Sequence[str], sets: Sequence[Collection[date]], measures: Sequence[str]
) -> list[dict[str, Any]]:
    """Sums by `keys` of all days that are in the same of these sets; `start_date` is the earliest of these days.

    So a sum over one of the sets, or over several, is the same from these rows as from `rows`, however many days there
    are. Rows without a day are summed by themselves.

    Raises:
        SumOverflowError: see `sums`.
    """
    days = rows.column("start_date").to_pylist()
    group_of = {day: tuple(day in some for some in sets) for day in sorted({*days} - {None})}
    # The latest first, so that the earliest day of each group is the one that stays.
    first_of = {group: day for day, group in reversed(group_of.items())}
    starts = pa.array([day and first_of[group_of[day]] for day in days], pa.date32())
    rows = rows.drop_columns("start_date").append_column("start_date", starts)
    return list(sums(rows, ("start_date", *keys), measures).to_pylist())


def tuples(rows: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """The rows of these columns as tuples of Python values; only one batch is converted at a time, to save memory."""
    for batch in rows.select(names).to_batches(max_chunksize=PART):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def entries(mappings: Sequence[Mapping[str, _Value]]) -> tuple["pa.Array[Any]", "pa.Array[Any]", list[_Value]]:
    """The entries of all mappings as three columns: the index of the mapping, the key, and the value.

    The entries of a mapping are sorted by key. Doing this in bulk takes a third less time than row by row.
    """
    keys_of = list(map(sorted, mappings))
    key_lists = pa.array(keys_of, pa.list_(pa.string()))
    values = [mapping[key] for mapping, keys in zip(mappings, keys_of, strict=True) for key in keys]
    return pc.list_parent_indices(key_lists), key_lists.flatten(), values


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order and cast to its types.

    Raises:
        ValueError: a null in a column that is not nullable, or a value that does not fit its type; a bug in the caller.
    """
    return rows.select(schema.names).cast(schema)


def total(values: Iterable[_Number | None]) -> _Number | None:
    """The exact sum of the values that are not None; None if all are."""
    known = [value for value in values if value is not None]
    with localcontext(EXACT):
        return reduce(add, known) if known else None


def cost_per_run(cost: Decimal | None, runs: int | None) -> Decimal | None:
    """Cost divided by runs, rounded half to even to 18 decimal places; None if either is unknown or there are no runs.

    Computed in Python, because Arrow's decimal quotients are wrong near multiples of 2**32 (as of pyarrow 26). The
    quotient is first rounded to the 100 digits of `EXACT`, which can't change the result: unless it is a tie, it is at
    least 1 / (2 * 2**63) of the last kept digit away from one.
    """
    if cost is None or runs is None or runs <= 0:
        return None
    return EXACT.quantize(EXACT.divide(cost, runs), LAST_DIGIT)


def known_sum(column: pa.ChunkedArray) -> Decimal | None:
    """The exact sum of a decimal column, nulls skipped; None if all values are null."""
    value: Decimal | None = pc.sum(column.cast(_wide(column.type))).as_py()
    return value


def _wide(type_: pa.DataType) -> pa.DataType:
    """The type in which many values of this type add up exactly."""
    if pa.types.is_decimal(type_):
        return pa.decimal256(_WIDE_PRECISION, type_.scale)
    # 38 digits hold the sum of 10^19 numbers of 19 digits.
    return type_ if pa.types.is_boolean(type_) else pa.decimal128(38)


def _overflow(summed: pa.Table, keys: Sequence[str], name: str) -> SumOverflowError:
    """The error for a measure of which the largest sum does not fit its column."""
    totals = summed.column(f"{name}_sum").to_pylist()
    group = max(range(len(totals)), key=lambda index: abs(totals[index] or 0))
    where = ", ".join(f"{key} {summed.column(key)[group]}" for key in keys)
    return SumOverflowError(
        f"{name} of {where} adds up to {totals[group]:f}, more than the column can hold; look for a wrong number among "
        "its sessions"
    )
