"""`sessions_pipeline.read` returns any table by name, with days and dataset names, and exact costs in pandas."""

import json
import shutil
import subprocess
import sys
from datetime import date, timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import cast

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import sessions_pipeline
from sessions_pipeline.errors import LakeError, NotReadError, UsageError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.lake.s3 import S3Store
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    JUDGE_COST_BY_EXPERIMENT,
    REFERENCE_DATASETS,
    SESSIONS,
    TABLES,
    Table,
)
from sessions_pipeline_tests.builders import NOON, OTHER_TENANT, TENANT, dataset, table_of, uuid
from sessions_pipeline_tests.integration.pipeline_runs import Bucket
from sessions_pipeline_tests.integration.s3_server import S3Server
from sessions_pipeline_tests.integration.test_reading import DAYS, FIRST, fill

COST = Decimal("12345678901234567890.123456789012345678")
NOT_THERE = ("daily_cost_by_project", "judge_cost_by_experiment")
JOINED = ("dataset", "judge_cost", "whole_cost")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("read")
    fill(root)
    return root


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SESSIONS_PIPELINE_DATA_ROOT", raising=False)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("table", [one for one in TABLES if one.name not in NOT_THERE], ids=lambda table: table.name)
def test_every_table_is_read_with_its_columns_its_day_and_names(root: Path, table: Table) -> None:
    found = sessions_pipeline.read(table.name, root=root)
    names = found.schema.names
    partition = [] if table.partition_column is None else [table.partition_column]
    assert [name for name in names if name not in JOINED] == [*table.schema.names, *partition]
    assert ("dataset" in names) is ("reference_dataset_id" in names)
    assert found.select(table.schema.names).schema.equals(table.schema)


def test_both_days_are_included_and_may_be_dates_or_texts(root: Path) -> None:
    ways = [(FIRST, DAYS[2]), (str(FIRST), str(DAYS[2])), (pd.Timestamp(NOON), NOON + timedelta(days=2))]
    for start, end in ways:
        found = sessions_pipeline.read("sessions", start, end, root=root)
        assert sorted(set(found.column("start_date").to_pylist())) == DAYS[:3]
    week = sessions_pipeline.read("weekly_cost_by_reference_dataset", "2025-03-10", "2025-03-10", root=root)
    assert week.column("week_start").unique().to_pylist() == [date(2025, 3, 10)]


def test_days_within_a_week_select_none_and_a_warning_says_so(root: Path) -> None:
    with pytest.warns(UserWarning, match="no row here: weeks and months are selected by their first day") as said:
        found = sessions_pipeline.read("weekly_cost_by_reference_dataset", "2025-03-11", "2025-03-16", root=root)
    assert (found.num_rows, said[0].filename) == (0, __file__)


