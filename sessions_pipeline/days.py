"""UTC days, weeks, months and epochs. All conversions between times and days happen here."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = EPOCH.date()
DAY_US = 86_400_000_000
_MICROSECOND = timedelta(microseconds=1)


def now() -> datetime:
    """The current time, UTC."""
    return datetime.now(UTC)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970-01-01T00:00Z, exact."""
    return (moment - EPOCH) // _MICROSECOND


def day_start_us(day: date) -> int:
    """Microseconds from the epoch to the start of the UTC day."""
    return (day - _EPOCH_DAY).days * DAY_US


def day_of_us(start_us: int) -> date:
    """The UTC day that contains a time, given in microseconds from the epoch."""
    return _EPOCH_DAY + timedelta(days=start_us // DAY_US)


def utc_day(moment: datetime) -> date:
    """The UTC day of a moment."""
    return moment.astimezone(UTC).date()


def midnight(day: date) -> datetime:
    """The start of the UTC day."""
    return datetime.combine(day, time(), UTC)


def name_of(day: date | None) -> str:
    """The day's name in messages; None stands for the rows without a day."""
    return str(day or "rows without a day")


def is_day_over(day: date, at: datetime) -> bool:
    """Whether the UTC day had ended at a moment."""
    return at >= midnight(day + timedelta(days=1))


def days_between(first: date, last: date) -> list[date]:
    """All days from `first` to `last`, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def ranges(days: Iterable[date], apart: timedelta = timedelta(days=1)) -> list[tuple[date, date]]:
    """The first and last day of each stretch in which no day is more than `apart` after the one before, in order."""
    known = sorted(set(days))
    starts = [place for place, day in enumerate(known) if place == 0 or day - known[place - 1] > apart]
    return [(known[start], known[end - 1]) for start, end in zip(starts, [*starts[1:], len(known)], strict=False)]


def next_month_start(day: date) -> date:
    """The first day of the month after the day's."""
    return (day.replace(day=1) + timedelta(days=31)).replace(day=1)


def period_of(unit: str, day: date) -> tuple[date, date]:
    """The first and last day of the period that contains the day; `unit` is `day`, `week` (ISO) or `month`."""
    if unit == "month":
        return day.replace(day=1), next_month_start(day) - timedelta(days=1)
    if unit == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=6)
    return day, day


def month_days(day: date) -> tuple[list[date], list[date]]:
    """The days of a day's month up to that day, and all days of the month before."""
    start, _ = period_of("month", day)
    return days_between(start, day), days_between(*period_of("month", start - timedelta(days=1)))
