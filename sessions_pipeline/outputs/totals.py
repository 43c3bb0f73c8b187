"""Exact sums over rows of daily costs, which the report and the closing summary show."""

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, NamedTuple, Self, TypeAlias

Row: TypeAlias = Mapping[str, Any]

# 38 digits fill a column; a sum of a year's columns, and its quotients, need some more.
EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)


def total(values: Iterable[Decimal | None]) -> Decimal | None:
    """The exact sum of what is known; None when nothing is."""
    added = None
    for value in values:
        if value is not None:
            added = EXACT.add(added or Decimal(0), value)
    return added


def known_sum(values: Iterable[int | None]) -> int | None:
    """The sum of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


class Totals(NamedTuple):
    """What some rows of `daily_cost_by_reference_dataset` add up to. Money is in US dollars."""

    cost: Decimal | None
    sessions: int
    unpriced: int
    zero_with_tokens: int
    runs: int | None
    tokens: int | None

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """The sums of `rows`."""
        found = list(rows)
        return cls(
            cost=total(row["total_cost"] for row in found),
            sessions=sum(row["session_count"] for row in found),
            unpriced=sum(row["unpriced_session_count"] for row in found),
            zero_with_tokens=sum(row["zero_cost_with_tokens_count"] for row in found),
            runs=known_sum(row["run_count"] for row in found),
            tokens=known_sum(row["total_tokens"] for row in found),
        )
