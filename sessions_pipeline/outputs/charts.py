"""Small pictures for Dagster's metadata, drawn by Vega-Lite without a browser and without the network.

Vega-Lite's specifications are plain dictionaries, so neither altair nor pandas is imported: the first picture of a
process takes 0.7 s and 65 MB, each further one less than 0.1 s. Nothing heavy is imported before the first.
"""

import base64
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from sessions_pipeline.outputs import formatting as figures

# Ordered so that neighbours differ in luminance, not only in hue.
COLOURS = ("#12355b", "#e0862a", "#7d2a55", "#c9a227", "#1f7a6d", "#6fa3dc")
OTHER_COLOUR = "#a3a39b"
INK, FAINT, RULE, PAPER = "#1b2430", "#5a6472", "#dcdfe3", "#ffffff"
FONT = "Helvetica, Arial, Liberation Sans, sans-serif"

Spec = dict[str, Any]

_WIDTH, _HEIGHT = 640, 240
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK_FRAME = 12  # length, kind and checksum
_MOST_BARS = 8
_LONGEST_LABEL = 60
_LARGEST_PLAIN_TICK = 10_000


def cost_by_dataset_png(daily: pa.Table, names: Mapping[str, str] | None = None) -> bytes:
    """Costs by day, stacked by dataset: the six dearest, and all others as one.

    `daily` is `daily_cost_by_reference_dataset` with `start_date`, of any number of days; unknown costs have no bar.
    """
    known = [row for row in _rows(daily, "reference_dataset_id", "total_cost") if row["total_cost"] is not None]
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for row in known:
        totals[row["reference_dataset_id"]] += row["total_cost"]
    ranked = sorted(totals, key=lambda key: (-totals[key], key))
    series = [figures.dataset_name(key, names or {}) for key in ranked[: len(COLOURS)]]
    others = f"{len(ranked) - len(series)} others"
    labels = dict(zip(ranked, series, strict=False))
    values = [
        {
            "day": row["start_date"].isoformat(),
            "dataset": labels.get(row["reference_dataset_id"], others),
            "order": min(ranked.index(row["reference_dataset_id"]), len(series)),
            "value": float(row["total_cost"]),
        }
        for row in known
    ]
    if len(ranked) > len(series):
        series.append(others)
    colour = {
        "field": "dataset",
        "type": "nominal",
        "sort": None,
        "scale": {"domain": series, "range": [*COLOURS[: len(ranked)], OTHER_COLOUR][: len(series)]},
        "legend": {"title": None, "labelLimit": 150, "symbolType": "square"},
    }
    largest = max(_added(values), default=0.0)
    return _png(
        {
            "title": "Cost by dataset, US dollars",
            "data": {"values": values},
            "mark": {"type": "bar", "stroke": PAPER, "strokeWidth": 0.5},
            "encoding": {
                "x": day_axis(),
                "y": {**money_axis(largest), "aggregate": "sum"},
                "color": colour,
                "order": {"field": "order", "type": "quantitative"},
            },
        }
    )


