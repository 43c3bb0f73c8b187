"""Files that other programs changed or broke: the right rows, or one line that names the file; never a traceback."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.store import store_at
from sessions_pipeline.tables import FROM_API, RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, Table
from sessions_pipeline_tests.integration.pipeline_runs import DataRoot, also_in_a_bucket
from sessions_pipeline_tests.lake_rows import DAY, raw, replace_derived, rows

NEXT = DAY.replace(month=2, day=1)
HISTORY = "restore it from a backup: deleting it would lose its history, which the API may no longer have"


OR_DELETE = "restore it from a backup, or delete it and materialize {}: only what the API no longer has is then lost"


def rewrite(lake: Lake, table: Table, change: str) -> None:
    """Change a day's file as a compaction, a failing disk or an editor would."""
    key = f"{table.name}/start_date={DAY}/{table.name}.parquet"
    content = lake.read_file(key)
    if change == "no metadata":
        sink = pa.BufferOutputStream()
        pq.write_table(pq.read_table(pa.BufferReader(content)).replace_schema_metadata(None), sink)
        content = sink.getvalue().to_pybytes()
    elif change == "truncated":
        content = content[:-20]
    elif change == "empty":
        content = b""
    elif change == "text":
        content = b"id,total_cost\n" * 10_000
    lake.write_file(key, content)


def lake_with(data_root: DataRoot, table: Table, change: str) -> Lake:
    lake = Lake.open(str(data_root), query={})
    lake.replace(RAW_SESSIONS, DAY, raw("{}"), {"commit": "3"})
    replace_derived(lake, REJECTED_SESSIONS, rows(REJECTED_SESSIONS, 1, payload=["old"]), {}, commit=3)
    rewrite(lake, table, change)
    return lake


@pytest.mark.parametrize("change", ["no metadata", "truncated", "empty", "text"])
@also_in_a_bucket
def test_a_derived_file_that_another_program_changed_counts_as_outdated_and_is_replaced(
    data_root: DataRoot, change: str
):
    lake = lake_with(data_root, REJECTED_SESSIONS, change)
    made = rows(REJECTED_SESSIONS, 1, payload=["new"])
    assert replace_derived(lake, REJECTED_SESSIONS, made, {}, commit=1) is not None
    assert lake.read(REJECTED_SESSIONS, DAY).equals(made)
    assert lake.metadata(REJECTED_SESSIONS, DAY) == {"commit": "1"}


@also_in_a_bucket
def test_the_rows_of_a_derived_file_that_was_rewritten_are_read_and_its_metadata_is_empty(data_root: DataRoot):
    lake = lake_with(data_root, REJECTED_SESSIONS, "no metadata")
    found = lake.load(REJECTED_SESSIONS, DAY)
    assert found is not None
    assert (found.rows["payload"].to_pylist(), found.metadata) == (["old"], {})
    assert lake.metadata(REJECTED_SESSIONS, DAY) == {}


@pytest.mark.parametrize("change", ["truncated", "empty", "text"])
@pytest.mark.parametrize("table", [RAW_SESSIONS, REJECTED_SESSIONS], ids=lambda table: table.name)
@also_in_a_bucket
def test_a_broken_file_is_named_and_the_advice_never_deletes_a_raw_one(data_root: DataRoot, table: Table, change: str):
    lake = lake_with(data_root, table, change)
    advice = HISTORY if table is RAW_SESSIONS else f"materialize {table.name} again, from stored data"
    for read in (lake.read, lake.load, lake.metadata):
        with pytest.raises(LakeError) as caught:
            read(table, DAY)
        assert str(caught.value).startswith(f"{lake.uri(table, DAY)}: not a readable Parquet file of this table (")
        assert str(caught.value).endswith(f"); {advice}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table", FROM_API[1:], ids=lambda table: table.name)
def test_the_advice_about_a_broken_file_says_what_deleting_it_costs(tmp_path: Path, table: Table):
    lake = Lake.open(str(tmp_path), query={})
    file = Path(lake.replace(table, DAY, table.schema.empty_table(), {}).uri)
    file.write_bytes(b"broken")
    with pytest.raises(LakeError) as caught:
        lake.load(table, DAY)
    assert str(caught.value).endswith(f"; {OR_DELETE.format(table.name)}")


@also_in_a_bucket
def test_a_raw_file_without_our_metadata_is_one_line_that_names_it_and_stays(data_root: DataRoot):
    lake = lake_with(data_root, RAW_SESSIONS, "no metadata")
    for read in (lake.read, lake.load, lake.metadata):
        with pytest.raises(LakeError) as caught:
            read(RAW_SESSIONS, DAY)
        assert str(caught.value) == (
            f"{lake.uri(RAW_SESSIONS, DAY)}: another program wrote it, without the metadata that says what was read "
            f"when; {HISTORY}"
        )
    lake.replace(RAW_SESSIONS, NEXT, raw("{}"), {})
    assert lake.days(RAW_SESSIONS) == [DAY, NEXT]
    assert lake.read(RAW_SESSIONS, NEXT).num_rows == 1


