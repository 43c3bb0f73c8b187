import sys
from collections import Counter
from collections.abc import Sequence
from subprocess import run
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_pipeline.tables import SESSIONS
from sessions_pipeline.validation import batch
from sessions_pipeline.validation.batch import judge_batch
from sessions_pipeline.validation.verdict import Rejected, Valid, judge
from sessions_pipeline_tests.builders_corpus import CORPUS, Case, record
from sessions_pipeline_tests.strategies import records


def _assert_same_verdicts(payloads: Sequence[str]) -> None:
    judged = judge_batch(payloads)
    verdicts = [judge(payload) for payload in payloads]
    assert judged.rejected == {row: v.reasons for row, v in enumerate(verdicts) if isinstance(v, Rejected)}
    valid = {row: verdict for row, verdict in enumerate(verdicts) if isinstance(verdict, Valid)}
    assert judged.drift == Counter(name for verdict in valid.values() for name in verdict.drift)
    expected = [{**verdict.values, "row": row} for row, verdict in valid.items()]
    # As text, so that -0.0 differs from 0.0; times and decimals are equal in their own spelling already.
    assert [_spelt(row) for row in judged.sessions.to_pylist()] == [_spelt(row) for row in expected]


def _spelt(row: dict[str, Any]) -> dict[str, Any]:
    return {name: repr(value) if isinstance(value, float) else value for name, value in row.items()}


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_the_fast_path_agrees_with_the_verdict_on_every_edge(case: Case) -> None:
    _assert_same_verdicts([case.payload])


def test_the_edges_do_not_disturb_each_other_in_one_batch() -> None:
    _assert_same_verdicts([payload for case in CORPUS for payload in (record(), case.payload)])


@given(st.lists(records(), max_size=6))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_fast_path_agrees_with_the_verdict_on_any_records(payloads: list[str]) -> None:
    _assert_same_verdicts(payloads)


def test_more_unknown_names_than_are_learnt_change_nothing() -> None:
    _assert_same_verdicts([record({f"u{number}": "1", f"u{number + 1}": "[2]"}) for number in range(60)])


def test_rows_keep_their_order_and_place_over_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_CHUNK", 3)
    texts = [record(run_count=count) for count in ("1", "2.0", '"x"', "4", "5", "6.0", "7", "null", "true", "10")]
    judged = judge_batch(texts)
    assert judged.sessions.column("row").to_pylist() == [0, 1, 3, 4, 5, 6, 7, 9]
    assert judged.sessions.column("run_count").to_pylist() == [1, 2, 4, 5, 6, 7, None, 10]
    assert list(judged.rejected) == [2, 8]
    _assert_same_verdicts(texts)


@pytest.mark.parametrize("payloads", [[], ["7"], [record()], [record(), record(run_count="1.0")]])
def test_the_table_has_the_columns_of_sessions_and_the_row(payloads: list[str]) -> None:
    columns = [
        column for column in SESSIONS.columns if column.name not in ("fetched_at", "stats_as_of", "missing_since")
    ]
    schema = judge_batch(payloads).sessions.schema
    assert schema.names == [*(column.name for column in columns), "row"]
    assert schema.types == [*(column.type for column in columns), pa.int64()]
    assert judge_batch(payloads).sessions.combine_chunks().validate(full=True) is None


def test_plain_records_and_known_drift_never_need_the_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> Valid:
        raise AssertionError("a plain record took the slow path")

    monkeypatch.setattr(batch, "judge", refuse)
    plain = [
        record(),
        record(longlived_ttl_days="400"),
        record(total_cost="1.5e-05", prompt_cost="0.25", completion_cost='""'),
        record(start_time='"2025-06-01T10:00:00.123456789+02:00"', trace_tier='"xyz"'),
    ]
    assert judge_batch(plain).sessions.num_rows == len(plain)


def test_judging_does_not_import_pandas() -> None:
    code = (
        "import sys; from sessions_pipeline.validation.batch import judge_batch\n"
        f"judge_batch([{record()!r}, {record(run_count='1.0', total_cost='1e-5')!r}, '7'])\n"
        "sys.exit('pandas' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0