@pytest.mark.filterwarnings("ignore:sessions has nothing")
def test_rows_without_a_day_are_returned_only_if_requested(root: Path) -> None:
    with pytest.warns(UserWarning, match="^sessions has 1 row without a day, in no total; undated=True adds"):
        known = sessions_pipeline.read("sessions", root=root)
    assert None not in known.column("start_date").to_pylist()
    assert None not in sessions_pipeline.read("sessions", FIRST, root=root).column("start_date").to_pylist()
    every = sessions_pipeline.read("sessions", root=root, undated=True)
    assert (every.num_rows - known.num_rows, every.column("start_date").null_count) == (1, 1)
    since = sessions_pipeline.read("sessions", FIRST, root=root, undated=True)
    assert since.column("start_date").null_count == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_costs_by_day_add_up_to_those_by_week(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    lake = Lake.open(str(tmp_path), query={})
    of_a_day = lake.read(DAILY_COST_BY_REFERENCE_DATASET, FIRST)
    lake.replace(DAILY_COST_BY_REFERENCE_DATASET, UNDATED, of_a_day, {})

    def cost(period: str, **options: bool) -> Decimal:
        found = sessions_pipeline.read(f"{period}_cost_by_reference_dataset", root=tmp_path, **options)
        return cast("Decimal", pc.sum(found["total_cost"]).as_py())

    assert cost("daily") == cost("weekly") == cost("monthly")
    assert cost("daily", undated=True) == cost("daily") + pc.sum(of_a_day["total_cost"]).as_py()


@pytest.mark.parametrize(
    ("start", "end", "unread"),
    [
        (DAYS[11], DAYS[-1], "16 Mar 2025"),
        (None, date(2025, 3, 19), "16 Mar 2025, 18 Mar \N{EN DASH} 19 Mar 2025"),
        (date(2025, 5, 1), None, "1 May 2025"),
    ],
)
def test_days_that_were_never_read_are_a_warning(root: Path, start: date, end: date, unread: str) -> None:
    with pytest.warns(UserWarning, match=f"^sessions has nothing for {unread}: never read, so missing") as warned:
        sessions_pipeline.read("sessions", start, end, root=root)
    assert warned[0].filename == __file__


def test_costs_stay_exact_and_unknown_in_pandas(tmp_path: Path) -> None:
    base = {"tenant_id": TENANT, "session_count": 1, "is_day_over": True}
    counts = {"priced_session_count": 1, "unpriced_session_count": 0, "zero_cost_with_tokens_count": 0}
    rows = [
        base | counts | {"reference_dataset_id": dataset(number), "total_cost": cost}
        for number, cost in ((1, COST), (2, None))
    ]
    table = table_of("daily_cost_by_reference_dataset", rows)
    Lake.open(str(tmp_path), query={"name": "x"}).replace(DAILY_COST_BY_REFERENCE_DATASET, FIRST, table, {})
    frame = sessions_pipeline.read("daily_cost_by_reference_dataset", root=tmp_path).to_pandas()
    assert frame["total_cost"].tolist() == [COST, None]
    assert frame["start_date"].tolist() == [FIRST, FIRST]
    every = sessions_pipeline.read("daily_cost_by_reference_dataset", root=tmp_path, undated=True)
    assert every.num_rows == 2, "no row is without a day"


def test_a_dataset_has_its_current_name_else_that_in_experiments_else_its_id(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    given = [
        {"id": one, "tenant_id": tenant, "name": "golden", "read_at": NOON}
        for one, tenant in ((dataset(1), TENANT), (dataset(3), OTHER_TENANT))
    ]
    Lake.open(str(tmp_path), query={}).replace(REFERENCE_DATASETS, None, table_of("reference_datasets", given), {})
    found = sessions_pipeline.read("experiment_summary", FIRST, FIRST, root=tmp_path).to_pylist()
    assert {row["reference_dataset_id"]: row["dataset"] for row in found} == {
        dataset(1): "golden",
        dataset(2): dataset(2),
    }
    projects = sessions_pipeline.read("sessions", FIRST, FIRST, root=tmp_path).to_pylist()
    assert [row["dataset"] for row in projects if row["reference_dataset_id"] is None] == [None]


def test_weeks_have_the_names_that_experiments_give_their_datasets(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    lake = Lake.open(str(tmp_path), query={})
    lake.replace(REFERENCE_DATASETS, None, table_of("reference_datasets", []), {})
    for day, name in ((FIRST, "golden"), (FIRST + timedelta(days=1), " ")):
        extra = json.dumps({"metadata": {"dataset_name": name}})
        labelled = [{**row, "extra": extra} for row in lake.read(SESSIONS, FIRST).to_pylist()]
        lake.replace(SESSIONS, day, table_of("sessions", labelled), {})
    weeks = sessions_pipeline.read("weekly_cost_by_reference_dataset", root=tmp_path).to_pylist()
    assert {row["dataset"].partition(" ")[0] for row in weeks if row["tenant_id"] == TENANT} == {"golden"}


def test_weeks_that_are_not_the_sums_of_their_days_are_a_warning_where_they_are_read(
    root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    lake = Lake.open(str(tmp_path), query={})
    rows = lake.read(DAILY_COST_BY_REFERENCE_DATASET, FIRST)
    lake.replace(DAILY_COST_BY_REFERENCE_DATASET, FIRST, rows.slice(1), {})
    says = "^weekly_cost_by_reference_dataset is not the sum of its days: week of 2025-03-03; materialize it again"
    with pytest.warns(UserWarning, match=says):
        sessions_pipeline.read("weekly_cost_by_reference_dataset", root=tmp_path)
    assert sessions_pipeline.read("reference_datasets", root=tmp_path).num_rows == 2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_datasets_without_a_name_do_not_cost_a_listing_for_each_day(bucket: str, server: S3Server) -> None:
    fill(cast("Path", Bucket(bucket)))
    S3Store(bucket).delete("reference_datasets/reference_datasets.parquet")
    server.fail()
    assert sessions_pipeline.read("weekly_cost_by_reference_dataset", root=bucket).num_rows
    assert len([line for line in server.requests if line.endswith("/sessions.parquet")]) == len(DAYS)
    assert len([line for line in server.requests if line == "GET /bucket"]) < len(DAYS)


def test_an_experiment_has_its_own_cost_judge_cost_and_whole_cost(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    judged = {"tenant_id": TENANT, "reference_dataset_id": dataset(1), "stats_as_of": NOON, "read_at": NOON}
    rows = [{**judged, "id": uuid(11), "total_cost": COST}, {**judged, "id": uuid(12), "total_cost": None}]
    table = table_of("judge_cost_by_experiment", rows)
    Lake.open(str(tmp_path), query={}).replace(JUDGE_COST_BY_EXPERIMENT, DAYS[1], table, {})
    found = sessions_pipeline.read("experiment_summary", FIRST, DAYS[1], root=tmp_path).to_pandas()
    costs = found.set_index("id")[["total_cost", "judge_cost", "whole_cost"]]
    assert costs.loc[uuid(11)].tolist() == [Decimal("0.2"), COST, Decimal("12345678901234567890.323456789012345678")]
    assert costs.loc[uuid(12)].tolist() == [Decimal("0.375"), None, None]
    assert costs.loc[uuid(1)].tolist() == [Decimal("0.175"), None, None]
    # One whose start time has changed stands on two days, each time with what it cost by then.
    lake = Lake.open(str(tmp_path), query={})
    lake.replace(EXPERIMENT_SUMMARY, FIRST, lake.read(EXPERIMENT_SUMMARY, DAYS[1]), {})
    moved = lake.read(EXPERIMENT_SUMMARY, DAYS[1]).to_pylist()
    dearer = pa.Table.from_pylist([{**row, "total_cost": Decimal(7)} for row in moved], EXPERIMENT_SUMMARY.schema)
    lake.replace(EXPERIMENT_SUMMARY, DAYS[1], dearer, {})
    found = sessions_pipeline.read("experiment_summary", FIRST, DAYS[1], root=tmp_path).to_pylist()
    costs = ("total_cost", "judge_cost")
    assert [tuple(row[name] for name in costs) for row in found if row["id"] == uuid(11)] == [
        (Decimal("0.2"), None),
        (Decimal(7), COST),
    ]
    # Its judges may stand on both days, too.
    later = [{**row, "total_cost": Decimal(9), "read_at": NOON + timedelta(days=1)} for row in rows[:1]]
    lake.replace(JUDGE_COST_BY_EXPERIMENT, FIRST, table_of("judge_cost_by_experiment", later), {})
    with duckdb.connect() as connection:
        connection.execute(f"SET VARIABLE data_root = '{tmp_path}'")
        connection.execute(files("sessions_pipeline.outputs").joinpath("lake.sql").read_text())
        found = connection.sql(
            f"SELECT judge_cost FROM experiment_costs WHERE id = '{uuid(11)}' ORDER BY ALL"
        ).fetchall()
    assert found == [(9,), (COST,)]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("daily_cost_by_dataset",), UsageError, "daily_cost_by_dataset is not a table; did you mean daily_cost_by_"),
        (("zzz",), UsageError, "zzz is not a table; there are raw_sessions, sessions, "),
        (("sessions", "2025-02-30"), UsageError, "start: 2025-02-30 is not a day such as 2026-01-31"),
        (("sessions", "2025-03-04", "2025-03-03"), UsageError, "start 2025-03-04 is after end 2025-03-03; swap them"),
        (("reference_datasets", "2025-03-04"), UsageError, "reference_datasets has no days; leave out start and end"),
        (("daily_cost_by_project",), NotReadError, "daily_cost_by_project was never made; materialize it first"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    root: Path, arguments: tuple[str, ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as raised:
        sessions_pipeline.read(*arguments, root=root)
    assert str(raised.value).startswith(says)


def test_read_uses_the_lake_of_the_settings_and_a_missing_one_is_one_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(NotReadError, match=f"^{tmp_path}/data: there is no data here; "):
        sessions_pipeline.read("sessions")
    (tmp_path / ".env").write_text(f"SESSIONS_PIPELINE_DATA_ROOT={root}\n")
    assert sessions_pipeline.read("reference_datasets").num_rows == 2
    assert list(tmp_path.iterdir()) == [tmp_path / ".env"]


def test_a_lake_opened_for_any_query_is_never_written(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path), query=None)
    assert not lake.is_there
    with pytest.raises(LakeError, match="opened for reading only"):
        lake.check_writable()
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"dagster", "pandas", "pyarrow", "pydantic"}
    script = f"import sys, sessions_pipeline; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
