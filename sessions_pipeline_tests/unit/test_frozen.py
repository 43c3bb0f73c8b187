"""The tables equal those that the first version made from frozen payloads, except for a list of intended differences.

The payloads have oddities, several readings, deletions, stats that retention has emptied, and two workspaces.
"""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSION_FEEDBACK,
    SESSIONS,
)
from sessions_pipeline.tables.derived_day import DerivedDay, RunOptions
from sessions_pipeline.tables.period_costs import PERIODS, Period, sum_periods
from sessions_pipeline.tables.raw_sessions import merge
from sessions_pipeline.tables.readings import RawDay
from sessions_pipeline.tables.rows import Rows
from sessions_pipeline_tests.days import fetched

FROZEN = json.loads((Path(__file__).parents[1] / "frozen" / "days.json").read_text())
OPTIONS = RunOptions((), 1.0, (), None, None, datetime(2027, 6, 1, tzinfo=UTC))
ORDER = {
    SESSIONS: ("id",),
    REJECTED_SESSIONS: ("payload",),
    SESSION_FEEDBACK: ("session_id", "scope", "feedback_key"),
    EXPERIMENT_SUMMARY: ("id",),
    DAILY_COST_BY_REFERENCE_DATASET: ("tenant_id", "reference_dataset_id"),
}


def made(day: dict[str, Any], left_out: set[str]) -> tuple[DerivedDay, RawDay]:
    of_day = date.fromisoformat(day["day"]) if day["day"] else None
    raw = RawDay(of_day, Rows(RAW_SESSIONS.schema), [])
    for number, reading in enumerate(day["readings"]):
        payloads = [FROZEN["payloads"][place] for place in reading["records"]]
        texts = [text for text in payloads if text not in left_out]
        at = datetime.fromisoformat(reading["fetched_at"])
        version = str(number) if number else None
        read = fetched(*texts, at=at, workspace=reading["workspace"], day=of_day)
        raw = merge(raw._replace(version=version), [read._replace(version=version)])
    return DerivedDay(raw, OPTIONS), raw


def plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return [plain(part) for part in value]
    return {name: plain(part) for name, part in value.items()} if isinstance(value, dict) else value


def rows(table: pa.Table, columns: Sequence[str], order: Sequence[str]) -> list[list[Any]]:
    ordered = table.sort_by([(name, "ascending") for name in order]).select(columns)
    return [[plain(value) for value in row.values()] for row in ordered.to_pylist()]


# These states of four sessions have fewer runs than those before, although their traces are kept for 400 days. They
# are corrections: the first version undid them once the sessions were older.
CORRECTIONS = (35, 36, 42, 46, 51)
INTENDED = {FROZEN["payloads"][place] for place in (*FROZEN["intended"].values(), *CORRECTIONS)}


@pytest.mark.parametrize("day", FROZEN["days"], ids=lambda day: str(day["day"]))
def test_the_days_tables_equal_those_of_the_first_version(day: dict[str, Any]) -> None:
    tables, merged = made(day, INTENDED)
    for table, order in ORDER.items():
        expected = [row for row in day["expected"][table.name]["rows"] if INTENDED.isdisjoint(map(str, row))]
        assert rows(tables[table].table(), day["expected"][table.name]["columns"], order) == expected, table.name
    # A row's times are now those of the reading that first had its values. Rows emptied by retention are as before.
    sessions = tables.sessions.table().to_pylist()
    assert sorted(row["id"] for row in sessions if row["stats_as_of"] < row["fetched_at"]) == day["emptied"]
    assert sorted(tables.shrunk) == day["shrunk"]
    left_out = INTENDED & {FROZEN["payloads"][place] for reading in day["readings"] for place in reading["records"]}
    assert merged.rows.num_rows == day["raw_rows"] - len(left_out)


@pytest.mark.parametrize(("period", "name"), [*zip(PERIODS, ["weekly", "monthly"], strict=True)])
def test_the_periods_tables_equal_those_of_the_first_version(period: Period, name: str) -> None:
    parts, read = [], {}
    for day in FROZEN["days"]:
        if day["day"]:
            tables, _ = made(day, INTENDED)
            of_day = date.fromisoformat(day["day"])
            read[of_day] = tables.is_over
            costs = tables[DAILY_COST_BY_REFERENCE_DATASET].table()
            parts.append(costs.append_column("start_date", pa.array([of_day] * costs.num_rows, pa.date32())))
    summed = sum_periods(period, period.table.schema.empty_table(), pa.concat_tables(parts), read, read)
    assert rows(summed, FROZEN[name]["columns"], period.table.order) == FROZEN[name]["rows"]


def test_only_corrected_sessions_have_other_numbers() -> None:
    corrected = {json.loads(FROZEN["payloads"][place])["id"] for place in CORRECTIONS}
    day = next(day for day in FROZEN["days"] if day["day"] == "2026-01-10")
    columns = day["expected"][SESSIONS.name]["columns"]
    found = rows(made(day, set())[0].sessions.table(), columns, ORDER[SESSIONS])
    assert {row[0] for row in found if row not in day["expected"][SESSIONS.name]["rows"]} == corrected
    assert len(corrected) == 4


def test_only_these_records_are_validated_differently() -> None:
    """Money never rejects a record, and a name that is null counts as absent."""
    day = next(day for day in FROZEN["days"] if day["day"] == "2026-02-01")
    derived = made(day, set())[0]
    sessions = {row["id"]: row for row in derived.sessions.table().to_pylist()}
    found = {name: sessions[json.loads(FROZEN["payloads"][place])["id"]] for name, place in FROZEN["intended"].items()}
    assert found["negative"]["total_cost"] is None
    assert found["negative"]["problems"] == ["total_cost: is negative (-0.0012)"]
    assert found["digits"]["total_cost"] == Decimal("0.000012345678901235")
    assert found["text"]["prompt_cost"] is None
    assert found["null name"]["name"] is None
    assert INTENDED.isdisjoint(derived.rejected.table("payload").column(0).to_pylist())
