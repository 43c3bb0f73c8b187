"""The oldest DuckDB, Polars and pandas that the docs name read a lake as the newest do, with rows without a day."""

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from sessions_pipeline import outputs
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.tables import SESSIONS, TABLES

REPOSITORY = Path(__file__).parents[2]
DAY = date(2025, 1, 31)
NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)
LAKE_SQL = Path(outputs.__file__).with_name("lake.sql")

pytestmark = pytest.mark.xdist_group("readers")


def _session(name: str, cost: str, start: datetime | None) -> pa.Table:
    row = {"id": name, "tenant_id": "t", "fetched_at": NOON, "start_time": start, "total_cost": Decimal(cost)}
    return pa.Table.from_pylist([row], SESSIONS.schema)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a session without a day, whose cost of 1,000 dollars must not be in any sum over days."""
    root = tmp_path_factory.mktemp("lake")
    lake = Lake.open(str(root), query={})
    for table in TABLES:
        lake.replace(table, None if table.partition_column is None else DAY, table.schema.empty_table(), {})
    lake.replace(SESSIONS, DAY, _session("first", "0.25", NOON), {})
    lake.replace(SESSIONS, DAY + timedelta(1), _session("second", "0.25", NOON + timedelta(1)), {})
    lake.replace(SESSIONS, UNDATED, _session("undated", "1000", None), {})
    return root


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with only requirements-old-readers.lock."""
    environment = tmp_path_factory.mktemp("old-readers") / "environment"
    uv = str(Path(sys.executable).with_name("uv"))
    lock = str(REPOSITORY / "requirements-old-readers.lock")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    python = environment / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "-r", lock]
    subprocess.run(install, check=True)
    return python


def _read(python: Path, root: Path) -> list[list[str]]:
    script = Path(__file__).with_name("old_readers.py")
    done = subprocess.run(
        [str(python), str(script), str(root), str(LAKE_SQL)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("age", ["oldest", "newest"])
def test_every_reader_sums_the_days_and_leaves_out_sessions_without_a_day(
    root: Path, old_python: Path, age: str
) -> None:
    answers = _read(old_python if age == "oldest" else Path(sys.executable), root)
    by_reader = {name: values for name, _version, *values in answers}
    assert by_reader["duckdb undated"] == [1]
    for reader in ("duckdb", "polars", "pandas"):
        total, rows = by_reader[reader]
        assert (Decimal(total), rows) == (Decimal("0.5"), 2), reader
    # For one day DuckDB opens one of the three files; versions of DuckDB write this differently in their plans.
    plan = by_reader["duckdb plan"][0].replace(" ", "")
    assert "1/3" in plan or "FilesRead:1" in plan
