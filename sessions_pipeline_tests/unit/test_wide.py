"""A wide backfill cut into runs: nothing is left out or read twice, and runs that go side by side keep apart."""

from collections import Counter
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_pipeline.days import days_between
from sessions_pipeline.errors import UsageError
from sessions_pipeline.orchestration.partitions import tagged_range
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.wide import BACKFILL, WORKSPACE, Part, months, parts
from sessions_pipeline.settings import Settings

ONE, OTHER = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"

ranges = st.tuples(st.dates(date(2024, 1, 1), date(2026, 12, 31)), st.integers(0, 500)).map(
    lambda drawn: (drawn[0], drawn[0] + timedelta(days=drawn[1]))
)
workspaces = st.integers(0, 7).map(lambda count: [f"workspace {number}" for number in range(count)])


@given(days=ranges, asked=workspaces)
def test_every_day_of_every_workspace_is_in_exactly_one_run(days: tuple[date, date], asked: list[str]) -> None:
    read = Counter((part.workspace, day) for part in parts(*days, asked) for day in days_between(part.first, part.last))
    assert read == Counter((workspace, day) for workspace in asked or [None] for day in days_between(*days))


@given(days=ranges, asked=workspaces.filter(lambda some: len(some) > 1))
def test_neighbours_ask_different_workspaces_while_one_round_of_months_lasts(
    days: tuple[date, date], asked: list[str]
) -> None:
    count = len(months(*days))
    wanted = parts(*days, asked)
    for number, (one, other) in enumerate(pairwise(wanted), 1):
        assert one.workspace != other.workspace or number % count == 0


def test_a_year_of_fifty_workspaces_is_six_hundred_runs_newest_month_first() -> None:
    wanted = parts(date(2025, 1, 1), date(2025, 12, 31), [str(number) for number in range(50)])
    assert len(wanted) == 600
    assert wanted[:2] == [
        Part(date(2025, 12, 1), date(2025, 12, 31), "0"),
        Part(date(2025, 11, 1), date(2025, 11, 30), "1"),
    ]


def test_the_tags_say_which_days_and_workspace_and_which_backfill_it_was() -> None:
    part = Part(date(2025, 1, 1), date(2025, 1, 31), ONE)
    tags = part.tags("abc")
    assert tagged_range(tags) == (part.first, part.last)
    assert (tags[WORKSPACE], tags[BACKFILL]) == (ONE, "abc")
    assert WORKSPACE not in part._replace(workspace=None).tags("abc")


def test_a_pipeline_of_one_workspace_has_that_one_alone_and_a_foreign_one_is_refused() -> None:
    settings = Settings(_env_file=None, LANGSMITH_WORKSPACE_ID=f"{ONE},{OTHER}")
    pipeline = Pipeline(settings)
    assert pipeline.only(OTHER).settings.workspace_ids == (OTHER,)
    assert pipeline.only(None).settings.workspace_ids == (ONE, OTHER)
    with pytest.raises(UsageError, match="LANGSMITH_WORKSPACE_ID"):
        pipeline.only("00000000-0000-4000-8000-000000000003")
