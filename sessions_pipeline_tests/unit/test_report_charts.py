"""The report's charts: distinct ticks, bars as high as their values, and no heavy import before a page is rendered."""

import re
import subprocess
import sys
from decimal import Decimal

import pytest

from sessions_pipeline.outputs.report import charts
from sessions_pipeline_tests.builders_report import html_of, made_up


@pytest.mark.parametrize(
    "largest", ["0", "1e-18", "0.003", "0.02", "0.39", "0.4", "3", "4.5", "900", "9999", "10000", "1e20"]
)
def test_ticks_of_money_stay_short_and_differ(largest: str) -> None:
    steps = charts.ticks(Decimal(largest))
    labels = [charts.money_label(step, steps[1]) for step in steps]
    assert len(set(labels)) == len(labels) >= 2
    assert max(map(len, labels)) <= 10
    assert steps[-1] >= Decimal(largest)


def test_bars_are_as_high_as_their_costs_and_are_stacked() -> None:
    data = made_up()
    chart = charts.stacked(data, width=1000, height=300)
    (top, _), (bottom, _) = chart["y_ticks"][-1], chart["y_ticks"][0]
    scale = charts.ticks(max(bucket.totals.cost or Decimal(0) for bucket in data.buckets))[-1]
    places = {bar["x"] for bar in chart["bars"]}
    heights = [sum(bar["height"] for bar in chart["bars"] if bar["x"] == x) for x in places]
    costs = [float((bucket.totals.cost or 0) / scale) * (bottom - top) for bucket in data.buckets if bucket.parts]
    assert sorted(heights) == pytest.approx(sorted(costs), abs=0.5)
    tops = [bottom - min(bar["y"] for bar in chart["bars"] if bar["x"] == x) for x in places]
    assert sorted(tops) == pytest.approx(sorted(heights), abs=1)
    marked = [tip for _, tip in chart["marked"]]
    assert marked == ["9 Mar 2025 (not read)", "30 Mar 2025 (not over when last read)"]


def test_each_dataset_with_its_own_bar_has_its_own_colour_and_the_others_are_grey() -> None:
    html = html_of(made_up(datasets=10))
    fills = dict(re.findall(r"^\.(s\d)\{fill:(.*)\}$", html, re.MULTILINE))
    assert len(set(fills.values())) == len(fills) == charts.SERIES + 1 == 9
    assert set(re.findall(r'class="(s\d)"', html)) == fills.keys()
    assert set(re.findall(r"url\(#(p\d)\)", "".join(fills.values()))) == set(re.findall(r'<pattern id="(p\d)"', html))
    legends = [
        re.findall(r'class="(s\d)"', made[made.index('<ul class="legend">') : made.index("<figcaption>")])
        for made in (html, html_of(made_up(datasets=8)))
    ]
    assert legends == [[f"s{number}" for number in range(9)], [f"s{number}" for number in range(8)]]


@pytest.mark.parametrize(("loaded", "unneeded"), [("definitions", "jinja2"), ("outputs.report", "dagster")])
def test_runs_load_nothing_that_only_the_report_needs_and_the_report_needs_no_dagster(
    loaded: str, unneeded: str
) -> None:
    script = f"import sys, sessions_pipeline.{loaded}; assert {unneeded!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
