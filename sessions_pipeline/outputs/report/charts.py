"""The report's charts: where marks and ticks stand. `charts.html.j2` draws them, so that the style sheet colours them.

Coordinates are in SVG's units, `y` downwards. Names stand in the marks' tips alone, and never become text of a chart.
"""

from collections.abc import Iterator, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, NamedTuple

from sessions_pipeline.outputs.formatting import EXACT, money, number, visible
from sessions_pipeline.outputs.report.data import ReportData
from sessions_pipeline.outputs.report.ranking import Panel, Scored
from sessions_pipeline.outputs.spending import Bucket, total

# Datasets with a colour of their own; the style sheet has as many, and one for all others.
SERIES = 6
# What labels of the axes take.
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 8, 24
LABEL_WIDTH = 56
_SUFFIXES = ("", "k", "M", "B", "T")


class Scale(NamedTuple):
    """Values from `low` to `high` on a line from `start` to `end`."""

    low: Decimal
    high: Decimal
    start: float
    end: float

    def __call__(self, value: Decimal) -> float:
        """Where a value stands."""
        share = EXACT.divide(value - self.low, self.high - self.low)
        return round(self.start + float(share) * (self.end - self.start), 1)


def ticks(low: Decimal, high: Decimal, most: int = 5) -> list[Decimal]:
    """Round numbers, a step of 1, 2 or 5 apart, of which the first is not above `low` and the last not below `high`."""
    raw = EXACT.divide(high - low or abs(high) or Decimal(1), most)
    power = Decimal(1).scaleb(raw.adjusted())
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= raw)
    first = EXACT.divide(low, step).to_integral_value(ROUND_FLOOR)
    last = max(first + 1, EXACT.divide(high, step).to_integral_value(ROUND_CEILING))
    return [(first + place) * step for place in range(int(last - first) + 1)]


def money_label(value: Decimal, step: Decimal) -> str:
    """US dollars at a tick, short, so that neighbours `step` apart differ."""
    if value == 0:
        return "$0"
    if step.adjusted() not in range(-6, 3 * len(_SUFFIXES)):
        return f"${value:.2g}"
    thousands = max(0, step.adjusted() // 3)
    places = 0 if step >= 1 else max(2, -step.adjusted())
    return f"${value.scaleb(-3 * thousands):,.{places}f}{_SUFFIXES[thousands]}"


def stacked(data: ReportData, *, width: int, height: int) -> dict[str, Any]:
    """Costs by day, week or month, stacked by dataset, the most expensive at the bottom; days not read are marked."""
    largest = max((bucket.totals.cost or Decimal(0) for bucket in data.buckets), default=Decimal(0))
    steps = ticks(Decimal(0), largest)
    y = Scale(steps[0], steps[-1], height - BOTTOM, TOP)
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
        "unread": [
            (left, f"{bucket.long_label}{_unread(bucket)}")
            for left, bucket in zip(lefts, data.buckets, strict=True)
            if bucket.days_read < bucket.days
        ],
        "bars": [
            {"x": round(left + band * 0.11, 1), "width": round(band * 0.78, 1), **bar}
            for left, bucket in zip(lefts, data.buckets, strict=True)
            for bar in _bars(bucket, data, y)
        ],
    }


def _bars(bucket: Bucket, data: ReportData, y: Scale) -> Iterator[dict[str, Any]]:
    shown = data.datasets[:SERIES]
    others = total(cost for key, cost in bucket.costs.items() if key not in {one.id for one in shown})
    parts = [(one.name, bucket.costs.get(one.id)) for one in shown] + [("Other datasets", others)]
    below = Decimal(0)
    for series, (name, cost) in enumerate(parts):
        if cost is not None:
            top, bottom = y(below + cost), y(below)
            tip = f"{name} · {bucket.long_label}{_unread(bucket)} · {money(cost)}"
            yield {"y": top, "height": round(bottom - top, 1), "series": series, "tip": tip}
            below = EXACT.add(below, cost)


def _unread(bucket: Bucket) -> str:
    missing = bucket.days - bucket.days_read
    if not missing:
        return ""
    return " (not read)" if bucket.days == 1 else f" ({missing} of {bucket.days} days not read)"


def scatter(panel: Panel, *, width: int, height: int) -> dict[str, Any]:
    """Scores by cost: where experiments stand, and the line that joins those that no other beats."""
    everyone = (*panel.others, *panel.best)
    scores = [Decimal(str(one.score)) for one in everyone]
    across = ticks(Decimal(0), max(one.row["total_cost"] for one in everyone), 3)
    up = ticks(min(scores), max(scores))
    x, y = Scale(across[0], across[-1], LEFT, width - RIGHT - 16), Scale(up[0], up[-1], height - BOTTOM, TOP)

    def marks(group: Sequence[Scored]) -> list[tuple[float, float, str]]:
        return [(x(one.row["total_cost"]), y(Decimal(str(one.score))), _tip(one)) for one in group]

    best = marks(panel.best)
    return {
        "width": width,
        "height": height,
        "left": LEFT,
        "bottom": height - BOTTOM,
        "y_ticks": [(y(step), f"{float(step):.10g}") for step in up],
        "labels": [(x(step), money_label(step, across[1])) for step in across],
        "others": marks(panel.others),
        "best": best,
        "line": "".join(
            f"M{left} {top}" if not place else f"H{left}V{top}" for place, (left, top, _) in enumerate(best)
        ),
    }


def _tip(one: Scored) -> str:
    name = visible(one.row["name"] or "no name")
    return f"{name} · {one.key} {number(one.score)} · {money(one.row['total_cost'])}"
