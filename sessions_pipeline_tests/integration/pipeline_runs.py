"""Whole runs against the sandbox over HTTP, into a lake in a folder or bucket, and functions that compare lakes."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import pytest

from sessions_pipeline.dataset_names import refresh_names
from sessions_pipeline.days import days_between
from sessions_pipeline.definitions import build_definitions
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.lake.s3 import S3Store
from sessions_pipeline.lake.store import store_at
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.throttle import Throttle, acquire_for
from sessions_pipeline.orchestration import run
from sessions_pipeline.orchestration.assets import DAILY_TABLES
from sessions_pipeline.pipeline import Pipeline, now
from sessions_pipeline.sandbox.company import WORKSPACE
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, TABLES, Table
from sessions_pipeline.weeks_and_months import sum_after_days
from sessions_pipeline_tests.faulty_server import all_texts, build_api

# The sandbox's present. All tests that use it happen in March 2026, whatever the real date is.
NOW = datetime(2026, 3, 20, 15, tzinfo=UTC)
TODAY = NOW.date()
FIRST = TODAY - timedelta(days=2)
DAYS = (FIRST, FIRST + timedelta(days=1), TODAY)
# Two lakes count as equal if they differ only in these columns, which hold the times of their runs.
READ_TIMES = {"fetched_at", "stats_as_of", "missing_since", "read_at"}
KEY = "lsv2_pt_d15tinc71ve_0123456789"


class Bucket(str):
    """An `s3://` address that is joined with `/`, like a `Path`."""

    __slots__ = ()

    def __truediv__(self, name: str) -> "Bucket":
        return Bucket(f"{self}/{name}")


DataRoot = Path | Bucket
# The fixture `data_root` tries a bucket only in the long suite. Tests with this mark always try both.
also_in_a_bucket = pytest.mark.parametrize("data_root", ["folder", "s3"], indirect=True)


def settings_for(url: str, root: DataRoot, **values: Any) -> Settings:
    """Settings for a sandbox, with nothing from the environment or `.env`."""
    return Settings(
        _env_file=None,
        **{
            "LANGSMITH_API_KEY": "sandbox-key",
            "LANGSMITH_ENDPOINT": url,
            "LANGSMITH_WORKSPACE_ID": "",
            "LANGSMITH_BEARER_TOKEN": None,
            "SESSIONS_PIPELINE_DATA_ROOT": str(root),
            "SESSIONS_PIPELINE_QUERY": "{}",
            **values,
        },
    )


class PipelineWithShortWindow(Pipeline):
    """A pipeline whose client takes the API's rate-limit window to be 0.1 s, not a minute, so that tests are quick."""

    def connect(self) -> SessionsClient:
        seconds, acquire = self.settings.deadline_minutes * 60, acquire_for(self.settings)
        throttle = Throttle(self.settings.concurrency, deadline_seconds=seconds, acquire=acquire, window_seconds=0.1)
        return SessionsClient(self.settings, clock=self.clock, throttle=throttle)


def execute(pipeline: Pipeline, *days: date, select: str | None = None, **options: Any) -> dg.ExecuteInProcessResult:
    """`run.execute` with this pipeline's definitions."""
    return run.execute(build_definitions(pipeline), *days, select=(select,) if select else (), **options)


def run_days(
    settings: Settings, first: date, last: date, *, select: str | None = None, **pipeline: Any
) -> dg.ExecuteInProcessResult:
    """One run on an ephemeral instance: of the selected assets, or of `refresh_sessions` if none are selected."""
    with dg.DagsterInstance.ephemeral() as instance:
        return execute(PipelineWithShortWindow(settings, **pipeline), first, last, instance=instance, select=select)


class Server(Protocol):
    """What serves the API."""

    @property
    def url(self) -> str: ...


def read(
    server: Server,
    root: DataRoot,
    first: date = FIRST,
    last: date = TODAY,
    *,
    clock: Callable[[], datetime] = now,
    **values: Any,
) -> Settings:
    """Make the lake that one run of `refresh_sessions` makes, without Dagster, in a quarter of the time.

    It calls what the assets call, in the same order. Returns the settings.
    """
    settings = settings_for(server.url, root, **values)
    pipeline, written = PipelineWithShortWindow(settings, clock=clock), list[Day]()
    try:
        days, tables = days_between(first, last), list(DAILY_TABLES)
        pipeline.process(days, tables, pipeline.on_warning, lambda result: written.append(result.day))
    finally:
        if written:
            sum_after_days(pipeline, pipeline.on_warning)
    refresh_names(pipeline, (first, last), pipeline.on_warning)
    return settings


