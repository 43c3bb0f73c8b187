"""The names of datasets in whole runs over HTTP: which requests are sent and when, and the effect of refusals."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sessions_pipeline.dataset_names import refresh_names
from sessions_pipeline.errors import BrokenError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.outputs.report import write_report
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE, Dataset
from sessions_pipeline.sandbox.listing import CompanyData
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, REFERENCE_DATASETS
from sessions_pipeline_tests import lake_rows
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    FIRST,
    NOW,
    TODAY,
    DataRoot,
    lake_at,
    read,
    run_days,
    settings_for,
)

BOTH = {"LANGSMITH_WORKSPACE_ID": f"{WORKSPACE},{OTHER_WORKSPACE}"}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(now=NOW, is_drawn=True) as running:
        yield running


def company(sandbox: Sandbox) -> CompanyData:
    assert isinstance(sandbox.api.data, CompanyData)
    return sandbox.api.data


def datasets(sandbox: Sandbox, workspace: str = WORKSPACE) -> list[Dataset]:
    return [one for one in company(sandbox).datasets if one.tenant_id == workspace]


def refresh(
    sandbox: Sandbox, root: DataRoot, at: datetime = NOW, days: tuple[date, date] | None = (FIRST, TODAY), **values: Any
) -> list[str]:
    """One run of the asset alone. Returns its warnings."""
    said: list[str] = []
    refresh_names(Pipeline(settings_for(sandbox.url, root, **values), clock=lambda: at), days, said.append)
    return said


def test_a_broken_file_of_names_is_healed_by_deleting_it(sandbox: Sandbox, tmp_path: Path) -> None:
    refresh(sandbox, tmp_path)
    named, file = rows(tmp_path), Path(lake_at(tmp_path).uri(REFERENCE_DATASETS, None))
    file.write_bytes(b"broken")
    with pytest.raises(BrokenError, match="or delete it and materialize reference_datasets:"):
        refresh(sandbox, tmp_path)
    file.unlink()
    assert (refresh(sandbox, tmp_path), rows(tmp_path)) == ([], named)


def rows(root: DataRoot) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in lake_at(root).read(REFERENCE_DATASETS, None).to_pylist()}


def asked(sandbox: Sandbox) -> list[list[str]]:
    """The ids in each request for datasets since the last call of this function."""
    found = [one["parameters"] for one in sandbox.requests if one["path"] == "/api/v1/datasets"]
    sandbox.requests.clear()
    return [[value for name, value in pairs if name == "id"] for pairs in found]


def test_a_run_stores_every_datasets_name_and_the_report_shows_them(
    sandbox: Sandbox, data_root: DataRoot, tmp_path: Path
) -> None:
    read(sandbox, data_root, clock=lambda: NOW)
    known = rows(data_root)
    assert {key: row["name"] for key, row in known.items()} == {one.id: one.name for one in datasets(sandbox)}
    assert {row["tenant_id"] for row in known.values()} == {WORKSPACE}
    assert all(row["metadata"] and row["created_at"] and row["example_count"] for row in known.values())
    assert {row["read_at"] for row in known.values()} == {NOW}
    page = Path(write_report(lake_at(data_root), FIRST, TODAY, tmp_path / "cost.html")).read_text()
    assert "contract-clauses</bdi>" in page


def test_the_list_is_read_once_a_day_and_nothing_is_written_in_between(sandbox: Sandbox, data_root: DataRoot) -> None:
    read(sandbox, data_root, clock=lambda: NOW)
    assert asked(sandbox) == [[]]
    version = lake_at(data_root).versions(REFERENCE_DATASETS, [None])[None]
    datasets(sandbox)[0].name = "renamed"
    for hours in (1, 2, 8):
        assert refresh(sandbox, data_root, NOW + timedelta(hours=hours)) == []
    assert asked(sandbox) == []
    assert lake_at(data_root).versions(REFERENCE_DATASETS, [None])[None] == version
    tomorrow = NOW + timedelta(hours=9)
    refresh(sandbox, data_root, tomorrow)
    assert asked(sandbox) == [[]]
    assert rows(data_root)[datasets(sandbox)[0].id]["name"] == "renamed"
    assert {row["read_at"] for row in rows(data_root).values()} == {tomorrow}


def test_a_new_name_counts_after_a_reading_with_a_clock_that_was_ahead(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.add(Fault("date", times=None))
    [warning] = refresh(sandbox, tmp_path, NOW + timedelta(days=365))
    assert "The clock here is +525600 min off" in warning
    assert {row["read_at"] for row in rows(tmp_path).values()} == {NOW}
    datasets(sandbox)[0].name = "renamed"
    sandbox.api.now = NOW + timedelta(days=1)
    assert refresh(sandbox, tmp_path, sandbox.api.now) == []
    assert rows(tmp_path)[datasets(sandbox)[0].id]["name"] == "renamed"


def test_materializing_the_asset_alone_reads_the_list_again(sandbox: Sandbox, data_root: DataRoot) -> None:
    for _ in range(2):
        refresh(sandbox, data_root, days=None)
        assert asked(sandbox) == [[]]


def test_between_full_lists_only_unknown_datasets_of_the_runs_days_are_requested(
    sandbox: Sandbox, data_root: DataRoot
) -> None:
    new = datasets(sandbox)[:2]
    company(sandbox).datasets = [one for one in company(sandbox).datasets if one not in new]
    read(sandbox, data_root, clock=lambda: NOW)
    asked(sandbox)
    company(sandbox).datasets += new
    # No experiment of the run's days has this dataset, and older days do not matter to the run.
    refresh(sandbox, data_root, days=(FIRST - timedelta(days=9), FIRST - timedelta(days=8)))
    assert asked(sandbox) == []
    refresh(sandbox, data_root, NOW + timedelta(hours=1))
    assert asked(sandbox) == [sorted(one.id for one in new)]
    assert rows(data_root).keys() == {one.id for one in datasets(sandbox)}
    assert {row["missing_since"] for row in rows(data_root).values()} == {None}
    refresh(sandbox, data_root, NOW + timedelta(hours=2))
    assert asked(sandbox) == []


def test_the_dataset_of_an_experiment_without_a_day_is_requested_whatever_days_are_read(
    sandbox: Sandbox, data_root: DataRoot
) -> None:
    read(sandbox, data_root, clock=lambda: NOW)
    asked(sandbox)
    keys = {"tenant_id": [WORKSPACE], "reference_dataset_id": ["da7a5e70-0000-4000-8000-000000000001"]}
    table = DAILY_COST_BY_REFERENCE_DATASET
    Lake.open(str(data_root), query={}).replace(table, UNDATED, lake_rows.rows(table, 1, **keys), {})
    refresh(sandbox, data_root, days=(FIRST - timedelta(days=9), FIRST - timedelta(days=8)))
    assert asked(sandbox) == [keys["reference_dataset_id"]]


def test_a_deleted_dataset_keeps_its_name_and_has_the_time_since_it_is_missing(
    sandbox: Sandbox, data_root: DataRoot
) -> None:
    refresh(sandbox, data_root)
    gone = datasets(sandbox)[3]
    company(sandbox).datasets.remove(gone)
    for days in (1, 2):
        refresh(sandbox, data_root, NOW + timedelta(days=days))
    assert rows(data_root)[gone.id]["missing_since"] == NOW + timedelta(days=1)
    assert rows(data_root)[gone.id]["name"] == gone.name
    company(sandbox).datasets.append(gone)
    refresh(sandbox, data_root, NOW + timedelta(days=3))
    assert {row["missing_since"] for row in rows(data_root).values()} == {None}


def test_each_workspace_is_asked_for_its_own_datasets_and_one_that_is_not_read_keeps_its_rows(
    sandbox: Sandbox, data_root: DataRoot
) -> None:
    refresh(sandbox, data_root, **BOTH)
    before = rows(data_root)
    assert [row["name"] for row in before.values()].count("support-answers") == 2
    assert before.keys() == {one.id for one in company(sandbox).datasets}
    company(sandbox).datasets.clear()
    refresh(sandbox, data_root, NOW + timedelta(days=1), LANGSMITH_WORKSPACE_ID=WORKSPACE)
    for key, row in rows(data_root).items():
        assert row["missing_since"] == (NOW + timedelta(days=1) if row["tenant_id"] == WORKSPACE else None)
        assert row["name"] == before[key]["name"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_one_warning_and_known_names_stay(sandbox: Sandbox, tmp_path: Path, status: int) -> None:
    refresh(sandbox, tmp_path)
    known, version = rows(tmp_path), lake_at(tmp_path).versions(REFERENCE_DATASETS, [None])[None]
    sandbox.faults.add(Fault("no_datasets", status, times=None))
    result = run_days(settings_for(sandbox.url, tmp_path), TODAY, TODAY, clock=lambda: NOW + timedelta(days=1))
    assert result.success
    (event,) = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(REFERENCE_DATASETS.name)
    ]
    said = str(event.metadata["api_warnings"].value)
    assert said.startswith("Dataset names could not be read, so the names known before are used: ")
    assert str(status) in said
    assert asked(sandbox) == [[], []]
    assert (rows(tmp_path), lake_at(tmp_path).versions(REFERENCE_DATASETS, [None])[None]) == (known, version)


def test_without_any_names_from_the_api_there_is_no_file_and_the_run_succeeds(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.add(Fault("no_datasets", 403, times=None))
    assert len(refresh(sandbox, tmp_path)) == 1
    assert not lake_at(tmp_path).has(REFERENCE_DATASETS, None)


def test_a_workspace_that_refuses_does_not_affect_the_other(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.add(Fault("no_datasets", 403))
    (said,) = refresh(sandbox, tmp_path, **BOTH)
    assert WORKSPACE in said
    assert rows(tmp_path).keys() == {one.id for one in datasets(sandbox, OTHER_WORKSPACE)}
    sandbox.requests.clear()
    # The workspace's list must still be read; the other's must not be read again.
    refresh(sandbox, tmp_path, NOW + timedelta(hours=1), **BOTH)
    assert rows(tmp_path).keys() == {one.id for one in company(sandbox).datasets}
    assert asked(sandbox) == [[]]


def test_redacted_properties_of_datasets_are_not_stored(sandbox: Sandbox, tmp_path: Path) -> None:
    refresh(sandbox, tmp_path, SESSIONS_PIPELINE_REDACT="metadata,description")
    assert {(row["metadata"], row["description"]) for row in rows(tmp_path).values()} == {(None, None)}
    refresh(sandbox, tmp_path / "nameless", SESSIONS_PIPELINE_REDACT="name")
    assert rows(tmp_path / "nameless") == {}


def test_the_later_reading_of_two_runs_at_once_wins(sandbox: Sandbox, tmp_path: Path) -> None:
    later, first = NOW + timedelta(minutes=1), datasets(sandbox)[0]

    class Overtaken(Pipeline):
        """The other run happens before this one sends its first request."""

        def connect(self) -> SessionsClient:
            first.name = "as the other run reads it"
            refresh(sandbox, tmp_path, later)
            first.name = "as this one reads it"
            return super().connect()

    refresh_names(Overtaken(settings_for(sandbox.url, tmp_path), clock=lambda: NOW), (FIRST, TODAY), print)
    assert rows(tmp_path)[first.id]["name"] == "as the other run reads it"
    assert {row["read_at"] for row in rows(tmp_path).values()} == {later}
