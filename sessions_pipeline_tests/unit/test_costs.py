"""Daily, weekly and monthly costs: exact sums of known costs, and whether all days of a period were read."""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_pipeline.days import midnight
from sessions_pipeline.errors import SumOverflowError
from sessions_pipeline.lake import Lake
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    MONTHLY_COST_BY_REFERENCE_DATASET,
    SESSIONS,
    WEEKLY_COST_BY_REFERENCE_DATASET,
)
from sessions_pipeline.tables.aggregate import sums
from sessions_pipeline.tables.daily_cost_by_reference_dataset import SUM_NAMES
from sessions_pipeline.tables.period_costs import PERIODS, Period, sum_periods
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline.weeks_and_months import refresh_periods
from sessions_pipeline_tests.builders import OTHER_TENANT, TENANT, dataset, experiment, on_day, session, sessions_table
from sessions_pipeline_tests.days import derive

MONDAY = date(2025, 3, 3)
LARGEST = "99999999999999999999.999999999999999999"
SMALLEST = "0.000000000000000001"
INT64_MAX = 2**63 - 1
# Prints the peak of what Arrow allocates while many groups are summed, as a multiple of the rows' size. In a process of
# its own, because a peak can't be reset.
MEASURE = """
import pyarrow as pa
from sessions_pipeline.tables.aggregate import sums
number = pa.array(range(100_000), pa.int64())
measures = {f"count {index}": number for index in range(8)} | {"cost": number.cast(pa.decimal128(38, 18))}
rows = pa.table({"key": number.cast(pa.string())} | measures)
before = pa.total_allocated_bytes()
sums(rows, ["key"], [*measures])
print((pa.default_memory_pool().max_memory() - before) / rows.nbytes)
"""


def daily_cost_by_reference_dataset(sessions: pa.Table, **day: Any) -> pa.Table:
    return derive(DAILY_COST_BY_REFERENCE_DATASET, {SESSIONS: sessions}, **day)


def whole(period: Period, daily: pa.Table, read: Collection[date], unfinished: Collection[date]) -> pa.Table:
    """The period's table, built without an earlier one. Days with rows count as read."""
    days = {*read, *daily.column("start_date").to_pylist()}
    return sum_periods(
        period, period.table.schema.empty_table(), daily, {day: day not in unfinished for day in days}, days
    )


def weekly_costs(daily: pa.Table, read: Collection[date], unfinished: Collection[date] = ()) -> pa.Table:
    return whole(PERIODS[0], daily, read, unfinished)


def monthly_costs(daily: pa.Table, read: Collection[date], unfinished: Collection[date] = ()) -> pa.Table:
    return whole(PERIODS[1], daily, read, unfinished)


def refresh_weeks(lake: Lake) -> None:
    refresh_periods(lake, PERIODS[0], lambda day, _version: lake.load(DAILY_COST_BY_REFERENCE_DATASET, day))


