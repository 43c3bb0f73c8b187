"""The report's charts: SVG, drawn by Vega-Lite without a browser or a network, that follows the page's colours.

A mark shows its value when touched. Names never become text of a chart: they stand in the legend and the captions
beside it, and in the marks' descriptions, which Vega escapes.
"""

import html
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sessions_pipeline.outputs.formatting import money, number, total
from sessions_pipeline.outputs.report.ranking import Experiment, Panel
from sessions_pipeline.outputs.report.spending import Bucket, Spending

# Neighbours differ in luminance, not only in hue. The style sheet makes variables and patterns of all these colours.
_COLOURS = ("#12355b", "#e0862a", "#7d2a55", "#c9a227", "#1f7a6d", "#6fa3dc")
_OTHERS, _UNREAD, _FAINT, _RULE, _PAPER = "#a3a39b", "#eeeeee", "#5a6472", "#dcdfe3", "#ffffff"
SERIES = len(_COLOURS)
_LARGEST_PLAIN_TICK = 10_000

Spec = dict[str, Any]

_MARK = re.compile(r' aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="[a-z -]*"')
_ROLE = re.compile(r' (?:role|aria-roledescription|aria-hidden|aria-label)="[^"]*"')
_OUTER = re.compile(r"\A<svg [^>]*?(viewBox=\"[^\"]*\")>")


def stacked(spent: Spending, *, width: int, height: int, description: str) -> str:
    """Costs by day, week or month, stacked by dataset, the most expensive at the bottom; days not read are marked."""
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
    y = {**money_axis(largest), "scale": {"domainMin": 0, "nice": True}, "stack": "zero"}
    colour = {
        "field": "series",
        "type": "ordinal",
        "legend": None,
        "scale": {"domain": list(range(SERIES + 1)), "range": [*_COLOURS, _OTHERS]},
    }
    tip = {"field": "tip", "type": "nominal"}
    spec = {
        "width": width,
        "height": height,
        "padding": 2,
        "encoding": {"x": x, "description": tip},
        "layer": [
            {"data": {"values": unread}, "mark": {"type": "rect", "color": _UNREAD}},
            {
                "data": {"values": bars},
                "mark": {"type": "bar", "stroke": _PAPER, "strokeWidth": 1},
                "encoding": {"y": y, "color": colour, "order": {"field": "series", "type": "quantitative"}},
            },
        ],
    }
    return render_svg(spec, description)


def _bars(bucket: Bucket, series: Mapping[str, int], names: Mapping[str, str]) -> list[dict[str, Any]]:
    others = total(cost for key, cost in bucket.costs.items() if key not in series)
    parts = [(series[key], names[key], cost) for key, cost in bucket.costs.items() if key in series]
    if others is not None:
        parts.append((SERIES, "Other datasets", others))
    note = f" ({_unread(bucket)})" if bucket.days_read < bucket.days else ""
    return [
        {
            "bucket": bucket.label,
            "series": index,
            "value": float(cost),
            "tip": f"{name} · {bucket.long_label}{note} · {money(cost)}",
        }
        for index, name, cost in sorted(parts, key=lambda part: part[0])
    ]


def _unread(bucket: Bucket) -> str:
    return "not read" if bucket.days == 1 else f"{bucket.days - bucket.days_read} of {bucket.days} days not read"


def scatter(panel: Panel, *, width: int, height: int, description: str) -> str:
    """Scores by cost: experiments that no other beats are filled and joined by a line, the others are hollow."""
    others, best = ([_point(one, panel) for one in group] for group in (panel.others, panel.best))
    largest = max((one["value"] for one in (*others, *best)), default=0.0)
    x = {**money_axis(largest), "scale": {"zero": True, "nice": True}}
    x["axis"] = {**x["axis"], "tickCount": 3, "labelOverlap": "greedy", "domain": True}
    y_axis = {"title": None, "tickCount": 4, "domain": False, "ticks": False, "format": "~g"}
    y = {"field": "score", "type": "quantitative", "scale": {"zero": False, "nice": True}, "axis": y_axis}
    tip = {"description": {"field": "tip", "type": "nominal"}}
    hollow = {"type": "point", "filled": False, "stroke": _FAINT, "size": 36, "strokeWidth": 1.3, "opacity": 0.75}
    filled = {"type": "point", "filled": True, "fill": _COLOURS[0], "shape": "diamond", "size": 95, "opacity": 1}
    line = {"type": "line", "color": _COLOURS[0], "interpolate": "step-after", "strokeWidth": 1.5, "aria": False}
    spec = {
        "width": width,
        "height": height,
        "padding": 4,
        "encoding": {"x": x, "y": y},
        "layer": [
            {"data": {"values": others}, "mark": hollow, "encoding": tip},
            {"data": {"values": best}, "mark": line},
            {"data": {"values": best}, "mark": filled, "encoding": tip},
        ],
    }
    return render_svg(spec, description)


def _point(one: Experiment, panel: Panel) -> dict[str, Any]:
    tip = f"{one.name or 'no name'} · {panel.score_key} {number(one.score)} · {money(one.cost)}"
    return {"value": float(one.cost or Decimal(0)), "score": one.score, "tip": tip}


def money_axis(largest: float) -> Spec:
    """US dollars from zero up, written so that ticks differ and read well."""
    if largest >= _LARGEST_PLAIN_TICK:
        form = "$~s"
    elif largest > 4:  # noqa: PLR2004 - whole dollars are enough for four ticks
        form = "$,.0f"
    else:
        form = f"$.{2 if largest >= 0.4 else 3 - Decimal(str(largest or 1)).adjusted()}f"  # noqa: PLR2004 - cents
    axis = {"title": None, "format": form, "tickCount": 4, "domain": False, "ticks": False}
    return {"field": "value", "type": "quantitative", "axis": axis}


def render_svg(spec: Spec, description: str) -> str:
    """A Vega-Lite specification as SVG: one picture for assistive technology, its marks' descriptions as `data-tip`.

    The attributes can be replaced as text, because Vega escapes quotation marks in them and no name is a text node.
    """
    import vl_convert  # noqa: PLC0415 - 65 MB, for those who draw

    axis = {
        "aria": False,
        "labelColor": _FAINT,
        "gridColor": _RULE,
        "domainColor": _RULE,
        "tickColor": _RULE,
        "labelFontSize": 11,
        "labelPadding": 6,
    }
    config = {
        "font": "Helvetica, Arial, Liberation Sans, sans-serif",
        "view": {"stroke": None},
        "aria": True,
        "axis": axis,
        "axisX": {"grid": False, "labelPadding": 7},
    }
    fitted = {"autosize": {"type": "fit", "contains": "padding"}, "background": None, **spec, "config": config}
    svg = vl_convert.vegalite_to_svg(fitted, show_warnings=False)
    marked = _ROLE.sub("", _MARK.sub(r' data-tip="\1"', svg))
    named = f'role="img" aria-label="{html.escape(description)}" class="chart"'
    inlined, replaced = _OUTER.subn(lambda outer: f"<svg {outer[1]} {named}>", marked)
    if not replaced:
        raise ValueError(f"no SVG: {svg[:80]}")
    return inlined
