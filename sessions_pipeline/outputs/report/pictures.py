"""The report's charts as SVG that is inlined, follows the page's colours and shows its values when touched.

Names never become text of a chart: they are in the legend and the captions beside it, and in the marks' descriptions,
which Vega escapes.
"""

import html
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sessions_pipeline.outputs import charts
from sessions_pipeline.outputs import formatting as figures
from sessions_pipeline.outputs.report.ranking import Experiment, Panel
from sessions_pipeline.outputs.report.spending import Bucket, Spending

SERIES = len(charts.COLOURS)
# As in the style sheet, where these become variables and patterns.
_UNREAD, _OTHERS, _BEST, _REST = "#eeeeee", charts.OTHER_COLOUR, charts.COLOURS[0], charts.FAINT

_MARK = re.compile(r' aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="[a-z -]*"')
_ROLE = re.compile(r' (?:role|aria-roledescription|aria-hidden|aria-label)="[^"]*"')
_OUTER = re.compile(r"\A<svg [^>]*?(viewBox=\"[^\"]*\")>")


def stacked(spent: Spending, *, width: int, height: int, description: str) -> str:
    """Costs by day, week or month, stacked by dataset, the dearest at the bottom; what was not read is marked."""
    series = {one.id: index for index, one in enumerate(spent.datasets[:SERIES])}
    names = {one.id: one.name for one in spent.datasets[:SERIES]}
    bars = [bar for bucket in spent.buckets for bar in _bars(bucket, series, names)]
    largest = max((float(bucket.usage.cost or 0) for bucket in spent.buckets), default=0.0)
    unread = [
        {"bucket": bucket.label, "tip": f"{bucket.long_label}: {_unread(bucket)}"}
        for bucket in spent.buckets
        if bucket.days_read < bucket.days
    ]
    x = {
        "field": "bucket",
        "type": "ordinal",
        "sort": None,
        "scale": {"domain": [bucket.label for bucket in spent.buckets], "paddingInner": 0.22, "paddingOuter": 0.1},
        "axis": {"title": None, "labelAngle": 0, "labelOverlap": "greedy", "labelSeparation": 8, "ticks": False},
    }
    y = {**charts.money_axis(largest), "scale": {"domainMin": 0, "nice": True}, "stack": "zero"}
    colour = {
        "field": "series",
        "type": "ordinal",
        "legend": None,
        "scale": {"domain": list(range(SERIES + 1)), "range": [*charts.COLOURS, _OTHERS]},
    }
    tip = {"field": "tip", "type": "nominal"}
    spec = {
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 2,
        "encoding": {"x": x, "description": tip},
        "layer": [
            {"data": {"values": unread}, "mark": {"type": "rect", "color": _UNREAD}},
            {
                "data": {"values": bars},
                "mark": {"type": "bar", "stroke": charts.PAPER, "strokeWidth": 1},
                "encoding": {"y": y, "color": colour, "order": {"field": "series", "type": "quantitative"}},
            },
        ],
    }
    return _inlined(charts.render_svg(spec), description)


def _bars(bucket: Bucket, series: Mapping[str, int], names: Mapping[str, str]) -> list[dict[str, Any]]:
    others = figures.total(cost for key, cost in bucket.costs.items() if key not in series)
    parts = [(series[key], names[key], cost) for key, cost in bucket.costs.items() if key in series]
    if others is not None:
        parts.append((SERIES, "Other datasets", others))
    note = f" ({_unread(bucket)})" if bucket.days_read < bucket.days else ""
    return [
        {
            "bucket": bucket.label,
            "series": index,
            "value": float(cost),
            "tip": f"{name} · {bucket.long_label}{note} · {figures.money(cost)}",
        }
        for index, name, cost in sorted(parts, key=lambda part: part[0])
    ]


def _unread(bucket: Bucket) -> str:
    return "not read" if bucket.days == 1 else f"{bucket.days - bucket.days_read} of {bucket.days} days not read"


def scatter(panel: Panel, *, width: int, height: int, description: str) -> str:
    """Scores by cost: filled and joined by a line what no other experiment beats, hollow the others."""
    others, best = ([_point(one, panel) for one in group] for group in (panel.others, panel.best))
    largest = max((one["value"] for one in (*others, *best)), default=0.0)
    x = {**charts.money_axis(largest), "scale": {"zero": True, "nice": True}}
    x["axis"] = {**x["axis"], "tickCount": 3, "labelOverlap": "greedy", "domain": True}
    y_axis = {"title": None, "tickCount": 4, "domain": False, "ticks": False, "format": "~g"}
    y = {"field": "score", "type": "quantitative", "scale": {"zero": False, "nice": True}, "axis": y_axis}
    tip = {"description": {"field": "tip", "type": "nominal"}}
    hollow = {"type": "point", "filled": False, "stroke": _REST, "size": 36, "strokeWidth": 1.3, "opacity": 0.75}
    filled = {"type": "point", "filled": True, "fill": _BEST, "shape": "diamond", "size": 95, "opacity": 1}
    line = {"type": "line", "color": _BEST, "interpolate": "step-after", "strokeWidth": 1.5, "aria": False}
    spec = {
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 4,
        "encoding": {"x": x, "y": y},
        "layer": [
            {"data": {"values": others}, "mark": hollow, "encoding": tip},
            {"data": {"values": best}, "mark": line},
            {"data": {"values": best}, "mark": filled, "encoding": tip},
        ],
    }
    return _inlined(charts.render_svg(spec), description)


def _point(one: Experiment, panel: Panel) -> dict[str, Any]:
    tip = f"{one.name or 'no name'} · {panel.score_key} {figures.number(one.score)} · {figures.money(one.cost)}"
    return {"value": float(one.cost or Decimal(0)), "score": one.score, "tip": tip}


def _inlined(svg: str, description: str) -> str:
    """Vega's SVG as one picture for assistive technology, with the marks' descriptions as values to show.

    The attributes can be replaced as text, because Vega escapes quotation marks in them and no name is a text node.
    """
    marked = _ROLE.sub("", _MARK.sub(r' data-tip="\1"', svg))
    named = f'role="img" aria-label="{html.escape(description)}" class="chart"'
    inlined, replaced = _OUTER.subn(lambda outer: f"<svg {outer[1]} {named}>", marked)
    if not replaced:
        raise ValueError(f"no SVG: {svg[:80]}")
    return inlined