def costs_of(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return daily_cost_by_reference_dataset(sessions_table(*rows)).to_pylist()


def daily_of(*days_and_rows: tuple[date, Sequence[dict[str, Any]]]) -> pa.Table:
    by_day: dict[date, list[dict[str, Any]]] = defaultdict(list)
    for day, rows in days_and_rows:
        by_day[day] += rows
    days = [(day, daily_cost_by_reference_dataset(sessions_table(*rows))) for day, rows in sorted(by_day.items())]
    return pa.concat_tables(
        [on_day(MONDAY, daily_cost_by_reference_dataset(sessions_table())), *(on_day(*day) for day in days)]
    )


def test_only_experiments_count_and_rows_are_sorted_by_tenant_and_dataset() -> None:
    rows = costs_of(
        session(1, total_cost="5"),
        experiment(2, reference_dataset_id=dataset(2), tenant_id=OTHER_TENANT),
        experiment(3, reference_dataset_id=dataset(2)),
        experiment(4, reference_dataset_id=dataset(1), tenant_id=OTHER_TENANT),
    )
    assert [(row["tenant_id"], row["reference_dataset_id"], row["session_count"]) for row in rows] == [
        (TENANT, dataset(2), 1),
        (OTHER_TENANT, dataset(1), 1),
        (OTHER_TENANT, dataset(2), 1),
    ]


def test_a_day_without_sessions_has_no_rows_and_the_tables_schema() -> None:
    table = daily_cost_by_reference_dataset(sessions_table())
    assert table.num_rows == 0
    assert table.schema.equals(DAILY_COST_BY_REFERENCE_DATASET.schema, check_metadata=True)


def test_an_unknown_cost_is_null_and_never_zero() -> None:
    (row,) = costs_of(experiment(1), experiment(2))
    assert [row[name] for name in SUM_NAMES] == [None] * len(SUM_NAMES)
    assert (row["session_count"], row["priced_session_count"], row["unpriced_session_count"]) == (2, 0, 2)


def test_known_costs_are_summed_and_unknown_ones_are_counted() -> None:
    (row,) = costs_of(
        experiment(1, total_cost="1.5", total_tokens=10),
        experiment(2, total_cost=None, total_tokens=None),
        experiment(3, total_cost="0", prompt_cost="0"),
    )
    assert (row["total_cost"], row["total_tokens"]) == (Decimal("1.5"), 10)
    assert (row["prompt_cost"], row["completion_cost"]) == (Decimal(0), None)
    assert (row["priced_session_count"], row["unpriced_session_count"]) == (2, 1)


@pytest.mark.parametrize(
    ("columns", "counted"),
    [
        ({"total_cost": "0", "total_tokens": 1}, 1),
        ({"total_cost": "-0", "total_tokens": 1}, 1),
        ({"total_cost": "0", "prompt_tokens": 1}, 1),
        ({"total_cost": "0", "completion_tokens": 1, "total_tokens": 0}, 1),
        ({"total_cost": "0", "total_tokens": 0}, 0),
        ({"total_cost": "0", "total_tokens": None}, 0),
        ({"total_cost": SMALLEST, "total_tokens": 1}, 0),
        ({"total_cost": None, "total_tokens": 1}, 0),
    ],
)
def test_a_zero_cost_with_tokens_is_counted(columns: dict[str, Any], counted: int) -> None:
    (row,) = costs_of(experiment(1, **columns))
    assert row["zero_cost_with_tokens_count"] == counted


def test_a_sum_keeps_every_digit() -> None:
    (row,) = costs_of(
        experiment(1, total_cost="99999999999999999998.999999999999999998"), experiment(2, total_cost="1")
    )
    assert row["total_cost"] == Decimal("99999999999999999999.999999999999999998")


def test_a_cost_sum_that_overflows_is_an_error_that_names_it() -> None:
    with pytest.raises(SumOverflowError) as caught:
        costs_of(experiment(1, total_cost=LARGEST), experiment(2, total_cost=SMALLEST))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"total_cost of tenant_id {TENANT}, reference_dataset_id {dataset(1)} adds up to 1000000")


def test_a_count_sum_that_overflows_is_an_error_that_names_it() -> None:
    many = [experiment(1, total_tokens=INT64_MAX), experiment(2, total_tokens=1)]
    with pytest.raises(SumOverflowError, match=r"^total_tokens of tenant_id .* 9223372036854775808,"):
        daily_of((MONDAY, many))


def test_the_largest_sums_that_fit_their_columns_are_kept() -> None:
    (row,) = costs_of(
        experiment(1, total_cost=LARGEST, total_tokens=INT64_MAX), experiment(2, total_cost="0", total_tokens=0)
    )
    assert (row["total_cost"], row["total_tokens"]) == (Decimal(LARGEST), INT64_MAX)


SMALL_COST = st.none() | st.decimals(0, 1000, places=18) | st.sampled_from([Decimal("-0"), Decimal(SMALLEST)])
ANY_COST = SMALL_COST | st.decimals(0, Decimal(LARGEST), places=18) | st.just(Decimal(LARGEST))
SMALL_COUNT = st.none() | st.integers(0, 1000)
ANY_COUNT = SMALL_COUNT | st.integers(0, INT64_MAX) | st.just(INT64_MAX)
DAY = st.integers(0, 40).map(lambda number: MONDAY + timedelta(days=number))


