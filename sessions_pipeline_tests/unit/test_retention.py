"""Forgetting superseded readings moves no number: not now, and not as of any time since."""

from datetime import timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_pipeline.tables.history import judge_day
from sessions_pipeline.tables.readings import Reading, merge_reading
from sessions_pipeline.tables.retention import without_superseded
from sessions_pipeline.validation.records import Columns, read_page
from sessions_pipeline_tests.builders import NOON, payload

# What a reading may say of a session: its runs, None where it is absent, or a text where it is broken.
SAID = st.one_of(st.none(), st.integers(0, 4), st.just("many"))


def read_again(said: list[list[Any]], days_between: int = 8) -> tuple[pa.Table, list[Reading]]:
    """The raw rows and readings of a day that was read once a week: what each reading said of sessions 1, 2, 3 …"""
    raw: pa.Table | None = None
    readings: list[Reading] = []
    for number, runs in enumerate(said):
        texts = [payload(index, run_count=run) for index, run in enumerate(runs) if run is not None]
        records = Columns.of(read_page(f"[{','.join(texts)}]".encode()))
        raw, readings = merge_reading(
            raw,
            readings,
            records,
            asked=None,
            fetched_at=NOON + timedelta(days=days_between * number, hours=1),
            received=len(texts),
            requests=1,
        )
    assert raw is not None
    return raw, readings


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(SAID, min_size=2, max_size=2), min_size=1, max_size=7), st.integers(0, 60))
def test_the_day_stays_the_same_now_and_as_of_any_time_since(said: list[list[Any]], cut: int) -> None:
    raw, readings = read_again(said)
    before = NOON + timedelta(days=cut)
    left = without_superseded(raw, readings, before=before)
    for as_of in [None, before, *(reading.fetched_at for reading in readings if reading.fetched_at >= before)]:
        if as_of is not None and as_of < readings[0].fetched_at:
            continue
        full, pruned = judge_day(raw, readings, as_of=as_of), judge_day(left, readings, as_of=as_of)
        assert pruned.sessions.sort_by("id").equals(full.sessions.sort_by("id"))
        assert pruned.rejected.num_rows == full.rejected.num_rows
        assert sorted(pruned.shrunk) == sorted(full.shrunk)


def test_versions_that_nothing_rests_on_go_and_the_fullest_and_the_newest_stay() -> None:
    raw, readings = read_again([[1], [2], [5], [3], [4], [0]])
    left = without_superseded(raw, readings, before=NOON + timedelta(days=365))
    assert runs_in(left) == [5, 3, 4, 0]
    assert runs_in(without_superseded(raw, readings, before=NOON)) == [1, 2, 5, 3, 4, 0]


def test_a_version_that_was_replaced_after_the_cut_stays() -> None:
    raw, readings = read_again([[1], [2], [3]])
    assert runs_in(without_superseded(raw, readings, before=NOON + timedelta(days=10))) == [2, 3]


def test_forgetting_twice_is_forgetting_once() -> None:
    raw, readings = read_again([[1], [2], [5], [3], [4], [0]])
    cut = NOON + timedelta(days=30)
    once = without_superseded(raw, readings, before=cut)
    assert without_superseded(once, readings, before=cut).equals(once)


def test_nothing_read_is_nothing_to_forget() -> None:
    raw, readings = read_again([[None]])
    assert without_superseded(raw, readings, before=NOON + timedelta(days=365)).num_rows == 0


def runs_in(raw: pa.Table) -> list[int]:
    rows = sorted(raw.to_pylist(), key=lambda row: row["fetched_at"])
    return [int(row["payload"].rpartition(":")[2].strip(" }")) for row in rows]
