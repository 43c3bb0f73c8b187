from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_pipeline.days import EPOCH, microseconds
from sessions_pipeline.validation.types import parse_timestamp

_OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_INSIDE = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001


@given(_INSIDE, _OFFSETS)
def test_an_offset_is_converted_to_utc(local: datetime, offset: timezone) -> None:
    moment = local.replace(tzinfo=offset)
    assert parse_timestamp(moment.isoformat()) == moment
    assert parse_timestamp(moment.isoformat()).tzinfo is UTC


@given(_INSIDE)
def test_no_offset_means_utc(moment: datetime) -> None:
    assert parse_timestamp(moment.isoformat()) == moment.replace(tzinfo=UTC)


@given(_INSIDE, st.text("0123456789", max_size=30))
def test_digits_beyond_microseconds_are_cut(moment: datetime, digits: str) -> None:
    text = moment.isoformat(timespec="microseconds") + digits + "Z"
    assert parse_timestamp(text) == moment.replace(tzinfo=UTC)


@given(_INSIDE)
def test_microseconds_are_exact(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    assert EPOCH + timedelta(microseconds=microseconds(aware)) == aware


@given(st.text(max_size=40))
def test_a_text_that_is_not_a_date_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_timestamp(text)