def days_and_rows(cost: st.SearchStrategy[Any], count: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    row = st.fixed_dictionaries(
        {
            "tenant_id": st.sampled_from([TENANT, OTHER_TENANT]),
            "reference_dataset_id": st.none() | st.integers(1, 3).map(dataset),
            **{name: cost if name.endswith("_cost") else count for name in SUM_NAMES},
        }
    )
    return st.lists(st.tuples(DAY, row), min_size=1, max_size=30)


def independently(groups: dict[Any, list[dict[str, Any]]]) -> dict[Any, dict[str, Any]] | None:
    """The sums computed in plain Python, or None if one of them does not fit its column."""
    result = {}
    for key, rows in groups.items():
        sums: dict[str, Any] = {}
        for name in SUM_NAMES:
            known = [Fraction(row[name]) for row in rows if row[name] is not None]
            if sum(known) >= (10**20 if name.endswith("_cost") else 2**63):
                return None
            sums[name] = sum(known) if known else None
        sums["session_count"] = len(rows)
        sums["priced_session_count"] = sum(row["total_cost"] is not None for row in rows)
        sums["unpriced_session_count"] = sum(row["total_cost"] is None for row in rows)
        sums["zero_cost_with_tokens_count"] = sum(
            row["total_cost"] == 0 and any(row[name] for name in ("total_tokens", "prompt_tokens", "completion_tokens"))
            for row in rows
        )
        result[key] = sums
    return result


@settings(max_examples=50, deadline=None)
@given(days_and_rows(SMALL_COST, SMALL_COUNT) | days_and_rows(ANY_COST, ANY_COUNT), st.sets(DAY, max_size=45))
def test_days_weeks_and_months_equal_sums_made_in_python(
    rows: list[tuple[date, dict[str, Any]]], read: set[date]
) -> None:
    by_day = [(day, [session(number, **row)]) for number, (day, row) in enumerate(rows)]
    experiments = [(day, row) for day, row in rows if row["reference_dataset_id"]]

    def grouped(start: Any) -> dict[Any, list[dict[str, Any]]]:
        groups = defaultdict(list)
        for day, row in experiments:
            groups[start(day), row["tenant_id"], row["reference_dataset_id"]].append(row)
        return groups

    expected = independently(grouped(lambda day: day))
    if expected is None:
        with pytest.raises(SumOverflowError):
            daily_of(*by_day)
        return
    daily = daily_of(*by_day)
    assert_equal(daily, "start_date", expected)
    for table, start in (
        (weekly_costs, lambda day: day - timedelta(days=day.weekday())),
        (monthly_costs, lambda day: day.replace(day=1)),
    ):
        expected = independently(grouped(start))
        if expected is None:
            with pytest.raises(SumOverflowError):
                table(daily, read)
        else:
            assert_equal(table(daily, read), table.__name__.removesuffix("ly_costs") + "_start", expected)


def assert_equal(table: pa.Table, start: str, expected: dict[Any, dict[str, Any]]) -> None:
    rows = table.to_pylist()
    keys = [(row[start], row["tenant_id"], row["reference_dataset_id"]) for row in rows]
    assert keys == sorted(expected)
    for key, row in zip(keys, rows, strict=True):
        found = {name: row[name] for name in expected[key]}
        assert {name: None if value is None else Fraction(value) for name, value in found.items()} == expected[key]


def week(first: date, count: int) -> list[date]:
    return [first + timedelta(days=number) for number in range(count)]


def test_a_week_is_complete_when_all_seven_days_were_read_even_without_rows() -> None:
    daily = daily_of((MONDAY, [experiment(1, total_cost="1")]))
    (row,) = weekly_costs(daily, week(MONDAY, 7)).to_pylist()
    assert (row["week_start"], row["day_count"], row["is_complete"]) == (MONDAY, 7, True)


def test_a_week_with_an_unread_day_is_not_complete() -> None:
    daily = daily_of((MONDAY, [experiment(1, total_cost="1")]))
    (row,) = weekly_costs(daily, [day for day in week(MONDAY, 7) if day != date(2025, 3, 6)]).to_pylist()
    assert (row["day_count"], row["is_complete"]) == (6, False)


def test_a_week_with_a_day_that_was_read_before_it_was_over_is_not_complete() -> None:
    daily = daily_of((MONDAY, [experiment(1)]))
    (row,) = weekly_costs(daily, week(MONDAY, 7), unfinished=[MONDAY + timedelta(days=6)]).to_pylist()
    assert (row["day_count"], row["is_complete"]) == (7, False)


def test_a_week_with_a_day_on_which_a_workspace_was_not_read_is_not_complete(tmp_path: Path) -> None:
    lake, days = Lake.open(str(tmp_path), query={}), week(MONDAY, 7)
    rows = daily_cost_by_reference_dataset(sessions_table(experiment(1)))

    def is_complete(*tuesdays: str) -> list[bool]:
        for day in days:
            workspaces = tuesdays if day == days[1] else (TENANT, OTHER_TENANT)
            note = Reading(1, midnight(days[-1]), None, workspaces, 1, 0, 1)
            lake.replace(DAILY_COST_BY_REFERENCE_DATASET, day, rows, {"is_day_over": "true"})
            lake.write_file(f"_readings/start_date={day}.json", dump_readings([note]).encode())
        refresh_weeks(lake)
        found: list[bool] = lake.read(WEEKLY_COST_BY_REFERENCE_DATASET, None).column("is_complete").to_pylist()
        return found

    assert is_complete(TENANT) == [False]
    assert is_complete(TENANT, OTHER_TENANT) == [True]


def test_a_week_before_a_workspace_was_first_read_is_complete_whichever_weeks_are_summed_with_it(
    tmp_path: Path,
) -> None:
    lake, days = Lake.open(str(tmp_path), query={}), week(MONDAY, 14)
    rows = daily_cost_by_reference_dataset(sessions_table(experiment(1)))
    for day in days:
        note = Reading(1, midnight(days[-1]), None, (TENANT,) if day in days[:7] else (TENANT, OTHER_TENANT))
        lake.replace(DAILY_COST_BY_REFERENCE_DATASET, day, rows, {"is_day_over": "true"})
        lake.write_file(f"_readings/start_date={day}.json", dump_readings([note]).encode())
    refresh_weeks(lake)
    assert lake.read(WEEKLY_COST_BY_REFERENCE_DATASET, None).column("is_complete").to_pylist() == [True, True]


@pytest.mark.parametrize(("open_workspaces", "complete"), [((), [True, True]), ((OTHER_TENANT,), [False, False])])
def test_in_files_of_another_program_the_rows_decide_whether_a_week_is_complete(
    tmp_path: Path, open_workspaces: tuple[str, ...], complete: list[bool]
) -> None:
    lake, days = Lake.open(str(tmp_path), query={}), week(MONDAY, 7)
    sessions = sessions_table(experiment(1), experiment(2, tenant_id=OTHER_TENANT))
    rows = daily_cost_by_reference_dataset(sessions, open_workspaces=frozenset(open_workspaces))
    for day in days:
        lake.replace(DAILY_COST_BY_REFERENCE_DATASET, day, rows, {})
    refresh_weeks(lake)
    assert lake.read(WEEKLY_COST_BY_REFERENCE_DATASET, None).column("is_complete").to_pylist() == complete


def test_weeks_from_before_a_column_was_added_are_rebuilt_from_all_days(tmp_path: Path) -> None:
    lake, days = Lake.open(str(tmp_path), query={}), week(MONDAY, 14)
    for day in days:
        rows = daily_cost_by_reference_dataset(sessions_table(experiment(1, total_cost="1.5")))
        lake.replace(DAILY_COST_BY_REFERENCE_DATASET, day, rows, {})
    refresh_weeks(lake)
    made = lake.read(WEEKLY_COST_BY_REFERENCE_DATASET, None)
    file = lake.uri(WEEKLY_COST_BY_REFERENCE_DATASET, None)
    pq.write_table(pq.read_table(file).drop_columns(["completion_tokens"]), file)
    refresh_weeks(lake)
    assert lake.read(WEEKLY_COST_BY_REFERENCE_DATASET, None).equals(made)
    assert made.num_rows == 2


def test_days_of_other_weeks_do_not_count() -> None:
    sunday = MONDAY + timedelta(days=6)
    daily = daily_of((sunday, [experiment(1)]), (sunday + timedelta(days=1), [experiment(1)]))
    rows = weekly_costs(daily, week(MONDAY - timedelta(days=30), 37)).to_pylist()
    assert [(row["week_start"], row["day_count"]) for row in rows] == [(MONDAY, 7), (MONDAY + timedelta(days=7), 1)]


def test_iso_weeks_cross_the_year() -> None:
    daily = daily_of((date(2024, 12, 31), [experiment(1)]), (date(2025, 1, 1), [experiment(2)]))
    (row,) = weekly_costs(daily, []).to_pylist()
    assert (row["week_start"], row["session_count"], row["day_count"]) == (date(2024, 12, 30), 2, 2)


@pytest.mark.parametrize(("first", "days"), [(date(2024, 2, 1), 29), (date(2025, 2, 1), 28), (date(2025, 12, 1), 31)])
def test_a_month_is_complete_with_all_its_days(first: date, days: int) -> None:
    daily = daily_of((first, [experiment(1)]))
    (whole,) = monthly_costs(daily, week(first, days)).to_pylist()
    (short,) = monthly_costs(daily, week(first, days - 1)).to_pylist()
    assert (whole["month_start"], whole["day_count"], whole["is_complete"]) == (first, days, True)
    assert (short["day_count"], short["is_complete"]) == (days - 1, False)


def test_periods_without_rows_have_their_tables_schemas() -> None:
    none = daily_of((MONDAY, []))
    for rows, table in (
        (weekly_costs(none, [MONDAY]), WEEKLY_COST_BY_REFERENCE_DATASET),
        (monthly_costs(none, []), MONTHLY_COST_BY_REFERENCE_DATASET),
    ):
        assert rows.num_rows == 0
        assert rows.schema.equals(table.schema, check_metadata=True)


def test_the_rows_of_a_workspace_that_was_last_read_before_the_day_was_over_are_not_final() -> None:
    rows = [experiment(1), experiment(2, tenant_id=OTHER_TENANT)]
    daily = daily_cost_by_reference_dataset(sessions_table(*rows), open_workspaces=frozenset([OTHER_TENANT]))
    assert daily.column("is_day_over").to_pylist() == [True, False]
    weekly = weekly_costs(on_day(MONDAY, daily), week(MONDAY, 7))
    assert weekly.column("is_complete").to_pylist() == [True, False]


def test_only_the_periods_of_changed_days_are_rebuilt() -> None:
    next_monday = MONDAY + timedelta(days=7)
    first = daily_of((MONDAY, [experiment(1)]), (next_monday, [experiment(1, total_cost="1")]))
    stored = weekly_costs(first, [])
    changed = daily_of((next_monday, [experiment(1, total_cost="2"), experiment(2)]))
    again = sum_periods(PERIODS[0], stored, changed, {next_monday: True}, [next_monday])
    assert again.slice(0, 1).equals(stored.slice(0, 1))
    assert again.column("session_count").to_pylist() == [1, 2]
    assert again.column("total_cost").to_pylist() == [None, Decimal(2)]
    # A period that loses its last row disappears.
    none = sum_periods(PERIODS[0], again, daily_of(), {next_monday: True}, [next_monday])
    assert none.column("week_start").to_pylist() == [MONDAY]


@pytest.mark.parametrize(
    ("period", "touched", "first", "last"),
    [
        (PERIODS[0], [date(2025, 1, 1)], date(2024, 12, 30), date(2025, 1, 5)),
        (PERIODS[1], [date(2024, 2, 29)], date(2024, 2, 1), date(2024, 2, 29)),
        (PERIODS[1], [date(2025, 12, 31)], date(2025, 12, 1), date(2025, 12, 31)),
    ],
)
def test_rebuilding_a_period_needs_all_its_days(period: Period, touched: list[date], first: date, last: date) -> None:
    days = period.days(touched)
    assert (days[0], days[-1], len(days)) == (first, last, (last - first).days + 1)


def test_summing_a_large_day_by_an_attribute_of_many_values_takes_little_memory() -> None:
    """Under four times the rows here; thirteen times if all measures are widened at once."""
    run = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True)
    assert float(run.stdout) < 6


