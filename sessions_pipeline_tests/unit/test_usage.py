"""The usage of each session on a day, computed from three readings of growing totals."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_pipeline.tables import DAILY_COST_BY_PROJECT
from sessions_pipeline.tables.column import MEASURES
from sessions_pipeline.tables.daily_cost_by_project import daily_cost_by_project
from sessions_pipeline_tests.builders import NOON, OTHER_TENANT, TENANT, dataset, session, sessions_table, uuid

Row = dict[str, Any]


def reading(number: int = 1, runs: int | None = None, cost: str | None = None, **columns: Any) -> Row:
    """A session with `runs` of ten tokens each. Its cost is all for prompts, unless columns say otherwise."""
    tokens = None if runs is None else 10 * runs
    stats = {"run_count": runs, "total_tokens": tokens, "total_cost": cost, "prompt_cost": cost}
    return session(number, **{**stats, "completion_cost": None if cost is None else "0", **columns})


def used(
    start: Sequence[Row], end: Sequence[Row], again: Sequence[Row] | None = None, *, over: bool = True
) -> list[Row]:
    readings = [sessions_table(*rows) for rows in (end, start, end if again is None else again)]
    day = NOON.date() - timedelta(days=over)
    return daily_cost_by_project(*readings, day=day, read_at=NOON).to_pylist()


def test_a_days_usage_is_the_usage_since_its_start_minus_that_since_its_end() -> None:
    (row,) = used([reading(1, 5, "0.5", reference_dataset_id=dataset(1))], [reading(1, 2, "0.2")])
    assert row == {
        "id": uuid(1),
        "tenant_id": TENANT,
        "name": "session 1",
        "reference_dataset_id": dataset(1),
        "run_count": 3,
        "total_tokens": 30,
        "prompt_cost": Decimal("0.3"),
        "completion_cost": Decimal(0),
        "total_cost": Decimal("0.3"),
        "is_exact": True,
        "read_at": NOON,
    }


def test_sessions_that_used_nothing_on_the_day_are_left_out() -> None:
    still, quiet, late = reading(1, 4, "1"), reading(2, 0, None), reading(3, 7, None)
    assert used([still, quiet, late], [still, quiet, late]) == []


@pytest.mark.parametrize("quiet", [reading(1, 0, None), reading(1, 0, "0"), reading(1, None, None)])
def test_a_reading_without_runs_used_nothing_even_if_its_stats_are_null(quiet: Row) -> None:
    (row,) = used([reading(1, 5, "0.5")], [quiet])
    assert (row["run_count"], row["total_tokens"], row["total_cost"], row["is_exact"]) == (5, 50, Decimal("0.5"), True)


def test_an_unknown_cost_on_either_side_is_unknown() -> None:
    (start_unknown,) = used([reading(1, 5, None)], [reading(1, 2, "0.2")])
    (end_unknown,) = used([reading(1, 5, "0.5")], [reading(1, 2, None)])
    for row in (start_unknown, end_unknown):
        assert (row["run_count"], row["total_cost"], row["is_exact"]) == (3, None, True)


def test_an_unknown_run_count_beside_known_tokens_is_unknown() -> None:
    (row,) = used([reading(1, 5, "0.5")], [reading(1, 2, "0.2", run_count=None)])
    assert (row["run_count"], row["total_tokens"]) == (None, 30)


def test_usage_that_changed_between_readings_is_not_exact() -> None:
    (row,) = used([reading(1, 5, "0.5")], [reading(1, 2, "0.2")], [reading(1, 3, "0.2")])
    assert (row["run_count"], row["is_exact"]) == (3, False)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_change_of_any_measure_between_readings_is_noticed(measure: str) -> None:
    end = {"run_count": 2, "total_tokens": 20, **dict.fromkeys(MEASURES[2:], "0.2")}
    moved = end | {measure: "0.3" if measure.endswith("cost") else 21}
    forgotten = end | {measure: None}
    for again in (moved, forgotten):
        (row,) = used([reading(1, 5, "0.5")], [session(1, **end)], [session(1, **again)])
        assert not row["is_exact"]


def test_a_day_that_is_not_over_is_not_exact() -> None:
    (row,) = used([reading(1, 5, "0.5")], [reading(1, 0)], over=False)
    assert (row["run_count"], row["is_exact"]) == (5, False)


def test_a_negative_difference_is_unknown_and_not_exact() -> None:
    (row,) = used([reading(1, 5, "0.1")], [reading(1, 2, "0.2")])
    assert (row["run_count"], row["total_cost"], row["is_exact"]) == (3, None, False)


def test_a_session_that_shrank_without_runs_is_kept() -> None:
    (row,) = used([reading(1, 2, "0.1")], [reading(1, 2, "0.2")])
    assert (row["run_count"], row["total_cost"], row["is_exact"]) == (0, None, False)


def test_a_session_missing_in_one_reading_of_the_end_is_taken_from_the_other() -> None:
    for end, again in (([], [reading(1, 2, "0.2")]), ([reading(1, 2, "0.2")], [])):
        (row,) = used([reading(1, 5, "0.5")], end, again)
        assert (row["run_count"], row["total_cost"], row["is_exact"]) == (3, Decimal("0.3"), False)


def test_a_session_missing_at_the_start_or_the_end_is_unknown() -> None:
    (no_end,) = used([reading(1, 5, "0.5", name="kept")], [])
    (no_start,) = used([], [reading(1, 5, "0.5", name="kept")])
    for row in (no_end, no_start):
        assert [row[name] for name in MEASURES] == [None] * 5
        assert (row["id"], row["name"], row["is_exact"]) == (uuid(1), "kept", False)


def test_the_same_id_in_two_workspaces_is_two_sessions_in_order() -> None:
    rows = [reading(1, 3, "1", tenant_id=OTHER_TENANT), reading(2, 1, "1"), reading(1, 2, "1")]
    found = used(rows, [dict(row, run_count=0) for row in rows])
    assert [(row["tenant_id"], row["id"], row["run_count"]) for row in found] == [
        (TENANT, uuid(1), 2),
        (TENANT, uuid(2), 1),
        (OTHER_TENANT, uuid(1), 3),
    ]


def test_no_sessions_give_the_tables_schema() -> None:
    none = sessions_table()
    table = daily_cost_by_project(none, none, none, day=NOON.date(), read_at=NOON)
    assert table.num_rows == 0
    assert table.schema.equals(DAILY_COST_BY_PROJECT.schema, check_metadata=True)


RUN = st.tuples(st.booleans(), st.none() | st.decimals(0, 100, places=18))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(RUN, max_size=6), max_size=6))
def test_the_usage_of_unchanging_sessions_equals_the_sums_of_their_runs(
    sessions: list[list[tuple[bool, Decimal | None]]],
) -> None:
    """Each run is on the day (True) or after it, and has a price or None. A reading sums the known prices."""

    def total(runs: list[tuple[bool, Decimal | None]]) -> dict[str, Any]:
        known = [cost for _, cost in runs if cost is not None]
        return {"run_count": len(runs), "total_cost": sum(known, Decimal(0)) if known else None}

    start = [session(number, **total(runs)) for number, runs in enumerate(sessions)]
    late = [[run for run in runs if not run[0]] for runs in sessions]
    found = {
        row["id"]: row for row in used(start, [session(number, **total(runs)) for number, runs in enumerate(late)])
    }
    for number, runs in enumerate(sessions):
        today = total([run for run in runs if run[0]])
        row = found.pop(uuid(number), None)
        if not today["run_count"]:
            assert row is None
            continue
        assert row is not None
        assert row["is_exact"]
        assert row["run_count"] == today["run_count"]
        has_unknown_end = bool(late[number]) and total(late[number])["total_cost"] is None
        has_unknown_start = total(runs)["total_cost"] is None
        if has_unknown_end or has_unknown_start:
            assert row["total_cost"] is None
        else:
            assert row["total_cost"] == (today["total_cost"] or 0)
    assert not found
