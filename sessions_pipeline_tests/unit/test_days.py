"""When a UTC day begins and ends, to the microsecond, and for how many days usage can be measured."""

from datetime import UTC, date, datetime, timedelta

import pytest

from sessions_pipeline.days import day_of_us, day_start_us, is_day_over, microseconds, midnight, next_month_start
from sessions_pipeline.measurements import measurable_days
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.settings import Settings

DAY = date(2026, 3, 1)
MICROSECOND = timedelta(microseconds=1)


@pytest.mark.parametrize("day", [DAY, date(1969, 12, 31), date(1970, 1, 1), date(2024, 2, 29), date(1, 1, 1)])
def test_midnight_belongs_to_the_day_that_it_begins(day: date) -> None:
    start = day_start_us(day)
    assert start == microseconds(midnight(day))
    assert day_of_us(start) == day_of_us(start + 86_400_000_000 - 1) == day
    assert day_of_us(start + 86_400_000_000) == day + timedelta(days=1)


def test_a_day_is_over_at_the_next_midnight_and_not_before() -> None:
    end = datetime(2026, 3, 2, tzinfo=UTC)
    assert is_day_over(DAY, end)
    assert not is_day_over(DAY, end - MICROSECOND)


def test_usage_can_be_measured_for_exactly_31_days_from_the_days_beginning() -> None:
    last, settings = midnight(DAY) + timedelta(days=31), Settings(SESSIONS_PIPELINE_START_DATE=DAY)
    assert measurable_days(Pipeline(settings, clock=lambda: last))[0] == DAY
    assert measurable_days(Pipeline(settings, clock=lambda: last + MICROSECOND))[0] == DAY + timedelta(days=1)


@pytest.mark.parametrize(
    ("day", "following"), [(date(2026, 1, 31), date(2026, 2, 1)), (date(2026, 12, 1), date(2027, 1, 1))]
)
def test_the_next_month_begins_after_the_last_day_of_any_month(day: date, following: date) -> None:
    assert next_month_start(day) == following
