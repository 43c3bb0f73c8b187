"""The Parquet file of one day: schema, order of rows, settings and metadata."""

import random
from datetime import date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sessions_pipeline.lake import parquet
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    RAW_SESSIONS,
    SESSIONS,
    TABLES,
    Table,
)
from sessions_pipeline_tests.lake_rows import raw


def decoded(table: Table, content: pa.Buffer, columns: list[str] | None = None) -> pa.Table:
    return parquet.decode(table, pa.BufferReader(content), columns)[0].table()


def metadata_of(table: Table, content: pa.Buffer) -> dict[str, str] | None:
    return parquet.decode(table, pa.BufferReader(content), ())[1]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_comes_back_with_its_schema_nullability_and_descriptions(table):
    content = parquet.encode(table, table.schema.empty_table(), {"readings": "[]"})
    assert decoded(table, content).schema.equals(table.schema, check_metadata=True)
    for stored, field in zip(pq.read_schema(pa.BufferReader(content)), table.schema, strict=True):
        assert (stored.name, stored.nullable, stored.metadata) == (field.name, field.nullable, field.metadata)
        assert stored.type == field.type


def test_the_order_of_the_columns_given_does_not_matter():
    rows = raw("{}", "[]")
    shuffled = rows.select(list(reversed(rows.schema.names)))
    assert parquet.encode(RAW_SESSIONS, shuffled, {}).equals(parquet.encode(RAW_SESSIONS, rows, {}))


def test_rows_are_sorted_with_nulls_last():
    rows = raw("1", "2", "3", "4", session_ids=[None, "b", "c", "a"])
    content = parquet.encode(RAW_SESSIONS, rows, {})
    assert decoded(RAW_SESSIONS, content)["session_id"].to_pylist() == ["a", "b", "c", None]


def test_rows_that_are_equal_in_the_order_keep_their_places():
    rows = raw("same", "same", "same", session_ids=["s"] * 3)
    rows = rows.set_column(rows.schema.get_field_index("tenant_id"), "tenant_id", pa.array(["3", "1", "2"]))
    content = parquet.encode(RAW_SESSIONS, rows, {})
    assert decoded(RAW_SESSIONS, content)["tenant_id"].to_pylist() == ["3", "1", "2"]


def test_the_small_arrays_of_many_days_become_few_large_ones():
    days = [date(2025, 1, 1) + timedelta(days=number) for number in range(3 * parquet.DAYS_AT_ONCE)]
    rows = parquet.joined(RAW_SESSIONS, ((day, raw("{}")) for day in days), None)
    assert rows["start_date"].to_pylist() == days
    assert rows["payload"].num_chunks <= 4


def test_equal_rows_give_equal_bytes_however_they_are_chunked():
    whole = raw(*[f'{{"n": {i}}}' for i in range(5000)])
    chunked = pa.concat_tables([whole.slice(start, 7) for start in range(0, 5000, 7)])
    assert chunked["payload"].num_chunks > 1
    metadata = {"readings": "[]", "a": "b"}
    assert parquet.encode(RAW_SESSIONS, whole, metadata).equals(parquet.encode(RAW_SESSIONS, chunked, metadata))


def test_sorted_and_unsorted_rows_give_equal_bytes():
    whole = raw(*[f'{{"n": {i}}}' for i in range(500)], session_ids=[f"{i:04}" for i in range(500)])
    backwards = whole.take(list(reversed(range(500))))
    assert parquet.encode(RAW_SESSIONS, backwards, {}).equals(parquet.encode(RAW_SESSIONS, whole, {}))


def test_only_the_given_metadata_is_read_back():
    metadata = {"readings": '[{"fetched_at": "2025-01-31T12:00:00Z"}]', "größe": "½"}
    content = parquet.encode(RAW_SESSIONS, raw("{}"), metadata)
    assert metadata_of(RAW_SESSIONS, content) == metadata
    assert metadata_of(RAW_SESSIONS, parquet.encode(RAW_SESSIONS, raw("{}"), {})) == {}


def test_metadata_stands_once_in_a_file():
    text = random.Random(1).randbytes(100_000).hex()
    assert parquet.encode(RAW_SESSIONS, raw("{}"), {"readings": text}).size < len(text) + 10_000


def test_the_end_of_a_file_is_enough_for_its_metadata():
    content = parquet.encode(RAW_SESSIONS, raw(random.Random(1).randbytes(200_000).hex()), {"a": "b"})
    rows, metadata = parquet.decode(RAW_SESSIONS, pa.BufferReader(content.slice(content.size - 64 * 1024)), ())
    assert metadata == {"a": "b"}
    assert rows.schema.names == []


def test_a_file_that_another_program_rewrote_has_none_of_our_metadata():
    content = parquet.encode(RAW_SESSIONS, raw("{}"), {"readings": "[]"})
    for metadata in (None, {"pandas": "{}", "sessions_pipeline.table": "sessions"}):
        sink = pa.BufferOutputStream()
        pq.write_table(pq.read_table(pa.BufferReader(content)).replace_schema_metadata(metadata), sink)
        assert metadata_of(RAW_SESSIONS, sink.getvalue()) is None
        assert decoded(RAW_SESSIONS, sink.getvalue()).equals(raw("{}"))


