"""Promises to lakes that a released version wrote: they are read, continued and migrated, whatever happens meanwhile.

`data/lake-0.1.0` was written by version 0.1.0 (commit 1eeb802) from the sandbox's company of seed 7 at 15:00 UTC on
2026-03-20: of what it lists on that day and the day before the newest four sessions each, an undated one, and a broken
record, put in front; `daily_cost_by_project` is the whole company's.
"""

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sessions_pipeline.cli.run import run_days
from sessions_pipeline.errors import LakeError, LakeMismatchError
from sessions_pipeline.lake import lease, marker
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.lake.store import Store
from sessions_pipeline.tables import (
    DAILY_COST_BY_PROJECT,
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    MONTHLY_COST_BY_REFERENCE_DATASET,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSION_FEEDBACK,
    SESSIONS,
    TABLES,
)
from sessions_pipeline.tables.readings import load_readings
from sessions_pipeline_tests.faulty_server import running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    Bucket,
    DataRoot,
    accounts,
    also_in_a_bucket,
    contents,
    copy,
    days_held,
    files,
    lake_at,
    read,
    settings_for,
)
from sessions_pipeline_tests.integration.s3_server import S3Server
from sessions_pipeline_tests.integration.test_lake_crashes import dying

DATA = Path(__file__).parent.parent / "data"
FIRST, LAST = date(2026, 3, 19), date(2026, 3, 20)
READ_AT = datetime(2026, 3, 20, 15, tzinfo=UTC)
# By dataset, as version 0.1.0 summed them.
COSTS = {
    FIRST: {
        "2e0b6710": (1, "0.327579000000000000"),
        "89b2e628": (1, "0.074708000000000000"),
        "a406fbcc": (2, "0.636900000000000000"),
    },
    LAST: {
        "7deeac94": (1, "0.184419200000000000"),
        "89b2e628": (1, "0.128342400000000000"),
        "a406fbcc": (1, "0.489079500000000000"),
        "ff969128": (1, "0.457849000000000000"),
    },
}
MONTH = {
    "2e0b6710": "0.327579000000000000",
    "7deeac94": "0.184419200000000000",
    "89b2e628": "0.203050400000000000",
    "a406fbcc": "1.125979500000000000",
    "ff969128": "0.457849000000000000",
}


@pytest.fixture
def root(data_root: DataRoot) -> DataRoot:
    copy(DATA / "lake-0.1.0", data_root)
    return data_root


def daily_costs(root: DataRoot) -> dict[date, dict[str, tuple[int, str]]]:
    lake = lake_at(root)
    return {
        day: {
            row["reference_dataset_id"][:8]: (row["session_count"], str(row["total_cost"]))
            for row in lake.read(DAILY_COST_BY_REFERENCE_DATASET, day).to_pylist()
        }
        for day in lake.days(DAILY_COST_BY_REFERENCE_DATASET)
    }


def test_a_lake_of_0_1_0_reads_as_it_was_written(root: DataRoot) -> None:
    lake = lake_at(root)
    rows = {(table, day): len(rows) for (table, day), rows in contents(root).items()}
    assert rows[SESSIONS.name, str(FIRST)] == rows[SESSIONS.name, str(LAST)] == rows[RAW_SESSIONS.name, str(LAST)] == 4
    assert rows[SESSIONS.name, str(UNDATED)] == rows[REJECTED_SESSIONS.name, str(UNDATED)] == 1
    assert rows[SESSION_FEEDBACK.name, str(FIRST)] == 12
    assert {table.name for table in TABLES} == {table for table, _ in rows}
    assert daily_costs(root) == COSTS
    months = lake.read(MONTHLY_COST_BY_REFERENCE_DATASET, None).to_pylist()
    assert {row["reference_dataset_id"][:8]: str(row["total_cost"]) for row in months} == MONTH
    usage = lake.read(DAILY_COST_BY_PROJECT, FIRST).to_pylist()
    assert str(sum(row["total_cost"] for row in usage if row["total_cost"] is not None)) == "45.164806500000000000"
    [rejected] = lake.read(REJECTED_SESSIONS, UNDATED).to_pylist()
    assert (rejected["payload"], rejected["reasons"][1]) == ('{"broken": NaN}', "id: is required, but absent")
    first = lake.read(EXPERIMENT_SUMMARY, FIRST).to_pylist()[0]
    assert (first["id"], first["name"]) == (
        "b69b9896-826c-5c49-9032-5339f5b98755",
        "refund-policy · retrieval · 2026-03-19 #3",
    )
    assert (str(first["cost_per_run"]), first["latency_p50"]) == ("0.004172000000000000", 1.5836)
    assert first["scores"][0] == {"feedback_key": "conciseness", "scope": "run", "average": 0.4182, "count": 21}
    assert accounts(root)[FIRST] == (6, 4, 0, 2)
    assert [one.fetched_at for one in load_readings(lake.metadata(RAW_SESSIONS, FIRST))] == [READ_AT]


def test_what_0_1_0_derived_is_derived_the_same_today(root: DataRoot) -> None:
    before = contents(root)
    run_days(settings_for("http://127.0.0.1:9", root), FIRST, LAST, select="key:sessions+ or key:rejected_sessions")
    assert contents(root) == before


