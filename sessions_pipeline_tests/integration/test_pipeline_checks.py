"""Every asset check passes on what a run wrote, and fails when its promise is broken in the lake's own files."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sessions_pipeline.cli.run import run_days
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.orchestration import checks
from sessions_pipeline.orchestration.build import build_definitions, quiet_config
from sessions_pipeline.orchestration.checks import PROMISES
from sessions_pipeline.orchestration.partitions import range_tags
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, Table
from sessions_pipeline.validation.model import TracerSession
from sessions_pipeline_tests.faulty_server import all_texts, build_api, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    DAYS,
    FIRST,
    NOW,
    TODAY,
    record,
    settings_for,
)

YESTERDAY = DAYS[1]
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}"
WARNINGS = {"recent_days_are_fresh", "no_reading_shrinks", "schema_has_not_drifted", "rejected_share_is_low"}


def by_the_schema() -> list[str]:
    """A company's sessions, newest first, without the property that the sandbox sends beyond the schema."""
    records = map(json.loads, all_texts(build_api(now=NOW, broken=False), include_stats=True, reference_free=False))
    recent = [record for record in records if record["start_time"] >= FIRST.isoformat()]
    named = ({name: value for name, value in one.items() if name in TracerSession.model_fields} for one in recent)
    return [json.dumps(values) for values in named]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A lake of three days read just now, as a schedule would have, and its API's address."""
    root = tmp_path_factory.mktemp("whole")
    with running_sandbox(texts=by_the_schema(), now=NOW) as sandbox:
        run_days(settings_for(sandbox.url, root), FIRST, TODAY)
        yield root, sandbox.url