def changed(name: str, values: pa.Array) -> pa.Table:
    rows = raw("{}")
    return rows.set_column(rows.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (raw("{}").drop_columns(["payload"]), "payload"),
        (raw("{}").append_column("payload", pa.array(["again"])), "payload"),
        (changed("payload", pa.array([1])), "int64 is not string"),
        (changed("payload", pa.array([None], pa.string())), "contains nulls"),
        (changed("fetched_at", pa.array([datetime(2025, 1, 1)])), "timestamp"),  # noqa: DTZ001
    ],
)
def test_a_wrong_schema_is_a_programming_error(rows, problem):
    with pytest.raises((KeyError, TypeError, ValueError), match=problem):
        parquet.encode(RAW_SESSIONS, rows, {})


def test_floats_are_refused_as_money():
    place = SESSIONS.schema.get_field_index("total_cost")
    rows = SESSIONS.schema.empty_table().set_column(place, "total_cost", pa.array([], pa.float64()))
    with pytest.raises(TypeError, match=r"total_cost: double is not decimal128\(38, 18\)"):
        parquet.encode(SESSIONS, rows, {})


def test_money_keeps_all_its_digits():
    cost = Decimal("12345678901234567890.123456789012345678")
    rows = pa.table(
        {
            field.name: pa.array([cost if field.name == "total_cost" else None if field.nullable else 1]).cast(
                field.type
            )
            if field.type != pa.string()
            else pa.array(["t"])
            for field in DAILY_COST_BY_REFERENCE_DATASET.schema
        }
    )
    content = parquet.encode(DAILY_COST_BY_REFERENCE_DATASET, rows, {})
    assert decoded(DAILY_COST_BY_REFERENCE_DATASET, content)["total_cost"].to_pylist() == [cost]


def test_columns_come_back_in_the_order_they_are_asked_for():
    content = parquet.encode(RAW_SESSIONS, raw("{}"), {})
    assert decoded(RAW_SESSIONS, content, ["payload", "session_id"]).schema.names == ["payload", "session_id"]
    with pytest.raises(KeyError):
        decoded(RAW_SESSIONS, content, ["no_such_column"])


def test_files_are_zstd_in_row_groups_that_a_query_can_skip():
    count = parquet.ROWS_PER_GROUP + 1
    rows = raw(*["{}"] * count, session_ids=[f"{i:08}" for i in range(count)])
    footer = pq.read_metadata(pa.BufferReader(parquet.encode(RAW_SESSIONS, rows, {})))
    assert footer.num_row_groups == 2
    columns = [footer.row_group(1).column(i) for i in range(footer.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    assert footer.row_group(1).column(0).statistics.min == f"{count - 1:08}"
    assert footer.row_group(0).sorting_columns == tuple(
        pq.SortingColumn(RAW_SESSIONS.schema.get_field_index(name)) for name in RAW_SESSIONS.order
    )


def groups(content: pa.Buffer) -> list[int]:
    footer = pq.read_metadata(pa.BufferReader(content))
    return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]


@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_row_group_ends_before_it_has_more_than_16_megabytes(is_sorted):
    one, ids = "x" * (6 * 1024 * 1024), ["a", "b", "c", "d", "e", "f"]
    parts = [raw(one, session_ids=[id_]) for id_ in ids]
    content = parquet.encode(RAW_SESSIONS, pa.concat_tables(parts if is_sorted else reversed(parts)), {})
    assert max(groups(content)) == 2
    assert decoded(RAW_SESSIONS, content)["session_id"].to_pylist() == ids


@pytest.mark.long
def test_a_day_may_have_more_text_than_fits_into_one_piece_of_arrow():
    count, text = 2_300, "x" * (1024 * 1024)
    ids = [f"{number:06}" for number in range(count)]
    parts = [raw(*[text] * 100, session_ids=ids[start : start + 100]) for start in range(0, count, 100)]
    for given_rows in (pa.concat_tables(parts), pa.concat_tables(reversed(parts))):
        content = parquet.encode(RAW_SESSIONS, given_rows, {})
        assert max(groups(content)) <= 256
        rows = decoded(RAW_SESSIONS, content, ["session_id", "payload"])
        assert rows["session_id"].to_pylist() == ids
        assert pc.sum(pc.binary_length(rows["payload"]).cast(pa.int64())).as_py() == count * len(text)


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_file_is_unreadable(kept):
    content = parquet.encode(RAW_SESSIONS, raw("{}"), {}).to_pybytes()
    for columns in (None, ()):
        with pytest.raises(parquet.UnreadableError) as caught:
            parquet.decode(RAW_SESSIONS, pa.BufferReader(content[:kept]), columns)
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_payload_is_detected():
    content = bytearray(parquet.encode(RAW_SESSIONS, raw(random.Random(1).randbytes(2000).hex()), {}).to_pybytes())
    chunk = (
        pq.read_metadata(pa.BufferReader(content)).row_group(0).column(RAW_SESSIONS.schema.get_field_index("payload"))
    )
    end = chunk.data_page_offset + chunk.total_compressed_size
    for offset in range(end - 500, end, 50):
        content[offset] ^= 1
        with pytest.raises(parquet.UnreadableError):
            decoded(RAW_SESSIONS, pa.py_buffer(bytes(content)))
        content[offset] ^= 1
    assert decoded(RAW_SESSIONS, pa.py_buffer(bytes(content))).num_rows == 1


def test_a_file_of_another_table_is_refused():
    content = parquet.encode(RAW_SESSIONS, raw("{}"), {})
    with pytest.raises(parquet.UnreadableError):
        decoded(SESSIONS, content)
