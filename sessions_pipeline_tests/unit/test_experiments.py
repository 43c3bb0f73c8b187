"""Feedback by session and key, and the summary of experiments with their scores."""

import json
from datetime import timedelta
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_pipeline.tables import EXPERIMENT_SUMMARY, SESSION_FEEDBACK, SESSIONS
from sessions_pipeline_tests.builders import NOON, TENANT, dataset, experiment, session, sessions_table, uuid
from sessions_pipeline_tests.days import derive

LARGEST = Decimal("99999999999999999999.999999999999999999")
EXACT = Context(prec=60)


def session_feedback(sessions: pa.Table) -> pa.Table:
    return derive(SESSION_FEEDBACK, {SESSIONS: sessions})


def experiment_summary(sessions: pa.Table, feedback: pa.Table) -> pa.Table:
    return derive(EXPERIMENT_SUMMARY, {SESSIONS: sessions, SESSION_FEEDBACK: feedback})


def feedback_of(stats: str | None) -> list[dict[str, Any]]:
    return session_feedback(sessions_table(session(1, feedback_stats=stats))).to_pylist()


def summary_of(**columns: Any) -> dict[str, Any]:
    sessions = sessions_table(experiment(1, **columns))
    (row,) = experiment_summary(sessions, session_feedback(sessions)).to_pylist()
    return row


def test_feedback_has_one_row_per_session_scope_and_key_in_order() -> None:
    both = sessions_table(
        session(2, feedback_stats={"b": {"n": 1}, "a": {"n": 2}}),
        experiment(1, session_feedback_stats={"c": {"n": 3}}, feedback_stats={"z": {"n": 4}}),
    )
    rows = session_feedback(both).to_pylist()
    assert [(row["session_id"], row["scope"], row["feedback_key"], row["count"]) for row in rows] == [
        (uuid(1), "run", "z", 4),
        (uuid(1), "session", "c", 3),
        (uuid(2), "run", "a", 2),
        (uuid(2), "run", "b", 1),
    ]
    assert [(row["tenant_id"], row["reference_dataset_id"]) for row in rows[1:3]] == [
        (TENANT, dataset(1)),
        (TENANT, None),
    ]


def test_all_statistics_are_read_and_values_stay_as_sent() -> None:
    stats = '{"tone": {"n": 3, "avg": 0.5, "stdev": 0.25, "errors": 1, "values": {"good":  2,"bad" : 1.0}, "min": 0}}'
    (row,) = feedback_of(stats)
    assert (row["count"], row["average"], row["standard_deviation"], row["errors"]) == (3, 0.5, 0.25, 1)
    assert row["values"] == '{"good":  2,"bad" : 1.0}'


def test_the_statistics_of_the_official_clients_type_are_read() -> None:
    types = pytest.importorskip("langsmith.types.session_feedback_stat")
    stat = types.SessionFeedbackStat(
        contains_thread_feedback=False, errors=1, n=2, type="PRIMARY", values={"a": 2}, avg=0.5, stdev=0.1
    )
    (row,) = feedback_of(json.dumps({"k": stat.model_dump()}))
    assert (row["count"], row["average"], row["standard_deviation"], row["errors"], row["values"]) == (
        2,
        0.5,
        0.1,
        1,
        '{"a": 2}',
    )


@pytest.mark.parametrize("stats", [None, "{}"])
def test_a_session_without_statistics_has_no_rows(stats: str | None) -> None:
    assert feedback_of(stats) == []
    odd = session(2, feedback_stats='{"k": 7}')
    rows = session_feedback(sessions_table(session(1, feedback_stats=stats), odd)).to_pylist()
    assert [row["session_id"] for row in rows] == [uuid(2)]


@pytest.mark.parametrize("stat", ["null", "[]", "7", '"text"', "{}", '{"n": null}', '{"other": 1}'])
def test_a_key_without_usable_statistics_keeps_its_row(stat: str) -> None:
    (row,) = feedback_of(f'{{"k": {stat}}}')
    assert [row[name] for name in ("count", "average", "standard_deviation", "errors", "values")] == [None] * 5


@pytest.mark.parametrize(
    ("stat", "name", "value"),
    [
        ('"n": true', "count", None),
        ('"n": "3"', "count", None),
        ('"n": 3.0', "count", None),
        ('"n": 3.5', "count", None),
        ('"n": 9223372036854775807', "count", 2**63 - 1),
        ('"n": 9223372036854775808', "count", None),
        ('"n": 123456789012345678901234567890', "count", None),
        ('"avg": 1', "average", 1.0),
        ('"avg": "0.5"', "average", None),
        ('"avg": true', "average", None),
        ('"avg": 1e999', "average", None),
        ('"stdev": []', "standard_deviation", None),
        ('"errors": {}', "errors", None),
        ('"values": null', "values", None),
        ('"values": {}', "values", "{}"),
        ('"values": ["a"]', "values", '["a"]'),
    ],
)
def test_a_statistic_that_does_not_fit_its_column_is_null_and_all_others_are_kept(
    stat: str, name: str, value: object
) -> None:
    other = '"errors": 4' if name != "errors" else '"n": 4'
    (row,) = feedback_of(f'{{"k": {{{stat}, {other}}}}}')
    assert row[name] == value
    assert row["errors" if name != "errors" else "count"] == 4


def test_the_last_of_two_equal_keys_counts() -> None:
    (row,) = feedback_of('{"k": {"n": 1, "avg": 1}, "k": {"n": 2, "n": 3}}')
    assert (row["count"], row["average"]) == (3, None)


