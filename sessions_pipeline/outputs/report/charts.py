"""The report's chart: costs by day, week or month, and where marks and ticks stand. `charts.html.j2` draws them.

Colours are the style sheet's. Coordinates are in SVG's units, `y` downwards. Names stand in the marks' tips alone, and
never become text of a chart.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any

from sessions_pipeline.days import days_between, period_of
from sessions_pipeline.outputs import formatting
from sessions_pipeline.outputs.formatting import money
from sessions_pipeline.outputs.spending import Row, Totals, by_key
from sessions_pipeline.tables.aggregate import EXACT, total

if TYPE_CHECKING:
    from sessions_pipeline.outputs.report.data import ReportData

# Thirty or so bars fit on a phone.
LONGEST_BY_DAY = 45
LONGEST_BY_WEEK = 200
# Datasets with a colour of their own; the style sheet has as many, and one for all others.
SERIES = 8
# What labels of the axes take.
LEFT, TOP, BOTTOM = 52, 8, 24
LABEL_WIDTH = 56
_SUFFIXES = ("", "k", "M", "B", "T")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A day, week or month of the period: known costs by dataset id, and what is to be known of its days.

    `is_part`: not all its days are in the period. `lacks` says so, and which days were not read, or not over by then.
    """

    label: str
    long_label: str
    is_part: bool
    is_read: bool
    lacks: str
    totals: Totals
    costs: Mapping[str | None, Decimal | None]


def by_time(
    days: Sequence[date], rows: Iterable[Row], read: frozenset[date], unfinished: frozenset[date], unit: str
) -> list[Bucket]:
    """What the rows say of each day, week or month, oldest first."""
    rows_of, days_of = defaultdict(list), defaultdict(list)
    for day in days:
        days_of[period_of(unit, day)].append(day)
    for row in rows:
        rows_of[period_of(unit, row["start_date"])].append(row)

    def bucket(period: tuple[date, date], of: Sequence[date]) -> Bucket:
        costs = by_key(rows_of[period], "reference_dataset_id").items()
        whole, unread = len(days_between(*period)), len(of) - len(read.intersection(of))
        lacks = (
            f"only {len(of)} of the {unit}'s {whole} days" if len(of) < whole else "",
            ("not read" if len(of) == 1 else f"{unread} of {len(of)} days not read") if unread else "",
            "not over when last read" if unfinished.intersection(of) else "",
        )
        return Bucket(
            label=(formatting.month if unit == "month" else formatting.short_day)(period[0]),
            long_label=formatting.days(of[0], of[-1]),
            is_part=len(of) < whole,
            is_read=not unread,
            lacks=", ".join(filter(None, lacks)),
            totals=Totals.of(rows_of[period]),
            costs={key: total(row["total_cost"] for row in group) for key, group in costs},
        )

    return [bucket(period, of) for period, of in days_of.items()]


def unit_of(days: int) -> str:
    """`day`, `week` or `month`: what as many bars stand for as can be told apart."""
    if days <= LONGEST_BY_DAY:
        return "day"
    return "week" if days <= LONGEST_BY_WEEK else "month"


def ticks(high: Decimal, most: int = 5) -> list[Decimal]:
    """Round numbers from 0, a step of 1, 2 or 5 apart, of which the last is not below `high`."""
    raw = EXACT.divide(high or Decimal(1), most)
    power = Decimal(1).scaleb(raw.adjusted())
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= raw)
    steps = max(1, int(EXACT.divide(high, step).to_integral_value(ROUND_CEILING)))
    return [step * place for place in range(steps + 1)]


def money_label(value: Decimal, step: Decimal) -> str:
    """US dollars at a tick, short, so that neighbours `step` apart differ."""
    if value == 0:
        return "$0"
    if step.adjusted() not in range(-6, 3 * len(_SUFFIXES)):
        return f"${value:.2g}"
    thousands = max(0, step.adjusted() // 3)
    places = 0 if step >= 1 else max(2, -step.adjusted())
    return f"${value.scaleb(-3 * thousands):,.{places}f}{_SUFFIXES[thousands]}"


def stacked(data: "ReportData", *, width: int, height: int) -> dict[str, Any]:
    """Costs by day, week or month, stacked by dataset, the most expensive below; what lacks a part is marked."""
    steps = ticks(max((bucket.totals.cost or Decimal(0) for bucket in data.buckets), default=Decimal(0)))

    def y(cost: Decimal) -> float:
        return round(height - BOTTOM - float(EXACT.divide(cost, steps[-1])) * (height - BOTTOM - TOP), 1)

    band = (width - LEFT) / len(data.buckets)
    # Every label that has room.
    every = -(-LABEL_WIDTH // max(1, int(band)))
    lefts = [round(LEFT + place * band, 1) for place in range(len(data.buckets))]
    return {
        "width": width,
        "height": height,
        "left": LEFT,
        "bottom": height - BOTTOM,
        "band": round(band, 1),
        "y_ticks": [(y(step), money_label(step, steps[1])) for step in steps],
        "labels": [
            (round(left + band / 2, 1), bucket.label)
            for place, (left, bucket) in enumerate(zip(lefts, data.buckets, strict=True))
            if place % every == 0
        ],
        "marked": [(left, _title(bucket)) for left, bucket in zip(lefts, data.buckets, strict=True) if bucket.lacks],
        "bars": [
            {"x": round(left + band * 0.11, 1), "width": round(band * 0.78, 1), **bar}
            for left, bucket in zip(lefts, data.buckets, strict=True)
            for bar in _bars(bucket, data, y)
        ],
    }


def _bars(bucket: Bucket, data: "ReportData", y: Callable[[Decimal], float]) -> Iterator[dict[str, Any]]:
    shown = data.datasets[:SERIES]
    others = total(cost for key, cost in bucket.costs.items() if key not in {one.key for one in shown})
    parts = [(one.name, bucket.costs.get(one.key)) for one in shown] + [("Other datasets", others)]
    below = Decimal(0)
    for series, (name, cost) in enumerate(parts):
        if cost is not None:
            top, bottom = y(below + cost), y(below)
            tip = f"{name} · {_title(bucket)} · {money(cost)}"
            yield {"y": top, "height": round(bottom - top, 1), "series": series, "tip": tip}
            below = EXACT.add(below, cost)


def _title(bucket: Bucket) -> str:
    return f"{bucket.long_label} ({bucket.lacks})" if bucket.lacks else bucket.long_label
