"""Over real HTTP, while the list changes between pages, no session is lost or invented; and several workspaces."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sessions_pipeline.errors import PagingError, RefusedError
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.measurements import measure_usage
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.tables import (
    DAILY_COST_BY_PROJECT,
    DAILY_COST_BY_REFERENCE_DATASET,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSIONS,
)
from sessions_pipeline_tests.faulty_server import Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    DAYS,
    FIRST,
    NOW,
    TODAY,
    DataRoot,
    accounts,
    contents,
    failing_in_one_line,
    files,
    ids,
    lake_at,
    read,
    record,
    run_days,
    settings_for,
)

READING = "key:raw_sessions or key:sessions or key:rejected_sessions"
MANY = 10_000


class ChangingList:
    """A list that changes before each answer: sessions are inserted (some back-dated), deleted, and ties reordered."""

    def __init__(self, seed: int) -> None:
        self._choose = random.Random(seed)
        # Three sessions share each start time, in an order that changes.
        self._held: dict[int, tuple[datetime, float]] = {
            number: (NOW - timedelta(minutes=30 * (number // 3)), self._choose.random()) for number in range(500)
        }
        self.throughout = set(self._held)
        self.ever = set(self._held)

    def texts(self) -> list[str]:
        order = sorted(self._held.items(), key=lambda item: item[1], reverse=True)
        return [record(number, start) for number, (start, _) in order]

    def change(self) -> None:
        for _ in range(self._choose.randrange(3)):
            kind = self._choose.choice(("insert", "delete", "shuffle"))
            if kind == "insert":
                number = MANY + len(self.ever)
                self._held[number] = (NOW - timedelta(minutes=self._choose.randrange(6000)), self._choose.random())
                self.ever.add(number)
            elif kind == "delete":
                number = self._choose.choice(sorted(self._held))
                del self._held[number]
                self.throughout.discard(number)
            else:
                self._held = {number: (start, self._choose.random()) for number, (start, _) in self._held.items()}


def session_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def in_window(number: int) -> bool:
    return (NOW - timedelta(minutes=30 * (number // 3))).date() >= FIRST


def test_a_lake_that_tests_read_without_dagster_equals_that_of_a_run(tmp_path: Path) -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox:
        read(sandbox, tmp_path / "read", clock=lambda: NOW)
        run_days(settings_for(sandbox.url, tmp_path / "run"), FIRST, TODAY, clock=lambda: NOW)
    assert list(files(tmp_path / "read")) == list(files(tmp_path / "run"))
    assert contents(tmp_path / "read") == contents(tmp_path / "run")


@pytest.mark.parametrize(
    "seeds", [range(3), pytest.param(range(3, 103), marks=pytest.mark.long)], ids=["three", "hundred"]
)
def test_every_session_that_existed_throughout_is_read_once_and_every_record_is_accounted_for(
    seeds: Sequence[int], data_root: DataRoot
) -> None:
    changed, gave_up = 0, 0
    for seed in seeds:
        changing = ChangingList(seed)
        root = data_root / str(seed)
        with running_sandbox(texts=changing.texts(), now=NOW) as sandbox:
            change_before_every_second_answer(sandbox, changing)
            try:
                run_days(settings_for(sandbox.url, root, SESSIONS_PIPELINE_PAGE_SIZE=20), FIRST, TODAY, select=READING)
            except PagingError:  # the list changed faster than it could be read
                gave_up += 1
                continue
        found = ids(root)
        assert len(found) == len(set(found))
        assert {session_id(number) for number in changing.throughout if in_window(number)} <= set(found)
        assert set(found) <= {session_id(number) for number in changing.ever}
        for received, valid, rejected, repeated in accounts(root).values():
            assert received == valid + rejected + repeated
        changed += len(changing.ever) - 500
    # About one list in thirty can't be read: which answers a change overtakes depends on the timing of threads.
    assert gave_up <= max(2, len(seeds) // 10)
    assert changed > 10 * (len(seeds) - gave_up)


def change_before_every_second_answer(sandbox: Sandbox, changing: ChangingList) -> None:
    data: Any = sandbox.api.data

    def change(request: int) -> None:
        if request % 2:
            changing.change()
            data.texts = changing.texts()

    sandbox.api.before_answer = change


def test_a_session_on_two_pages_because_the_list_grew_is_counted_as_repeated(data_root: DataRoot) -> None:
    texts = [record(number, NOW - timedelta(minutes=number)) for number in range(60)]
    with running_sandbox(texts=texts, now=NOW) as sandbox:
        data: Any = sandbox.api.data
        new = iter(record(MANY + number, NOW + timedelta(minutes=number)) for number in range(MANY))
        # If the list grew by one session per page for ever, its end could not be proven.
        sandbox.api.before_answer = lambda request: data.texts.insert(0, next(new)) if request < 12 else None
        read(sandbox, data_root, SESSIONS_PIPELINE_PAGE_SIZE=10)
    received, valid, rejected, repeated = accounts(data_root)[TODAY]
    assert repeated > 0
    assert received == valid + rejected + repeated
    assert {session_id(number) for number in range(60)} <= set(ids(data_root))


def test_broken_and_undated_records_are_counted_on_their_day(data_root: DataRoot) -> None:
    texts = [
        record(1, None),
        record(2, None, run_count="many"),
        record(3, NOW),
        record(4, NOW - timedelta(minutes=1), run_count="many"),
        record(4, NOW - timedelta(minutes=1), run_count="many"),
        record(5, NOW - timedelta(days=1)),
    ]
    with running_sandbox(texts=texts, now=NOW) as sandbox:
        read(sandbox, data_root)
    counts = accounts(data_root)
    assert {day: (valid, rejected) for day, (_, valid, rejected, _) in counts.items()} == {
        FIRST: (0, 0),
        DAYS[1]: (1, 0),
        TODAY: (1, 1),
        UNDATED: (1, 1),
    }
    assert all(received == valid + rejected + repeated for received, valid, rejected, repeated in counts.values())
    assert counts[TODAY][3] >= 1


def test_two_workspaces_are_read_in_one_run_and_their_rows_are_distinguished(data_root: DataRoot) -> None:
    both = f"{WORKSPACE},{OTHER_WORKSPACE}"
    with running_sandbox(now=NOW, broken=False, is_drawn=True) as sandbox:
        read(sandbox, data_root / "both", LANGSMITH_WORKSPACE_ID=both)
        read(sandbox, data_root / "one", LANGSMITH_WORKSPACE_ID=WORKSPACE)
        read(sandbox, data_root / "other", LANGSMITH_WORKSPACE_ID=OTHER_WORKSPACE)
        asked = {request["workspace"] for request in sandbox.requests}
    assert asked == {WORKSPACE, OTHER_WORKSPACE}
    together, one, other = (contents(data_root / name) for name in ("both", "one", "other"))
    for table in (SESSIONS, DAILY_COST_BY_REFERENCE_DATASET):
        for day in map(str, DAYS):
            expected = [*one[table.name, day], *other[table.name, day]]
            assert sorted(map(str, together[table.name, day])) == sorted(map(str, expected))
            assert {row["tenant_id"] for row in other[table.name, day]} <= {OTHER_WORKSPACE}
    assert any(other[SESSIONS.name, str(day)] for day in DAYS)


def test_a_workspace_that_fails_is_named_and_no_day_is_written_without_it(data_root: DataRoot) -> None:
    both = f"{WORKSPACE},{OTHER_WORKSPACE}"
    with running_sandbox(now=NOW, is_drawn=True) as sandbox:
        read(sandbox, data_root, LANGSMITH_WORKSPACE_ID=both)
        before = files(data_root)
        sandbox.api.workspaces = (WORKSPACE,)
        with failing_in_one_line(RefusedError, f"Workspace {OTHER_WORKSPACE}: .*403"):
            read(sandbox, data_root, LANGSMITH_WORKSPACE_ID=both)
    assert files(data_root) == before


def test_a_workspace_whose_usage_fails_is_named_and_replaces_nothing(data_root: DataRoot) -> None:
    yesterday = TODAY - timedelta(days=1)
    with running_sandbox(now=NOW, is_drawn=True) as sandbox:
        both = {"LANGSMITH_WORKSPACE_ID": f"{WORKSPACE},{OTHER_WORKSPACE}", "SESSIONS_PIPELINE_START_DATE": yesterday}
        pipeline = Pipeline(settings_for(sandbox.url, data_root, **both), clock=lambda: NOW)
        measure_usage(pipeline, [yesterday, TODAY])
        before = files(data_root)
        held = set(lake_at(data_root).read(DAILY_COST_BY_PROJECT, yesterday).column("tenant_id").to_pylist())
        sandbox.api.workspaces = (WORKSPACE,)
        with failing_in_one_line(RefusedError, f"Workspace {OTHER_WORKSPACE}: .*403"):
            measure_usage(pipeline, [yesterday, TODAY])
    assert held == {WORKSPACE, OTHER_WORKSPACE}
    assert files(data_root) == before


def test_a_record_of_another_workspace_than_asked_is_rejected_with_that_reason(data_root: DataRoot) -> None:
    texts = [record(1, NOW), record(2, NOW, tenant_id=OTHER_WORKSPACE)]
    with running_sandbox(texts=texts, now=NOW) as sandbox:
        read(sandbox, data_root, LANGSMITH_WORKSPACE_ID=WORKSPACE)
    [rejected] = lake_at(data_root).read(REJECTED_SESSIONS, TODAY).to_pylist()
    assert rejected["reasons"] == [f"tenant_id: is not the workspace asked for ({WORKSPACE})"]
    assert ids(data_root) == [session_id(1)]
    assert accounts(data_root)[TODAY][1:3] == (1, 1)


def test_a_run_of_one_workspace_keeps_the_rows_of_another(data_root: DataRoot) -> None:
    with running_sandbox(now=NOW, broken=False, is_drawn=True) as sandbox:
        read(sandbox, data_root, LANGSMITH_WORKSPACE_ID=f"{WORKSPACE},{OTHER_WORKSPACE}")
        before = contents(data_root)
        read(sandbox, data_root, LANGSMITH_WORKSPACE_ID=WORKSPACE)
    assert contents(data_root) == before
    raw = lake_at(data_root).read(RAW_SESSIONS, DAYS[1])
    assert set(raw.column("tenant_id").to_pylist()) == {WORKSPACE, OTHER_WORKSPACE}