@pytest.mark.parametrize("groups", [3, 30_000])
def test_more_rows_than_fit_into_one_batch_have_the_same_sums(groups: int) -> None:
    count = 50_000
    keys = [[None, "a", "b"][row % 3] for row in range(count)], [f"{row * 7919 % groups}" for row in range(count)]
    values = [None if row % 5 == 0 else row for row in range(count)]
    found = sums(pa.table([*keys, pa.array(values, pa.int64())], ["one", "other", "m"]), ["one", "other"], ["m"])
    expected = defaultdict[tuple[str | None, str], list[int | None]](list)
    for one, other, value in zip(*keys, values, strict=True):
        expected[one, other].append(value)
    rows = [tuple(row.values()) for row in found.to_pylist()]
    assert rows == [
        (*key, sum(known) if (known := [value for value in group if value is not None]) else None, len(group))
        for key, group in sorted(expected.items(), key=lambda item: (item[0][0] or "c", item[0][1]))
    ]


def test_the_sum_of_a_boolean_is_the_number_of_true_values() -> None:
    rows = pa.table({"key": ["a", "a", "a", "b"], "flag": [True, False, True, False]})
    found = sums(rows, ["key"], ["flag"])
    assert found.schema.field("flag").type == pa.int64()
    assert found.to_pylist() == [{"key": "a", "flag": 2, "rows": 3}, {"key": "b", "flag": 0, "rows": 1}]
