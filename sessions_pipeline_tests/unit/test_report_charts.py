"""The report's charts: ticks that differ, and nothing heavy before one is drawn."""

import subprocess
import sys

import pytest

from sessions_pipeline.outputs.report import charts


@pytest.mark.parametrize("largest", [0, 1e-18, 0.003, 0.02, 0.39, 0.4, 3, 4.5, 900, 9_999, 10_000, 1e20])
def test_ticks_of_money_stay_short_and_differ(largest: float) -> None:
    spec = {
        "width": 300,
        "height": 200,
        "data": {"values": [{"value": largest or 1}]},
        "mark": "bar",
        "encoding": {"y": charts.money_axis(largest)},
    }
    svg = charts.render_svg(spec, "ticks")
    ticks = [part.split("</text>")[0] for part in svg.split(">$")[1:]]
    assert len(set(ticks)) == len(ticks) >= 2


def test_nothing_heavy_is_imported_before_a_chart_is_drawn() -> None:
    script = """
import sys
import sessions_pipeline.outputs.report
assert not {"vl_convert", "jinja2", "dagster"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