@also_in_a_bucket
def test_a_lake_of_0_1_0_goes_on_with_a_new_reading(root: DataRoot) -> None:
    lake = lake_at(root)
    payloads = lake.read(RAW_SESSIONS, LAST, ["start_time", "payload"]).sort_by([("start_time", "descending")])
    gone, grown, *same = payloads.column("payload").to_pylist()
    assert grown.count('"0.1283424"') == 1
    with running_sandbox(texts=[grown.replace('"0.1283424"', '"1.1283424"'), *same], now=READ_AT) as sandbox:
        read(sandbox, root, LAST, LAST)
    assert "7deeac94" in gone
    assert daily_costs(root) == COSTS | {LAST: COSTS[LAST] | {"89b2e628": (1, "1.128342400000000000")}}
    rows = lake.read(SESSIONS, LAST).to_pylist()
    assert [row["missing_since"] is None for row in rows] == [True, True, True, False]
    assert [one.received - one.repeated for one in load_readings(lake.metadata(RAW_SESSIONS, LAST))] == [4, 3]
    months = lake.read(MONTHLY_COST_BY_REFERENCE_DATASET, None).to_pylist()
    costs = {row["reference_dataset_id"][:8]: str(row["total_cost"]) for row in months}
    assert costs == MONTH | {"89b2e628": "1.203050400000000000"}


def test_a_lake_of_a_newer_layout_is_refused_in_one_line_and_left_alone(root: DataRoot) -> None:
    written = Lake.open(str(root), query={})
    newer = marker.layout() + 1
    written.write_file(marker.MARKER, f'{{"layout": {newer}, "query": {{}}}}'.encode())
    before = files(root)
    with pytest.raises(LakeMismatchError) as caught:
        run_days(settings_for("http://127.0.0.1:9", root), FIRST, LAST)
    assert str(caught.value) == (
        f"{root}/_lake.json: layout {newer} is newer than this version's {newer - 1}; upgrade sessions-pipeline"
    )
    assert files(root) == before


def shout(store: Store) -> None:
    """A migration: names in capitals, a file at a time, each only once."""
    for key in store.keys(SESSIONS.name):
        rows = pq.read_table(store.open(key, whole=True))
        if b"loud" in rows.schema.metadata:
            continue
        names = rows.column("name").to_pylist()
        loud = rows.set_column(
            rows.schema.get_field_index("name"), rows.schema.field("name"), [[name and f"{name}!" for name in names]]
        )
        target = io.BytesIO()
        pq.write_table(loud.replace_schema_metadata({**rows.schema.metadata, b"loud": b"1"}), target)
        store.put(key, target.getvalue())


def names(root: DataRoot, *days: Day) -> list[str]:
    lake = Lake.open(str(root), query={})
    return [
        str(name)
        for day in days or days_held(lake, SESSIONS)
        for name in lake.read(SESSIONS, day).column("name").to_pylist()
    ]


def check_that_the_old_version_reads_the_old_lake_or_refuses(root: DataRoot, old: list[str]) -> None:
    shouting = marker.MIGRATIONS.pop(1)
    try:
        assert names(root) == old
    except LakeMismatchError as error:
        assert "layout 2 is newer than this version's 1; upgrade sessions-pipeline" in str(error)  # noqa: PT017
    finally:
        marker.MIGRATIONS[1] = shouting


def die_in_a_migration(root: Path, every: int) -> None:
    """Fork processes that migrate a lake and kill themselves, each some operations later than the one before."""
    released = DATA / "lake-0.1.0"
    old = names(released)
    marker.MIGRATIONS[1] = shout
    for step in itertools.count(step=every):
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(released, root)
        child = os.fork()
        if child == 0:
            steps = itertools.count()
            for name in ("open", "write", "fsync", "replace", "mkdir", "close", "unlink", "rmdir"):
                setattr(os, name, dying(getattr(os, name), steps, step))
            Lake.open(str(root), query={})
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        check_that_the_old_version_reads_the_old_lake_or_refuses(root, old)
        assert names(root) == [f"{name}!" for name in old]
        assert json.loads((root / "_lake.json").read_text()) == {"layout": 2, "query": {}}
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    sys.stdout.write(f"{step}\n")


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.long)])
def test_after_kill_9_in_a_migration_the_next_run_finishes_it(tmp_path: Path, every: int) -> None:
    program = f"import sys; from pathlib import Path; from {__name__} import die_in_a_migration as f;"
    program += "f(Path(sys.argv[1]), int(sys.argv[2]))"
    command = [sys.executable, "-c", program, str(tmp_path / "lake"), str(every)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


def test_a_migration_in_a_bucket_that_fails_at_any_request_is_finished_by_the_next_run(
    bucket: str, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Bucket(bucket)
    monkeypatch.setattr(lease, "SECONDS", 0.5)
    old = names(DATA / "lake-0.1.0")
    monkeypatch.setitem(marker.MIGRATIONS, 1, shout)
    for number in range(1, 200, 6):
        copy(DATA / "lake-0.1.0", root)
        server.fail(*[""] * number, "denied")
        try:
            Lake.open(root, query={})
        except LakeError as error:
            assert "403 AccessDenied" in str(error)  # noqa: PT017
        is_through = bool(server.faults)
        server.fail()
        check_that_the_old_version_reads_the_old_lake_or_refuses(root, old)
        assert names(root) == [f"{name}!" for name in old]
        if is_through:
            break
    assert number > 20


@also_in_a_bucket
def test_a_run_migrates_an_older_lake_first_and_goes_on_with_it(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = lake_at(root).read(RAW_SESSIONS, LAST, ["start_time", "payload"])
    monkeypatch.setitem(marker.MIGRATIONS, 1, shout)
    texts = payloads.sort_by([("start_time", "descending")]).column("payload").to_pylist()
    with running_sandbox(texts=texts, now=READ_AT) as sandbox:
        read(sandbox, root, LAST, LAST)
    assert json.loads(Lake.open(str(root), query={}).read_file(marker.MARKER)) == {"layout": 2, "query": {}}
    loud = {day: sum(name.endswith("!") for name in names(root, day)) for day in (FIRST, LAST)}
    assert loud == {FIRST: 4, LAST: 0}
    assert daily_costs(root) == COSTS