def lake_at(root: DataRoot) -> Lake:
    return Lake.open(str(root), query={}, read_only=True)


def days_with_files(lake: Lake, table: Table) -> list[Day]:
    if table.partition_column is None:
        return [None] if lake.has(table, None) else []
    return [*lake.days(table), *([UNDATED] if lake.has(table, UNDATED) else [])]


def contents(root: DataRoot) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """All rows by table and day, without the columns of `READ_TIMES`."""
    lake = lake_at(root)
    return {
        (table.name, str(day)): [
            {name: value for name, value in row.items() if name not in READ_TIMES}
            for row in lake.read(table, day).to_pylist()
        ]
        for table in TABLES
        for day in days_with_files(lake, table)
    }


def keys(root: DataRoot) -> list[str]:
    """The keys of all files, including hidden ones and locks."""
    if isinstance(root, Path):
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return sorted(found["path"] for some in S3Store(root)._client.list() for found in some)


def files(root: DataRoot) -> dict[str, str]:
    """The SHA-256 of every file by its key, without locks."""
    store = store_at(str(root))
    return {
        key: sha256(store.open(key, whole=True).source.read()).hexdigest()
        for key in keys(root)
        if not key.startswith("_locks/")
    }


def copy(source: DataRoot, target: DataRoot) -> None:
    """Replace all files of the target with those of the source."""
    read_from, write_to = store_at(str(source)), store_at(str(target))
    for key in keys(target):
        write_to.delete(key)
    for key in keys(source):
        write_to.put(key, read_from.open(key, whole=True).source.read())


def stray(root: DataRoot) -> list[str]:
    """Temporary files that a run has left behind."""
    return [key for key in files(root) if "_tmp" in key]


def ids(root: DataRoot, days: Sequence[Day] = DAYS) -> list[str]:
    """The ids of the days' valid sessions, with duplicates."""
    lake = lake_at(root)
    return [name for day in days for name in lake.read(SESSIONS, day, ["id"]).column("id").to_pylist()]


def accounts(root: DataRoot) -> dict[Day, tuple[int, int, int, int]]:
    """By day, the numbers of records that its latest readings received, and of valid, rejected and repeated ones."""
    lake = lake_at(root)
    counts: dict[Day, tuple[int, int, int, int]] = {}
    for day in days_with_files(lake, RAW_SESSIONS):
        latest = lake.last_readings(day)
        valid = lake.read(SESSIONS, day).column("missing_since").null_count
        rejected = lake.read(REJECTED_SESSIONS, day).num_rows
        counts[day] = (sum(one.received for one in latest), valid, rejected, sum(one.repeated for one in latest))
    return counts


def record(number: int, start: datetime | None, **values: Any) -> str:
    """A session's JSON text."""
    return json.dumps(
        {
            "id": f"00000000-0000-4000-8000-{number:012d}",
            "tenant_id": WORKSPACE,
            "reference_dataset_id": "00000000-0000-4000-9000-000000000001",
            "name": f"experiment {number}",
            **({} if start is None else {"start_time": start.isoformat()}),
            "trace_tier": "shortlived",
            "run_count": 10,
            "total_tokens": 1000,
            "total_cost": "1.25",
            **values,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def some_records(count: int = 300, last: datetime = NOW, **values: Any) -> list[str]:
    """The JSON texts of sessions ten minutes apart, newest first. The default 300 are a little over two days."""
    return [record(number, last - timedelta(minutes=10 * number), **values) for number in range(count)]


@contextmanager
def failing_in_one_line(error: type[Exception], match: str) -> Iterator[None]:
    """Like `pytest.raises`, and the message must be a single line."""
    with pytest.raises(error, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


def recent_experiments() -> list[str]:
    """The company's experiments since `FIRST`, newest first."""
    texts = all_texts(build_api(now=NOW, broken=False), include_stats=True, reference_free=False)
    return [text for text in texts if json.loads(text)["start_time"] >= FIRST.isoformat()]