@pytest.fixture
def lake(whole: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    shutil.copytree(whole[0], tmp_path / "lake")
    # The lake's days are in March: the checks look at it on their last day.
    shift_clock(monkeypatch, timedelta(0))
    return Lake.open(str(tmp_path / "lake"), query={})


def shift_clock(monkeypatch: pytest.MonkeyPatch, later: timedelta) -> None:
    """Checks run `later` than the readings, on the last day that they hold."""

    class Moment(datetime):
        def date(self) -> Any:
            return TODAY

    now = datetime.now(UTC) + later
    monkeypatch.setattr(checks, "now", lambda: Moment.fromtimestamp(now.timestamp(), UTC))


def examine(lake: Lake, *names: str) -> dict[str, dg.AssetCheckEvaluation]:
    """Run asset checks in Dagster, all without names."""
    settings = settings_for(
        "http://127.0.0.1:9", Path(lake.uri(SESSIONS, TODAY)).parents[2], SESSIONS_PIPELINE_LOOKBACK_DAYS=2
    )
    job = build_definitions(Pipeline(settings)).get_repository_def().get_implicit_global_asset_job_def()
    keys = {
        dg.AssetCheckKey(dg.AssetKey(promise.asset.name), name)
        for name, promise in PROMISES.items()
        if not names or name in names
    }
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.get_subset(asset_selection=set(), asset_check_selection=keys).execute_in_process(
            instance=instance, run_config=quiet_config(), tags=range_tags(FIRST, TODAY)
        )
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def change(lake: Lake, table: Table, column: str, value: Callable[[Any], Any], **metadata: str) -> None:
    """Break yesterday's file: another value in its first row, other metadata."""
    rows = lake.read(table, YESTERDAY).to_pylist()
    rows[0][column] = value(rows[0][column])
    replace(lake, table, pa.Table.from_pylist(rows, table.schema), **metadata)


def replace(lake: Lake, table: Table, rows: pa.Table, **metadata: str) -> None:
    kept = {name: text for name, text in lake.metadata(table, YESTERDAY).items() if name in {"readings", "drift"}}
    lake.replace(table, YESTERDAY, rows, {**kept, **metadata})


def lose_a_session(lake: Lake) -> None:
    replace(lake, SESSIONS, lake.read(SESSIONS, YESTERDAY).slice(1))


def double_a_session(lake: Lake) -> None:
    rows = lake.read(SESSIONS, YESTERDAY)
    replace(lake, SESSIONS, pa.concat_tables([rows, rows.slice(0, 1)]))


def move_a_session(lake: Lake) -> None:
    change(lake, SESSIONS, "start_time", lambda time: time + timedelta(days=1))


def leave_a_table_behind(lake: Lake) -> None:
    rows = lake.read(DAILY_COST_BY_REFERENCE_DATASET, YESTERDAY)
    replace(lake, DAILY_COST_BY_REFERENCE_DATASET, rows, readings="[]")


def add_to_a_sum(lake: Lake) -> None:
    change(lake, DAILY_COST_BY_REFERENCE_DATASET, "total_cost", lambda cost: cost + Decimal("0.000000000000000001"))


def invent_a_cost(lake: Lake) -> None:
    change(lake, DAILY_COST_BY_REFERENCE_DATASET, "priced_session_count", lambda _: 0)


def shrink(lake: Lake) -> None:
    replace(lake, SESSIONS, lake.read(SESSIONS, YESTERDAY), shrunk='["some-session"]')


def drift(lake: Lake) -> None:
    replace(lake, SESSIONS, lake.read(SESSIONS, YESTERDAY), drift='{"colour": 3}')


def reject_many(lake: Lake) -> None:
    row = {"session_id": "x", "reasons": ["total_cost: is no decimal"], "payload": "{}", "fetched_at": NOW}
    names = REJECTED_SESSIONS.schema.names
    rows = [{**dict.fromkeys(names), **row}] * 40
    replace(lake, REJECTED_SESSIONS, pa.Table.from_pylist(rows, REJECTED_SESSIONS.schema))


def lose_a_day(lake: Lake) -> None:
    Path(lake.uri(SESSIONS, YESTERDAY)).unlink()


BREAKS: dict[str, tuple[Callable[[Lake], None], str]] = {
    "every_record_is_accounted_for": (
        lose_a_session,
        rf"{YESTERDAY}: received \d+, valid \d+, rejected 0, repeated \d+",
    ),
    "session_ids_are_unique": (double_a_session, UUID),
    "sessions_start_on_their_day": (move_a_session, UUID),
    "tables_of_a_day_agree": (leave_a_table_behind, f"daily_cost_by_reference_dataset of {YESTERDAY}"),
    "costs_add_up": (add_to_a_sum, UUID),
    "no_cost_is_invented": (invent_a_cost, UUID),
    "no_reading_shrinks": (shrink, "some-session"),
    "schema_has_not_drifted": (drift, f"3 records, first on {YESTERDAY}"),
    "rejected_share_is_low": (reject_many, "total_cost: is no decimal"),
    "recent_days_are_fresh": (lose_a_day, str(YESTERDAY)),
}


def test_every_promise_is_kept_by_a_run_and_says_numbers(lake: Lake) -> None:
    found = examine(lake)
    assert set(found) == set(PROMISES)
    assert {name for name, evaluation in found.items() if not evaluation.passed} == set()
    assert all(len(evaluation.metadata) >= 2 for evaluation in found.values())
    accounted = {name: value.value for name, value in found["every_record_is_accounted_for"].metadata.items()}
    assert accounted["received"] == accounted["valid"] + accounted["rejected"] + accounted["repeated"] >= 80
    assert {name for name, found_ in found.items() if found_.severity is dg.AssetCheckSeverity.WARN} == WARNINGS


def test_there_is_a_break_for_every_promise() -> None:
    assert set(BREAKS) == set(PROMISES)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_promise_is_told_with_what_is_broken(name: str, lake: Lake) -> None:
    breaking, says = BREAKS[name]
    breaking(lake)
    evaluation = examine(lake, name)[name]
    assert not evaluation.passed
    assert re.search(says, str(evaluation.metadata)), evaluation.metadata


def test_readings_older_than_three_hours_are_not_fresh(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    shift_clock(monkeypatch, timedelta(hours=4))
    assert not examine(lake, "recent_days_are_fresh")["recent_days_are_fresh"].passed


def test_tables_that_a_crash_left_apart_are_told_and_the_next_run_repairs_them(
    lake: Lake, whole: tuple[Path, str]
) -> None:
    raw = lake.read(RAW_SESSIONS, YESTERDAY)
    replace(lake, RAW_SESSIONS, raw, readings="[]")
    assert not examine(lake, "tables_of_a_day_agree")["tables_of_a_day_agree"].passed
    run_days(settings_for(whole[1], Path(lake.uri(SESSIONS, TODAY)).parents[2]), FIRST, TODAY)
    assert examine(lake, "tables_of_a_day_agree")["tables_of_a_day_agree"].passed


def test_a_reading_that_shrinks_is_told_over_http(tmp_path: Path) -> None:
    start = datetime.now(UTC) - timedelta(hours=1)
    with running_sandbox(texts=[record(1, start, run_count=10)], now=start) as sandbox:
        settings = settings_for(sandbox.url, tmp_path)
        run_days(settings, start.date(), start.date())
        sandbox.api.data.texts = [record(1, start, run_count=4)]  # type: ignore[attr-defined]
        run_days(settings, start.date(), start.date())
    stored = Lake.open(str(tmp_path), query={})
    assert "00000000-0000-4000-8000-000000000001" in stored.metadata(SESSIONS, start.date())["shrunk"]
    assert pc.sum(stored.read(SESSIONS, start.date()).column("run_count")).as_py() == 4


def test_drift_is_counted_by_name_and_its_properties_survive(tmp_path: Path) -> None:
    texts = [record(number, NOW, colour="red", trace_tier="eternal") for number in range(3)]
    with running_sandbox(texts=texts, now=NOW) as sandbox:
        run_days(settings_for(sandbox.url, tmp_path), TODAY, TODAY)
    stored = Lake.open(str(tmp_path), query={})
    told = stored.metadata(SESSIONS, TODAY)["drift"]
    assert '"colour": 3' in told
    assert "eternal" in told or "trace_tier" in told
    assert stored.read(SESSIONS, TODAY).column("unknown_fields").to_pylist() == ['{"colour":"red"}'] * 3
