"""Exact sums, of Arrow tables 256 bits wide while they are added, since Arrow's narrower sums wrap silently."""

from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.errors import SumOverflowError
from sessions_pipeline.validation.rows import PART
from sessions_pipeline.validation.types import LAST_DIGIT

# More digits than a sum of 38-digit numbers can have.
EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)
_Number = TypeVar("_Number", int, Decimal)
_Value = TypeVar("_Value")
# 76 digits hold the sum of as many 38-digit numbers as any table can have rows.
_WIDE = 76
SUMMED = 16_384
"""Rows that are summed at a time: while they are, they take more memory."""


def sums(rows: pa.Table, keys: Sequence[str], measures: Sequence[str]) -> pa.Table:
    """Exact sums of what is known of `measures`, one row for each combination of `keys`, sorted by them.

    A measure is int64 or decimal128(38, 18) and so is its sum, null where nothing is known; one that is yes or no
    counts where it is yes. A last column, `rows`, counts a group's rows.

    Raises:
        SumOverflowError: a sum does not fit; the text names the column and the group.
    """
    rows = rows.select([*keys, *measures])
    if rows.num_rows <= SUMMED:
        return _sums(rows, keys, measures)
    rows = rows.sort_by([(key, "ascending") for key in keys])
    # Each cut lies between two groups.
    ends = pc.add(pc.indices_nonzero(_differ(rows, keys)), 1).to_pylist()
    cuts = {ends[place] for first in range(SUMMED, rows.num_rows, SUMMED) if (place := bisect(ends, first)) < len(ends)}
    bounds = pairwise([0, *sorted(cuts), rows.num_rows])
    return pa.concat_tables([_sums(rows.slice(first, end - first), keys, measures) for first, end in bounds])


def _differ(rows: pa.Table, keys: Sequence[str]) -> Any:
    """Of each row but the last, whether the next one is of another group."""
    pairs = [(rows.column(key)[:-1], rows.column(key)[1:]) for key in keys]
    unequal = [pc.fill_null(pc.not_equal(one, other), fill_value=False) for one, other in pairs]
    return reduce(pc.or_, [*unequal, *(pc.xor(one.is_null(), other.is_null()) for one, other in pairs)])


def _sums(rows: pa.Table, keys: Sequence[str], measures: Sequence[str]) -> pa.Table:
    columns = [*map(rows.column, keys), *(_wide(rows.column(name)) for name in measures)]
    summed = pa.table(columns, [*keys, *measures]).group_by(list(keys), use_threads=False)
    summed = summed.aggregate([*((name, "sum") for name in measures), ([], "count_all")])
    summed = summed.sort_by([(key, "ascending") for key in keys])
    narrow = (_narrow(summed, keys, name, rows.schema.field(name).type) for name in measures)
    return pa.table([*map(summed.column, keys), *narrow, summed.column("count_all")], [*keys, *measures, "rows"])


def tuples(rows: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """The rows' values in these columns; never more than a part of them is in memory."""
    for part in rows.select(names).to_batches(max_chunksize=PART):
        yield from zip(*(column.to_pylist() for column in part.columns), strict=True)


def entries(mappings: Sequence[Mapping[str, _Value]]) -> tuple["pa.Array[Any]", "pa.Array[Any]", list[_Value]]:
    """The entries of all mappings, those of each by their keys: the mapping's place, the key, and the value.

    In bulk, it takes a third less than row by row.
    """
    names = list(map(sorted, mappings))
    keys = pa.array(names, pa.list_(pa.string()))
    values = [mapping[name] for mapping, some in zip(mappings, names, strict=True) for name in some]
    return pc.list_parent_indices(keys), keys.flatten(), values


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order and with its types; rows that break it are a fault of the program.

    Raises:
        ValueError: a null where there may be none, or a value that does not fit its type.
    """
    return rows.select(schema.names).cast(schema)


def total(values: Iterable[_Number | None]) -> _Number | None:
    """The exact sum of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    with localcontext(EXACT):
        return reduce(add, known) if known else None


def cost_per_run(cost: Decimal | None, runs: int | None) -> Decimal | None:
    """Cost divided by runs, rounded once, half to even, to 18 digits; null where one is unknown or there are no runs.

    In Python, because Arrow's quotients of decimals are wrong near multiples of 2**32 (as of pyarrow 26). A quotient
    that is not a tie differs from it by at least 1 / (2 * 2**63) of the last kept digit, so that the digits that
    `EXACT` cuts can't change the rounding.
    """
    if cost is None or runs is None or runs <= 0:
        return None
    return EXACT.quantize(EXACT.divide(cost, runs), LAST_DIGIT)


def known_sum(column: pa.ChunkedArray) -> Decimal | None:
    """An exact sum of money; None when nothing is known."""
    value: Decimal | None = pc.sum(_wide(column)).as_py()
    return value


def _wide(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_decimal(column.type):
        return column.cast(pa.decimal256(_WIDE, column.type.scale))
    # 38 digits hold the sum of 10^19 numbers of 19 digits.
    return column if pa.types.is_boolean(column.type) else column.cast(pa.decimal128(38))


def _narrow(summed: pa.Table, keys: Sequence[str], name: str, type_: pa.DataType) -> pa.ChunkedArray:
    column = summed.column(f"{name}_sum")
    try:
        return column.cast(pa.int64() if pa.types.is_boolean(type_) else type_)
    except pa.ArrowInvalid:
        limit = Decimal(2) ** 63 if pa.types.is_integer(type_) else Decimal(10) ** (type_.precision - type_.scale)
        totals = column.to_pylist()
        group = next(row for row, total in enumerate(totals) if total is not None and abs(total) >= limit)
        where = ", ".join(f"{key} {summed.column(key)[group]}" for key in keys)
        raise SumOverflowError(
            f"{name} of {where} adds up to {totals[group]:f}, more than the column can hold; look for a wrong number "
            "among its sessions"
        ) from None