def test_a_table_s_columns_that_are_missing_or_of_another_type_are_one_line(tmp_path: Path):
    lake = lake_with(tmp_path, REJECTED_SESSIONS, "none")
    path = Path(lake.uri(REJECTED_SESSIONS, DAY))
    whole = pq.ParquetFile(path).read()
    for other in (whole.drop_columns(["payload"]), whole.set_column(0, "session_id", pa.array([[1]]))):
        pq.write_table(other, path)
        with pytest.raises(LakeError, match=r"rejected_sessions\.parquet: not a readable Parquet file of this table"):
            lake.read(REJECTED_SESSIONS, DAY)


def days_of_two(root: Path) -> Lake:
    lake = Lake.open(str(root), query={})
    for day in (DAY, NEXT):
        lake.replace(SESSIONS, day, rows(SESSIONS, 1, id=[str(day)]), {})
    return lake


def test_a_partition_folder_that_is_a_link_is_followed(tmp_path: Path):
    lake = days_of_two(tmp_path / "lake")
    folder = tmp_path / "lake" / "sessions" / f"start_date={DAY}"
    folder.rename(tmp_path / "cold")
    folder.symlink_to(tmp_path / "cold")
    assert lake.days(SESSIONS) == [DAY, NEXT]
    assert lake.read_days(SESSIONS, lake.days(SESSIONS), ["id"])["id"].to_pylist() == [str(DAY), str(NEXT)]
    lake.replace(SESSIONS, DAY, rows(SESSIONS, 2), {})
    assert lake.read(SESSIONS, DAY).num_rows == 2
    assert folder.is_symlink()


def test_a_broken_link_is_an_error_that_names_it_and_not_a_missing_day(tmp_path: Path):
    lake = days_of_two(tmp_path)
    folder = tmp_path / "sessions" / f"start_date={DAY}"
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "unmounted")
    with pytest.raises(LakeError, match=rf"^{folder}: a broken symbolic link; mount its target, or remove the link"):
        lake.days(SESSIONS)


def test_a_circular_link_is_not_a_day(tmp_path: Path):
    lake = days_of_two(tmp_path)
    (tmp_path / "sessions" / "self").symlink_to(tmp_path / "sessions")
    assert lake.days(SESSIONS) == [DAY, NEXT]


@pytest.mark.parametrize("value", ["20250131", "2025-W05-5", "2025-1-31", "2025-01-31 (conflicted copy)"])
@also_in_a_bucket
def test_a_day_in_a_second_spelling_is_not_counted_twice(data_root: DataRoot, value: str):
    lake = Lake.open(str(data_root), query={})
    lake.replace(SESSIONS, DAY, rows(SESSIONS, 1), {})
    content = lake.read_file(f"sessions/start_date={DAY}/sessions.parquet")
    lake.write_file(f"sessions/start_date={value}/sessions.parquet", content)
    lake.write_file(f"sessions/start_date={DAY}/sessions (conflicted copy).parquet", content)
    assert lake.versions_of_days(SESSIONS) == {DAY: lake.versions(SESSIONS, [DAY])[DAY]}
    assert lake.read_days(SESSIONS, lake.days(SESSIONS)).num_rows == 1


def test_strange_things_among_the_temporary_files_neither_fail_nor_hang_a_write(tmp_path: Path):
    (tmp_path / "_tmp" / "@eaDir").mkdir(parents=True)
    os.mkfifo(tmp_path / "_tmp" / "x.fifo")
    lake = Lake.open(str(tmp_path), query={})
    lake.write_file("reports/a", b"1")
    # The name that the next temporary file would have.
    os.mkfifo(tmp_path / "_tmp" / "reports%2Fa")
    lake.write_file("reports/a", b"2")
    assert lake.read_file("reports/a") == b"2"
    assert sorted(path.name for path in (tmp_path / "_tmp").iterdir()) == ["@eaDir", "x.fifo"]


def test_a_folder_where_a_file_should_be_is_one_line(tmp_path: Path):
    (tmp_path / "sessions" / f"start_date={DAY}" / "sessions.parquet").mkdir(parents=True)
    lake = Lake.open(str(tmp_path), query={})
    for act in (lambda: lake.read(SESSIONS, DAY), lambda: lake.replace(SESSIONS, DAY, rows(SESSIONS, 1), {})):
        with pytest.raises(LakeError, match=r"sessions\.parquet: .*SESSIONS_PIPELINE_DATA_ROOT") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert store_at(str(tmp_path)).listing("sessions") != {}


def test_a_pipe_where_a_file_should_be_is_one_line_and_does_not_block(tmp_path: Path):
    lake = days_of_two(tmp_path)
    for key in (f"sessions/start_date={DAY}/sessions.parquet", "reports/a"):
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).unlink(missing_ok=True)
        os.mkfifo(tmp_path / key)
    acts = (lambda: lake.read(SESSIONS, DAY), lambda: lake.days(SESSIONS), lambda: lake.read_file("reports/a"))
    for act in acts:
        with pytest.raises(LakeError, match="a pipe or a device is where a file should be"):
            act()