def test_odd_keys_are_kept() -> None:
    assert [row["feedback_key"] for row in feedback_of('{"": {}, "a\\u0000b": {}, "\\u00e4 \\ud83d\\ude00": {}}')] == [
        "",
        "a\0b",
        "ä 😀",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
STAT = JSON | st.dictionaries(st.sampled_from(["n", "avg", "stdev", "errors", "values"]), JSON)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), STAT))
def test_any_statistics_are_accepted_and_no_key_is_lost(stats: dict[str, Any]) -> None:
    rows = feedback_of(json.dumps(stats))
    assert [row["feedback_key"] for row in rows] == sorted(stats, key=str.encode)
    for row in rows:
        stat = stats[row["feedback_key"]]
        average = stat.get("avg") if isinstance(stat, dict) else None
        is_number = isinstance(average, int | float) and not isinstance(average, bool)
        assert row["average"] == (float(average) if is_number else None)


def test_tables_without_rows_have_their_schemas() -> None:
    none = session_feedback(sessions_table(session(1)))
    assert none.num_rows == 0
    assert none.schema.equals(SESSION_FEEDBACK.schema, check_metadata=True)
    summary = experiment_summary(sessions_table(session(1)), none)
    assert summary.num_rows == 0
    assert summary.schema.equals(EXPERIMENT_SUMMARY.schema, check_metadata=True)


def test_only_experiments_are_summarized_in_the_order_they_started() -> None:
    rows = [experiment(3, start_time=NOON), experiment(2, start_time=NOON), session(1), experiment(4, start_time=None)]
    sessions = sessions_table(*rows)
    summary = experiment_summary(sessions, session_feedback(sessions))
    assert summary.column("id").to_pylist() == [uuid(2), uuid(3), uuid(4)]


@pytest.mark.parametrize(
    ("columns", "seconds"),
    [
        ({"end_time": NOON + timedelta(microseconds=1500001)}, 1.500001),
        ({"end_time": NOON + timedelta(seconds=2), "last_run_start_time": NOON + timedelta(seconds=9)}, 2.0),
        ({"last_run_start_time": NOON + timedelta(seconds=9)}, 9.0),
        ({"end_time": NOON}, 0.0),
        ({"end_time": NOON - timedelta(microseconds=1)}, None),
        ({}, None),
        ({"start_time": None, "end_time": NOON}, None),
    ],
)
def test_duration_ends_at_the_end_time_or_else_at_the_latest_run(
    columns: dict[str, Any], seconds: float | None
) -> None:
    assert summary_of(**{"start_time": NOON, **columns})["duration_seconds"] == seconds


@pytest.mark.parametrize(
    ("cost", "runs", "expected"),
    [
        ("1", 3, "0.333333333333333333"),
        ("2", 3, "0.666666666666666667"),
        ("0.000000000000000001", 2, "0"),
        ("0.000000000000000003", 2, "0.000000000000000002"),
        ("0.000000000000000005", 2, "0.000000000000000002"),
        ("0", 5, "0"),
        ("0.000000000000000001", 2**63 - 1, "0"),
        (LARGEST, 1, LARGEST),
        ("1", 0, None),
        ("1", None, None),
        ("1", -1, None),
        (None, 5, None),
    ],
)
def test_cost_per_run_is_rounded_half_to_even(cost: str | None, runs: int | None, expected: str | None) -> None:
    found = summary_of(total_cost=cost, run_count=runs)["cost_per_run"]
    assert found == (None if expected is None else Decimal(expected))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10**38 - 1),
    st.integers(1, 2**63 - 1) | st.integers(1, 9) | st.sampled_from([2**k for k in range(63)]),
)
def test_cost_per_run_equals_exact_fractions(units: int, runs: int) -> None:
    cost = Decimal(units).scaleb(-18, context=EXACT)
    expected = round(Fraction(units, runs))  # Python rounds fractions half to even
    assert summary_of(total_cost=cost, run_count=runs)["cost_per_run"] == Decimal(expected).scaleb(-18, context=EXACT)


@pytest.mark.parametrize(
    ("progress", "share"),
    [
        ('{"expected_run_count": 4, "run_progress": 0.5, "evaluator_progress": {}}', 0.5),
        ('{"run_progress": 1, "more": [{}]}', 1.0),
        (None, None),
    ],
)
def test_run_progress_comes_from_the_experiments_progress(progress: str | None, share: float | None) -> None:
    assert summary_of(experiment_progress=progress)["run_progress"] == share


def test_scores_are_the_experiments_own_feedback_with_an_average() -> None:
    sessions = sessions_table(
        experiment(1, feedback_stats={"b": {"n": 2, "avg": 0.5}, "a": {"avg": 1}, "none": {"n": 1}}),
        experiment(2),
        experiment(3, feedback_stats={"a": {"n": 1, "avg": 0}}, session_feedback_stats={"a": {"n": 1, "avg": 0.25}}),
        session(4, feedback_stats={"a": {"n": 9, "avg": 9}}),
    )
    summary = experiment_summary(sessions, session_feedback(sessions))
    scores = [
        [(score["feedback_key"], score["scope"], score["average"], score["count"]) for score in row]
        for row in summary.column("scores").to_pylist()
    ]
    assert scores == [
        [("a", "run", 1.0, None), ("b", "run", 0.5, 2)],
        [],
        [("a", "run", 0.0, 1), ("a", "session", 0.25, 1)],
    ]


def test_other_columns_are_copied_from_the_session() -> None:
    columns = {"run_count": 3, "total_tokens": 5, "latency_p50": 0.5, "latency_p99": 1.5, "error_rate": 0.1}
    row = summary_of(**columns, name=None, total_cost="1.5")
    assert {name: row[name] for name in columns} == columns
    assert (row["name"], row["total_cost"], row["reference_dataset_id"]) == (None, Decimal("1.5"), dataset(1))
