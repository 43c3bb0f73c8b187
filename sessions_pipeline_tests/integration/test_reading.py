"""Every recipe in docs/reading.md runs and prints the output that the page shows.

`python -c "from sessions_pipeline_tests.integration.test_reading import rewrite; rewrite()"` updates the outputs on the
page.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import duckdb
import pytest

from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.outputs.read import dataset_names
from sessions_pipeline.tables import (
    DAILY_COST_BY_PROJECT,
    DAILY_COST_BY_REFERENCE_DATASET,
    DERIVED,
    JUDGE_COST_BY_EXPERIMENT,
    RAW_SESSIONS,
    REFERENCE_DATASETS,
    REJECTED_SESSIONS,
    SESSIONS,
    TABLES,
    Table,
)
from sessions_pipeline.tables.period_costs import PERIODS, sum_periods
from sessions_pipeline_tests.builders import NOON, TENANT, dataset, experiment, session, sessions_table, table_of, uuid
from sessions_pipeline_tests.days import derive
from sessions_pipeline_tests.recipes import outputs
from sessions_pipeline_tests.snippets import Snippet, by_heading, snippets_of_heading

PAGE = Path(__file__).parents[2] / "docs" / "reading.md"
FIRST = NOON.date()
# A whole week, a week without its last day, and one day of a third week, on which no session has a cost.
NUMBERS = [*range(13), 14]
DAYS = [FIRST + timedelta(days=number) for number in NUMBERS]


def sessions_of(number: int) -> list[dict[str, object]]:
    """The sessions of one day: an experiment on each of two datasets, and on Mondays a tracing project."""
    start = NOON + timedelta(days=number)
    rows = [
        experiment(
            10 * number + which,
            name=f"{name} {number}",
            reference_dataset_id=dataset(which),
            start_time=start,
            end_time=start + timedelta(minutes=which),
            run_count=20,
            total_tokens=1000 * (which + number),
            total_cost=None
            if number == NUMBERS[-1] or (number + which) % 6 == 0
            else str(Decimal(number + 7 * which) / 40),
            feedback_stats={
                "correctness": {"n": 20, "avg": round(0.5 + number / 40 - which / 20, 3), "stdev": 0.1, "errors": 0}
            },
        )
        for which, name in ((1, "nightly"), (2, "prompt"))
    ]
    if start.weekday() == 0:
        rows.append(session(10 * number, name="chat", start_time=start, total_tokens=50_000, total_cost="12.5"))
    return rows


def fill(root: Path) -> None:
    lake = Lake.open(str(root), query={})
    for number, day in [*zip(NUMBERS, DAYS, strict=True), (None, UNDATED)]:
        rows = [experiment(999, name="undated", start_time=None)] if number is None else sessions_of(number)
        tables = {SESSIONS: sessions_table(*rows)}
        lake.replace(RAW_SESSIONS, day, RAW_SESSIONS.schema.empty_table(), {})
        lake.replace(REJECTED_SESSIONS, day, REJECTED_SESSIONS.schema.empty_table(), {})
        lake.replace(SESSIONS, day, tables[SESSIONS], {})
        for table in DERIVED:
            tables[table] = derive(table, tables)
            lake.replace(table, day, tables[table], {})
        if number is not None and number > 6:  # the judges of the first week were never measured
            judged = [
                {name: row[name] for name in ("id", "tenant_id", "reference_dataset_id")}
                | {"run_count": 20, "total_cost": Decimal(row["id"][-3:]) / 200, "stats_as_of": NOON, "read_at": NOON}
                for row in rows
                if row["reference_dataset_id"]
            ]
            lake.replace(JUDGE_COST_BY_EXPERIMENT, day, table_of("judge_cost_by_experiment", judged), {})
    daily = lake.read_days(DAILY_COST_BY_REFERENCE_DATASET, DAYS)
    for period in PERIODS:
        lake.replace(
            period.table,
            None,
            sum_periods(period, period.table.schema.empty_table(), daily, dict.fromkeys(DAYS, True), DAYS),
            {},
        )
    named = [
        {"id": dataset(which), "tenant_id": TENANT, "name": name, "read_at": NOON}
        for which, name in ((1, "support-answers"), (2, "query-rewrite"))
    ]
    lake.replace(REFERENCE_DATASETS, None, table_of("reference_datasets", named), {})


def recipe(snippets: list[Snippet]) -> tuple[list[str], list[str]]:
    """The Python blocks of a section, and the outputs that the page shows: "" if no text block follows."""
    after = [*snippets[1:], None]
    pairs = [(one.text, other) for one, other in zip(snippets, after, strict=True) if one.language == "python"]
    return [code for code, _ in pairs], [
        other.text if other is not None and other.language == "text" else "" for _, other in pairs
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reading")
    fill(place / "data" / "demo")
    return place


@by_heading
def test_recipes_print_what_the_page_shows(
    snippets: list[Snippet], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    blocks, shown = recipe(snippets)
    assert list(outputs(blocks)) == shown


@contextlib.contextmanager
def lake_sql(root: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection that has run lake.sql on the lake at `root`."""
    with duckdb.connect() as connection:
        connection.execute(f"SET VARIABLE data_root = '{root}'")
        connection.execute(files("sessions_pipeline.outputs").joinpath("lake.sql").read_text())
        yield connection


