"""Promises about the bytes of one day: schema, order, settings, metadata."""

import random
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake import parquet
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSIONS,
    TABLES,
    Table,
)

READ_AT = datetime(2025, 1, 31, 12, tzinfo=UTC)


def raw(*payloads: str, session_ids: list[str | None] | None = None) -> pa.Table:
    count = len(payloads)
    return pa.table(
        {
            "session_id": session_ids or [f"id-{i}" for i in range(count)],
            "tenant_id": ["t"] * count,
            "start_time": [None] * count,
            "payload": list(payloads),
            "fetched_at": [READ_AT] * count,
        },
        RAW_SESSIONS.schema,
    )


def decoded(table: Table, content: pa.Buffer, columns: list[str] | None = None) -> pa.Table:
    return parquet.decode(table, pa.BufferReader(content), columns, "somewhere.parquet")


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
    rows = rows.set_column(1, "tenant_id", pa.array(["3", "1", "2"]))
    content = parquet.encode(RAW_SESSIONS, rows, {})
    assert decoded(RAW_SESSIONS, content)["tenant_id"].to_pylist() == ["3", "1", "2"]


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


def test_metadata_comes_back_and_nothing_else_does():
    metadata = {"readings": '[{"fetched_at": "2025-01-31T12:00:00Z"}]', "größe": "½"}
    content = parquet.encode(RAW_SESSIONS, raw("{}"), metadata)
    assert parquet.decode_metadata(pa.BufferReader(content), "x") == metadata
    assert parquet.decode_metadata(pa.BufferReader(parquet.encode(RAW_SESSIONS, raw("{}"), {})), "x") == {}


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (raw("{}").drop_columns(["payload"]), "payload"),
        (raw("{}").append_column("surprise", pa.array([1])), "surprise"),
        (raw("{}").append_column("payload", pa.array(["again"])), "columns differ"),
        (raw("{}").set_column(3, "payload", pa.array([1])), "int64 is not string"),
        (raw("{}").set_column(3, "payload", pa.array([None], pa.string())), "1 nulls"),
        (raw("{}").set_column(4, "fetched_at", pa.array([datetime(2025, 1, 1)])), "timestamp"),  # noqa: DTZ001
    ],
)
def test_a_wrong_schema_is_a_fault_of_the_program(rows, problem):
    with pytest.raises((TypeError, ValueError), match=problem):
        parquet.encode(RAW_SESSIONS, rows, {})


def test_money_is_never_made_from_floats():
    rows = SESSIONS.schema.empty_table().set_column(22, "total_cost", pa.array([], pa.float64()))
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


def test_every_text_and_list_type_of_arrow_is_taken():
    rows = raw("{}")
    for kind in (pa.large_string(), pa.string_view()):
        assert parquet.encode(RAW_SESSIONS, rows.set_column(3, "payload", rows["payload"].cast(kind)), {}).equals(
            parquet.encode(RAW_SESSIONS, rows, {})
        )


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
    assert {column.path_in_schema for column in columns if not column.is_stats_set} == {"payload"}
    assert {column.path_in_schema for column in columns if column.has_dictionary_page} == {"tenant_id"}
    assert footer.row_group(0).sorting_columns == tuple(
        pq.SortingColumn(RAW_SESSIONS.schema.get_field_index(name)) for name in RAW_SESSIONS.order
    )


def test_nested_columns_have_dictionaries_where_values_repeat():
    rows = REJECTED_SESSIONS.schema.empty_table()
    assert parquet._options(REJECTED_SESSIONS.name, rows.schema, REJECTED_SESSIONS.order)["use_dictionary"] == [
        "tenant_id",
        "reasons.list.element",
    ]
    nested = parquet._options(EXPERIMENT_SUMMARY.name, EXPERIMENT_SUMMARY.schema, EXPERIMENT_SUMMARY.order)
    assert "scores.list.element.feedback_key" in nested["use_dictionary"]
    paths = pq.ParquetFile(
        pa.BufferReader(parquet.encode(EXPERIMENT_SUMMARY, EXPERIMENT_SUMMARY.schema.empty_table(), {}))
    )
    known = {paths.schema.column(i).path for i in range(len(paths.schema))}
    assert set(nested["use_dictionary"]) | set(nested["write_statistics"]) <= known


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_file_is_named(kept):
    content = parquet.encode(RAW_SESSIONS, raw("{}"), {}).to_pybytes()
    with pytest.raises(LakeError, match=r"^somewhere.parquet: not a readable Parquet file.*materialize its day$"):
        decoded(RAW_SESSIONS, pa.py_buffer(content[:kept]))
    with pytest.raises(LakeError, match=r"^x: "):
        parquet.decode_metadata(pa.BufferReader(content[:kept]), "x")


def test_a_flipped_bit_in_a_payload_is_found():
    content = bytearray(parquet.encode(RAW_SESSIONS, raw(random.Random(1).randbytes(2000).hex()), {}).to_pybytes())
    chunk = pq.read_metadata(pa.BufferReader(content)).row_group(0).column(3)
    end = chunk.data_page_offset + chunk.total_compressed_size
    for offset in range(end - 500, end, 50):
        content[offset] ^= 1
        with pytest.raises(LakeError):
            decoded(RAW_SESSIONS, pa.py_buffer(bytes(content)))
        content[offset] ^= 1
    assert decoded(RAW_SESSIONS, pa.py_buffer(bytes(content))).num_rows == 1


def test_a_file_of_another_table_is_not_taken_for_this_one():
    content = parquet.encode(RAW_SESSIONS, raw("{}"), {})
    with pytest.raises(LakeError, match="not a readable Parquet file of this table"):
        decoded(SESSIONS, content)
