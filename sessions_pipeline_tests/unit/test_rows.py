"""`Rows` keeps rows in plain and compressed parts, reads them back unchanged, and sorts them like one table."""

import pickle
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_pipeline.tables.rows import Rows

SCHEMA = pa.schema([("key", pa.string()), ("number", pa.int64()), ("text", pa.string())])
TABLES = st.lists(
    st.tuples(st.sampled_from([None, "a", "b", "ä"]), st.integers(0, 3), st.text(max_size=9)), max_size=40
).map(lambda rows: pa.table(list(zip(*rows, strict=True)) or [[]] * 3, SCHEMA))
PLAIN = st.sampled_from([1, 100, 1 << 20])


def in_parts(table: pa.Table, size: int, plain: int) -> Rows:
    return Rows(SCHEMA, (table.slice(first, size) for first in range(0, table.num_rows, size)), plain=plain)


@given(TABLES, st.integers(1, 7), PLAIN)
def test_rows_are_read_back_unchanged(table: pa.Table, size: int, plain: int) -> None:
    rows = in_parts(table, size, plain)
    assert rows.num_rows == table.num_rows
    for one in (rows, pickle.loads(pickle.dumps(rows))):
        assert one.table().equals(table)
        assert one.table("text", "key").equals(table.select(["text", "key"]))
    assert list(rows.tuples("number")) == [(number,) for number in table["number"].to_pylist()]
    assert pa.concat_tables([SCHEMA.empty_table(), *rows.parts(drain=True)]).equals(table)


@given(TABLES, st.integers(1, 7), PLAIN, st.sampled_from([("key",), ("key", "number"), ("number", "key", "text")]))
def test_rows_sort_as_one_table_would(table: pa.Table, size: int, plain: int, order: tuple[str, ...]) -> None:
    parts = in_parts(table, size, plain).in_order(*order)
    expected = table.sort_by([(name, "ascending") for name in order])
    assert pa.concat_tables([SCHEMA.empty_table(), *parts]).equals(expected)


@pytest.mark.parametrize("plain", [1, 1 << 20])
def test_rows_are_combined_with_constant_columns(plain: int) -> None:
    short = pa.schema([SCHEMA.field("key")])
    first = Rows(SCHEMA, [pa.table([["a"], [1], ["x"]], SCHEMA)], plain=plain)
    more = Rows(short, [pa.table([["b"]], short), pa.table([["c", "d"]], short)], plain=plain)
    both = first.joined(more, number=pa.scalar(2), text=pa.scalar("y"))
    expected: list[Any] = [("a", 1, "x"), ("b", 2, "y"), ("c", 2, "y"), ("d", 2, "y")]
    assert list(both.tuples()) == expected
    assert list(first.tuples()) == expected[:1]


def test_compressed_rows_take_a_fraction_of_the_memory() -> None:
    before = pa.total_allocated_bytes()
    rows = Rows(SCHEMA)
    for number in range(80):
        rows.add(pa.table([["key"] * 1000, [number] * 1000, [f"some text {number}" * 60] * 1000], SCHEMA))
    assert rows.nbytes > 48e6
    assert pa.total_allocated_bytes() - before < 20e6
