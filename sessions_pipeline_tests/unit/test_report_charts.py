"""The pictures in Dagster's metadata: small, opaque, the same each time, and cheap until one is drawn."""

import base64
import struct
import subprocess
import sys
import zlib
from datetime import timedelta

import pyarrow as pa
import pytest

from sessions_pipeline.outputs import charts
from sessions_pipeline.outputs.report.data import DAILY
from sessions_pipeline_tests.builders import dataset
from sessions_pipeline_tests.builders_report import FIRST, HOSTILE_NAMES, daily, made_up

NAMES = {dataset(number): name for number, name in enumerate(HOSTILE_NAMES)}
NOTHING = pa.table({"reasons": pa.array([], pa.list_(pa.string()))})


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of each part, its checksum verified."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found, place = [], 8
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        part = png[place + 4 : place + 8 + length]
        assert struct.unpack_from(">I", png, place + 8 + length) == (zlib.crc32(part),)
        found.append((part[:4], part[4:]))
        place += length + 12
    return found


def pixels(png: bytes) -> bytes:
    return zlib.decompress(b"".join(data for kind, data in chunks(png) if kind == b"IDAT"))


@pytest.mark.parametrize(
    "png",
    [
        charts.cost_by_dataset_png(made_up().daily, NAMES),
        charts.unpriced_share_png(made_up().daily),
        charts.rejected_by_reason_png(
            pa.table({"reasons": [["id: not a UUID"], ["x: " + "y" * 99], ["id: not a UUID"]]})
        ),
    ],
    ids=["cost", "unpriced", "rejected"],
)
def test_a_picture_is_a_small_png_of_640_by_240(png: bytes) -> None:
    parts = chunks(png)
    assert parts[0][0] == b"IHDR"
    assert struct.unpack_from(">II", parts[0][1]) == (640, 240)
    assert [kind for kind, _ in parts[-2:]] == [b"IDAT", b"IEND"]
    assert len(pixels(png)) == 240 * (640 * 4 + 1)
    assert 3_000 < len(png) < 40_000


@pytest.mark.parametrize(
    "png",
    [
        charts.cost_by_dataset_png(DAILY.empty_table()),
        charts.cost_by_dataset_png(pa.Table.from_pylist([daily(FIRST, 1, None), daily(None, 1, "5")], DAILY)),
        charts.cost_by_dataset_png(pa.Table.from_pylist([daily(FIRST, 1, "0")], DAILY)),
        charts.unpriced_share_png(DAILY.empty_table()),
        charts.rejected_by_reason_png(NOTHING),
    ],
)
def test_nothing_to_show_is_a_picture_too(png: bytes) -> None:
    assert pixels(png)


def test_equal_data_give_equal_pictures() -> None:
    assert charts.cost_by_dataset_png(made_up().daily) == charts.cost_by_dataset_png(made_up().daily)


def test_more_days_and_higher_costs_are_another_picture() -> None:
    one = pa.Table.from_pylist([daily(FIRST, 1, "5")], DAILY)
    two = pa.Table.from_pylist([daily(FIRST, 1, "5"), daily(FIRST + timedelta(days=1), 1, "9")], DAILY)
    assert charts.cost_by_dataset_png(one) != charts.cost_by_dataset_png(two)


def test_the_markdown_holds_the_picture_and_words_that_cannot_break_out() -> None:
    text = charts.as_markdown(b"png", "cost of [a](b) <script>\n`c` \\")
    words, address = text.split("](data:image/png;base64,")
    assert not set(words[2:]) & set("[]<>`\\\n")
    assert base64.b64decode(address.removesuffix(")")) == b"png"


@pytest.mark.parametrize("largest", [0, 1e-18, 0.003, 0.02, 0.39, 0.4, 3, 4.5, 900, 9_999, 10_000, 1e20])
def test_ticks_of_money_stay_short_and_differ(largest: float) -> None:
    spec = {
        "width": 300,
        "height": 200,
        "data": {"values": [{"value": largest or 1}]},
        "mark": "bar",
        "encoding": {"y": charts.money_axis(largest)},
    }
    svg = charts.render_svg(spec)
    ticks = [part.split("</text>")[0] for part in svg.split(">$")[1:]]
    assert len(set(ticks)) == len(ticks) >= 2


def test_nothing_heavy_is_imported_before_a_picture_is_drawn_and_never_pandas() -> None:
    script = """
import sys
from sessions_pipeline.outputs import charts
from sessions_pipeline.outputs.report import build_report
assert not {"vl_convert", "altair", "pandas", "jinja2"} & sys.modules.keys()
charts.render_svg({"data": {"values": [{"a": 1}]}, "mark": "bar", "encoding": {"x": {"field": "a"}}})
assert not {"altair", "pandas"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