def unpriced_share_png(daily: pa.Table) -> bytes:
    """The share of each day's experiments without a cost, 0 to 100 %. `daily` as above."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in _rows(daily, "unpriced_session_count", "session_count"):
        sums[row["start_date"].isoformat()][0] += row["unpriced_session_count"]
        sums[row["start_date"].isoformat()][1] += row["session_count"]
    values = [{"day": day, "value": part / whole} for day, (part, whole) in sorted(sums.items()) if whole]
    axis = {"format": ".0%", "tickCount": 4, "title": None}
    return _png(
        {
            "title": "Experiments without a cost",
            "data": {"values": values},
            "mark": {"type": "bar", "color": COLOURS[1]},
            "encoding": {
                "x": day_axis(),
                "y": {"field": "value", "type": "quantitative", "axis": axis, "scale": {"domain": [0, 1]}},
            },
        }
    )


def rejected_by_reason_png(rejected: pa.Table) -> bytes:
    """How many records each reason rejected, the eight most frequent. `rejected` has `reasons`, a list of texts."""
    counted = Counter(reason for reasons in rejected.column("reasons").to_pylist() for reason in reasons or ())
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:_MOST_BARS]
    values = [{"reason": _short(reason), "value": count} for reason, count in ranked]
    y = {
        "field": "reason",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "labelLimit": 380, "ticks": False, "domain": False},
    }
    x = {"field": "value", "type": "quantitative", "axis": None}
    return _png(
        {
            "title": "Rejected records by reason",
            "data": {"values": values},
            "encoding": {"y": y, "x": x},
            "layer": [
                {"mark": {"type": "bar", "color": COLOURS[2], "height": {"band": 0.6}}},
                {
                    "mark": {"type": "text", "align": "left", "dx": 5, "color": INK},
                    "encoding": {"text": {"field": "value", "format": ",d"}},
                },
            ],
        }
    )


def as_markdown(png: bytes, alt: str) -> str:
    """A picture as Markdown that holds it, for `MetadataValue.md`. `alt` says in words what it shows."""
    words = " ".join(alt.translate({ord(mark): " " for mark in "[]\\`<>"}).split())
    return f"![{words}](data:image/png;base64,{base64.b64encode(png).decode()})"


def day_axis() -> Spec:
    """Days as a band each, with as many labels as there is room for."""
    axis = {"title": None, "labelAngle": 0, "labelOverlap": "greedy", "format": "%-d %b", "ticks": False}
    return {"field": "day", "type": "ordinal", "timeUnit": "utcyearmonthdate", "axis": axis}


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


def render_svg(spec: Spec) -> str:
    """A Vega-Lite specification as SVG text."""
    import vl_convert  # noqa: PLC0415 - only who draws pays for it

    text: str = vl_convert.vegalite_to_svg({"background": None, **spec, "config": _config()}, show_warnings=False)
    return text


def _png(spec: Spec) -> bytes:
    import vl_convert  # noqa: PLC0415 - as above

    sized = {"width": _WIDTH, "height": _HEIGHT, "autosize": {"type": "fit", "contains": "padding"}, **spec}
    # Opaque, because the UI's background may be light or dark.
    drawn = {"background": PAPER, "padding": 10, **sized, "config": _config()}
    data: bytes = vl_convert.vegalite_to_png(drawn, scale=1, show_warnings=False)
    return _packed(data)


def _packed(png: bytes) -> bytes:
    """The same picture, compressed again: a quarter of what the fast compression of the renderer leaves."""
    packed, pixels, place = png[: len(_SIGNATURE)], b"", len(_SIGNATURE)
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        end = place + length + _CHUNK_FRAME
        if kind == b"IDAT":
            pixels += png[place + 8 : end - 4]
        elif kind == b"IEND":
            data = zlib.compress(zlib.decompress(pixels), level=9)
            checksum = zlib.crc32(b"IDAT" + data)
            packed += struct.pack(">I4s", len(data), b"IDAT") + data + struct.pack(">I", checksum) + png[place:end]
        else:
            packed += png[place:end]
        place = end
    return packed


def _config() -> Spec:
    return {
        "font": FONT,
        "view": {"stroke": None},
        "aria": True,
        "axis": {
            "aria": False,
            "labelColor": FAINT,
            "gridColor": RULE,
            "domainColor": RULE,
            "tickColor": RULE,
            "labelFontSize": 11,
            "labelPadding": 6,
        },
        "axisX": {"grid": False, "labelPadding": 7},
        "legend": {"aria": False, "labelColor": INK, "labelFontSize": 11},
        "title": {"aria": False, "anchor": "start", "color": INK, "fontSize": 13, "offset": 10},
    }


def _rows(daily: pa.Table, *columns: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = daily.select(["start_date", *columns]).to_pylist()
    return [row for row in rows if row["start_date"] is not None]


def _added(values: Iterable[Mapping[str, Any]]) -> Sequence[float]:
    sums: dict[str, float] = defaultdict(float)
    for value in values:
        sums[value["day"]] += value["value"]
    return list(sums.values())


def _short(reason: str) -> str:
    line = figures.visible(" ".join(reason.split()))
    return line if len(line) <= _LONGEST_LABEL else f"{line[: _LONGEST_LABEL - 1]}…"
