"""The report's chart: costs by day, week or month, and the positions of its bars and ticks. `charts.html.j2` draws it.

The style sheet sets the colours. Coordinates are in SVG units, with `y` downwards. Names of datasets are only in the
bars' tooltips, never in the chart itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any

from sessions_pipeline.days import days_between, period_of
from sessions_pipeline.outputs import formatting
from sessions_pipeline.outputs.spending import Totals, by_key, totals_by
from sessions_pipeline.tables.aggregate import EXACT

if TYPE_CHECKING:
    from sessions_pipeline.outputs.report.data import ReportData

# How many datasets have a colour of their own. The style sheet has as many, and one for all others.
SERIES = 8
# Margins for the labels of the axes.
LEFT, TOP, BOTTOM = 52, 8, 24
LABEL_WIDTH = 56
_SUFFIXES = ("", "k", "M", "B", "T")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bar of the chart: a day, week or month of the period, with the sums of its datasets.

    `is_part`: some of its days are outside of the period. `is_read`: all its days in the period were read in every
    workspace. `gaps` is a text about days that are outside, were not read, were not over when they were read, or are
    `rebuilt`; empty if there are none. `parts` are the sums by the series of `data.datasets`; those after the first
    `SERIES` are one.
    """

    label: str
    long_label: str
    is_part: bool
    is_read: bool
    gaps: str
    totals: Totals
    parts: Mapping[int, Totals]


def by_time(data: "ReportData") -> list[Bucket]:
    """A bucket for each day, week or month (`data.unit`) of the report, oldest first."""
    unit = data.unit
    rows_in = by_key(data.costs_now, lambda row: period_of(unit, row["start_date"]))
    series = {one.key: min(place, SERIES) for place, one in enumerate(data.datasets)}
    not_read = "not read in every workspace" if data.unread_of else "not read"

    def bucket(period: tuple[date, date], inside: Sequence[date]) -> Bucket:
        whole, unread = len(days_between(*period)), len({*inside} - data.days_read - data.rebuilt)
        gaps = (
            f"only {len(inside)} of the {unit}'s {whole} days" if len(inside) < whole else "",
            (not_read if len(inside) == 1 else f"{unread} of {len(inside)} days {not_read}") if unread else "",
            "rebuilt by --as-of" if data.rebuilt.intersection(inside) else "",
            "not over when last read" if data.unfinished.intersection(inside) else "",
        )
        return Bucket(
            label=(formatting.month if unit == "month" else formatting.short_day)(period[0]),
            long_label=formatting.days(inside[0], inside[-1]),
            is_part=len(inside) < whole,
            is_read=not unread,
            gaps=", ".join(filter(None, gaps)),
            totals=Totals.of(rows_in[period]),
            parts=totals_by(rows_in[period], (), lambda row: series[row["reference_dataset_id"]]),
        )

    return [bucket(period, inside) for period, inside in by_key(data.days, lambda day: period_of(unit, day)).items()]


def ticks(high: Decimal, most: int = 5) -> list[Decimal]:
    """At most `most` + 1 round numbers from 0 to at least `high`, in steps of 1, 2 or 5 times a power of ten."""
    raw = EXACT.divide(high or Decimal(1), most)
    power = Decimal(1).scaleb(raw.adjusted())
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= raw)
    steps = max(1, int(EXACT.divide(high, step).to_integral_value(ROUND_CEILING)))
    return [step * place for place in range(steps + 1)]


def money_label(value: Decimal, step: Decimal) -> str:
    """A short label for a tick, in US dollars: `$1.50`, `$20k`. Ticks that are `step` apart have different labels."""
    if value == 0:
        return "$0"
    if step.adjusted() not in range(-6, 3 * len(_SUFFIXES)):
        return f"${value:.2g}"
    thousands = max(0, step.adjusted() // 3)
    places = 0 if step >= 1 else max(2, -step.adjusted())
    return f"${value.scaleb(-3 * thousands):,.{places}f}{_SUFFIXES[thousands]}"


def stacked(data: "ReportData", *, width: int, height: int) -> dict[str, Any]:
    """The chart for `charts.html.j2`: bars stacked by dataset, the most expensive at the bottom; gaps are marked."""
    steps = ticks(max((bucket.totals.cost or Decimal(0) for bucket in data.buckets), default=Decimal(0)))

    def y(cost: Decimal) -> float:
        return round(height - BOTTOM - float(EXACT.divide(cost, steps[-1])) * (height - BOTTOM - TOP), 1)

    band = (width - LEFT) / len(data.buckets)
    # Label only as many bars as there is room for.
    every = -(-LABEL_WIDTH // max(1, int(band)))
    placed = [(round(LEFT + place * band, 1), bucket) for place, bucket in enumerate(data.buckets)]
    return {
        "width": width,
        "height": height,
        "left": LEFT,
        "bottom": height - BOTTOM,
        "band": round(band, 1),
        "y_ticks": [(y(step), money_label(step, steps[1])) for step in steps],
        "labels": [(round(left + band / 2, 1), bucket.label) for left, bucket in placed[::every]],
        "marked": [(left, _title(bucket)) for left, bucket in placed if bucket.gaps],
        "bars": [
            {"x": round(left + band * 0.11, 1), "width": round(band * 0.78, 1), **bar}
            for left, bucket in placed
            for bar in _bars(bucket, data, y)
        ],
    }


def _bars(bucket: Bucket, data: "ReportData", y: Callable[[Decimal], float]) -> Iterator[dict[str, Any]]:
    below = Decimal(0)
    for series, part in sorted(bucket.parts.items()):
        if part.cost is not None:
            top, bottom = y(below + part.cost), y(below)
            name = data.datasets[series].name if series < SERIES else "Other datasets"
            cost = formatting.at_least(part.cost, part.unpriced or not bucket.is_read)
            tip = f"{name} · {_title(bucket)} · {cost}"
            yield {"y": top, "height": round(bottom - top, 1), "series": series, "tip": tip}
            below = EXACT.add(below, part.cost)


def _title(bucket: Bucket) -> str:
    return f"{bucket.long_label} ({bucket.gaps})" if bucket.gaps else bucket.long_label
