"""Exact sums over Arrow tables: 256 bits wide while they are added, since Arrow's narrower sums wrap silently.

By slices of sorted rows: Arrow's own grouping imports pandas, and an SQL engine takes 0.2 s and 60 MB to start.
"""

from collections.abc import Sequence
from decimal import Context, Decimal
from itertools import accumulate, groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.errors import SumOverflowError
from sessions_pipeline.validation.arrays import int64_array, value_array

# More digits than any sum of 38-digit numbers can have.
_EXACT = Context(prec=100)
# 76 digits hold the sum of as many 38-digit numbers as any table can have rows.
_WIDE = 76
# By way of an array, because `pa.scalar` imports pandas, which takes 0.4 s.
(_ZERO,) = int64_array([0], pa.int64())


def sums(rows: pa.Table, keys: Sequence[str], measures: Sequence[str]) -> pa.Table:
    """Exact sums of what is known of `measures`, one row for each combination of `keys`, sorted by them.

    A measure is int64 or decimal128(38, 18) and so is its sum, null where nothing is known. A last column, `rows`,
    counts a group's rows.

    Raises:
        SumOverflowError: a sum does not fit; the text names the column and the group.
    """
    ordered = rows.select([*keys, *measures]).sort_by([(name, "ascending") for name in keys]).combine_chunks()
    lengths = [
        len(list(group)) for _, group in groupby(zip(*(ordered.column(key).to_pylist() for key in keys), strict=True))
    ]
    starts = list(accumulate(lengths, initial=0))[:-1]
    firsts = ordered.select(list(keys)).take(int64_array(starts, pa.int64()))
    columns = {name: firsts.column(name) for name in keys}
    try:
        for name in measures:
            columns[name] = _sums(ordered.column(name), starts, lengths)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise _overflow(rows, keys, measures) or error from None
    return pa.table({**columns, "rows": int64_array(lengths, pa.int64())})


def _sums(column: pa.ChunkedArray, starts: Sequence[int], lengths: Sequence[int]) -> pa.Array:
    scale = column.type.scale if pa.types.is_decimal(column.type) else 0
    wide = column.cast(pa.decimal256(_WIDE, scale))
    parts = zip(starts, lengths, strict=True)
    added = [pc.sum(wide.slice(start, length)).as_py() for start, length in parts]
    if pa.types.is_integer(column.type):
        added = [None if value is None else int(value) for value in added]
    return value_array(added, column.type)


def counted(flags: Any) -> pa.ChunkedArray:
    """A column to be summed that counts where `flags` is true; null is no."""
    return pc.fill_null(flags.cast(pa.int64()), _ZERO)


def _overflow(rows: pa.Table, keys: Sequence[str], measures: Sequence[str]) -> SumOverflowError | None:
    """Which sum it was, found by adding again in Python, where numbers do not overflow."""
    groups = list(zip(*(rows.column(name).to_pylist() for name in keys), strict=True))
    for measure in measures:
        totals: dict[tuple[Any, ...], Decimal] = {}
        for group, value in zip(groups, rows.column(measure).to_pylist(), strict=True):
            totals[group] = _EXACT.add(totals.get(group, Decimal(0)), Decimal(value or 0))
        limit = Decimal(2) ** 63 if pa.types.is_integer(rows.schema.field(measure).type) else Decimal(10) ** 20
        for group, total in totals.items():
            if abs(total) >= limit:
                where = ", ".join(f"{name} {value}" for name, value in zip(keys, group, strict=True))
                return SumOverflowError(
                    f"{measure} of {where} adds up to {total:f}, more than the column can hold; "
                    "look for a wrong number among its sessions"
                )
    return None