@pytest.fixture
def lake(place: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with lake_sql(place / "data" / "demo") as connection:
        yield connection


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_lake_sql_has_every_table_with_its_columns(lake: duckdb.DuckDBPyConnection, table: Table) -> None:
    partition = [] if table.partition_column is None else [table.partition_column]
    assert lake.sql(f"FROM {table.name}").columns == [*table.schema.names, *partition]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_newer_than_the_data_does_not_stop_others_from_being_read(
    table: Table, lake: duckdb.DuckDBPyConnection, place: Path, tmp_path: Path
) -> None:
    root = tmp_path / "lake"
    root.mkdir()
    for path in (place / "data" / "demo").iterdir():
        if path.name != table.name:
            (root / path.name).symlink_to(path)
    with lake_sql(root) as connection:
        described = f"DESCRIBE {table.name}"
        assert connection.sql(described).fetchall() == lake.sql(described).fetchall()
        for other in TABLES:
            if other not in (table, DAILY_COST_BY_PROJECT):
                count = f"SELECT count(*) FROM {other.name}"
                assert connection.sql(count).fetchall() == lake.sql(count).fetchall()
        if table in (JUDGE_COST_BY_EXPERIMENT, REFERENCE_DATASETS):
            assert connection.sql(f"FROM {table.name}").fetchall() == []
        else:
            with pytest.raises(duckdb.InvalidInputException, match=f"{table.name} was never made; materialize it"):
                connection.sql(f"SELECT count(*) FROM {table.name}").fetchall()


def test_lake_sql_reads_project_costs_once_they_are_there(tmp_path: Path) -> None:
    row = {"id": uuid(1), "tenant_id": uuid(2), "is_exact": True, "read_at": NOON, "total_cost": "1.5"}
    costs = table_of("daily_cost_by_project", [row])
    Lake.open(str(tmp_path), query={}).replace(DAILY_COST_BY_PROJECT, FIRST, costs, {})
    with lake_sql(tmp_path) as connection:
        found = connection.sql("SELECT usage_date, total_cost FROM daily_cost_by_project").fetchall()
    assert found == [(FIRST, Decimal("1.5"))]


@pytest.mark.parametrize("name", ["costs [prod]", "lake*", "lake?", "start%20{a,b}"])
def test_lake_sql_takes_no_character_of_the_lakes_path_for_a_pattern(name: str, tmp_path: Path) -> None:
    row = {"id": uuid(1), "tenant_id": uuid(2), "is_exact": True, "read_at": NOON}
    for folder in (name, "lake of another workspace", "lakes"):
        lake = Lake.open(str(tmp_path / folder), query={})
        lake.replace(DAILY_COST_BY_PROJECT, FIRST, table_of("daily_cost_by_project", [row]), {})
    with lake_sql(tmp_path / name) as connection:
        assert connection.sql("SELECT count(*) FROM daily_cost_by_project").fetchall() == [(1,)]


def test_lake_sql_looks_below_the_current_folder_without_a_data_root(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "data").symlink_to(place / "data" / "demo")
    monkeypatch.chdir(place / "elsewhere")
    with duckdb.connect() as connection:
        connection.execute(files("sessions_pipeline.outputs").joinpath("lake.sql").read_text())
        assert connection.sql("SELECT count(*) FROM sessions").fetchall() == [(32,)]


def names_of(connection: duckdb.DuckDBPyConnection, root: Path) -> list[tuple[str, ...]]:
    """The rows of `dataset_names` for the lake at `root`."""
    connection.execute(f"SET VARIABLE data_root = '{root}'")
    connection.execute(files("sessions_pipeline.outputs").joinpath("lake.sql").read_text())
    return connection.sql(
        "SELECT reference_dataset_id, name, dataset FROM dataset_names ORDER BY reference_dataset_id"
    ).fetchall()


def test_dataset_names_are_the_apis_else_those_in_experiments_else_the_id(tmp_path: Path) -> None:
    said = [
        *('{"metadata": "dataset_name"}', '{"metadata": {"dataset_name": "early"}}'),
        *('{"metadata": {"dataset_name": "said\\u0007"}}', '{"metadata": {"dataset_name": ["no", "text"]}}'),
        '{"metadata": {"dataset_name": 7, "n": -0}}',
    ]
    rows = [
        *(experiment(n, reference_dataset_id=dataset(1), extra=extra) for n, extra in enumerate(said, 1)),
        experiment(6, reference_dataset_id=dataset(2), extra='{"metadata": {"dataset_name": "before"}}'),
        experiment(7, reference_dataset_id=dataset(3)),
        experiment(8, reference_dataset_id=dataset(4)),
    ]
    next_day = {"reference_dataset_id": dataset(2), "start_time": NOON + timedelta(days=1)}
    later = experiment(9, **next_day, extra='{"metadata": {"dataset_name": "golden"}}')
    of_days = {FIRST: rows, DAYS[1]: [later]}
    root = tmp_path / "lake"
    fill(root)
    lake = Lake.open(str(root), query={})
    for day in (*DAYS, UNDATED):
        tables = {SESSIONS: sessions_table(*of_days.get(day, ()))}
        lake.replace(SESSIONS, day, tables[SESSIONS], {})
        costs = derive(DAILY_COST_BY_REFERENCE_DATASET, tables)
        lake.replace(DAILY_COST_BY_REFERENCE_DATASET, day, costs, {})
    given = [
        {"id": dataset(number), "tenant_id": TENANT, "name": name, "read_at": NOON}
        for number, name in ((2, "renamed"), (4, "renamed"), (5, "unused"), (1, " "))
    ]
    Path(lake.uri(REFERENCE_DATASETS, None)).unlink()
    with duckdb.connect() as connection:
        assert names_of(connection, root) == [
            (dataset(1), "said\x07", "said\x07"),
            (dataset(2), "golden", "golden"),
            (dataset(3), dataset(3), dataset(3)),
            (dataset(4), dataset(4), dataset(4)),
        ]
        daily = lake.read(DAILY_COST_BY_REFERENCE_DATASET, FIRST).to_pylist()
        in_python = {(TENANT, dataset(1)): "said\x07", (TENANT, dataset(2)): "golden"}
        assert dataset_names(lake, daily, DAYS) == in_python, "the latest experiment's, as in DuckDB"
        lake.replace(REFERENCE_DATASETS, None, table_of("reference_datasets", given), {})
        assert names_of(connection, root) == [
            (dataset(1), "said\x07", "said\x07"),
            (dataset(2), "renamed", f"renamed ({dataset(2)})"),
            (dataset(3), dataset(3), dataset(3)),
            (dataset(4), "renamed", f"renamed ({dataset(4)})"),
        ]


def rewrite() -> None:
    """Write the outputs of the recipes into the page, but for Spark's."""
    text = PAGE.read_text()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        fill(Path(folder) / "data" / "demo")
        for tool in ("In Python", "DuckDB", "Polars", "pandas", "PyArrow"):
            blocks, shown = recipe(snippets_of_heading("docs/reading.md", tool))
            for code, old, new in zip(blocks, shown, outputs(blocks), strict=True):
                before = f"```python\n{code}```\n\n```text\n"
                text = text.replace(f"{before}{old}```", f"{before}{new}```")
    PAGE.write_text(text)
