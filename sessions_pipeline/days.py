"""Days, weeks, months and epochs: the one place that turns times into UTC days and back."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby

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
    """Microseconds from the epoch to the UTC midnight that begins the day."""
    return (day - _EPOCH_DAY).days * DAY_US


def day_of_us(start_us: int) -> date:
    """The UTC day that holds a time, given in microseconds from the epoch."""
    return _EPOCH_DAY + timedelta(days=start_us // DAY_US)


def utc_day(moment: datetime) -> date:
    """The UTC day of a moment."""
    return moment.astimezone(UTC).date()


def midnight(day: date) -> datetime:
    """The UTC midnight that begins the day."""
    return datetime.combine(day, time(), UTC)


def name_of(day: date | None) -> str:
    """What errors call a day, or what has none."""
    return str(day or "rows without a day")


def is_day_over(day: date, at: datetime) -> bool:
    """Whether the UTC day had ended at a moment."""
    return at >= midnight(day + timedelta(days=1))


def days_between(first: date, last: date) -> list[date]:
    """All days from `first` to `last`, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def ranges(days: Iterable[date]) -> Iterator[tuple[date, date]]:
    """Stretches of adjoining days, each as its first and last, oldest first."""
    # Adjoining days are as far from their place in the order.
    for _, numbered in groupby(enumerate(sorted(set(days))), lambda one: one[1] - timedelta(days=one[0])):
        adjoining = [day for _, day in numbered]
        yield adjoining[0], adjoining[-1]


def week_start(day: date) -> date:
    """The Monday of the day's ISO week."""
    return day - timedelta(days=day.weekday())


def month_start(day: date) -> date:
    """The first day of the day's month."""
    return day.replace(day=1)


def next_month_start(day: date) -> date:
    """The first day of the month after the day's."""
    return (month_start(day) + timedelta(days=31)).replace(day=1)


def period_of(unit: str, day: date) -> tuple[date, date]:
    """The first and last day of the `day`, ISO `week` or `month` that a day is in."""
    if unit == "month":
        return month_start(day), next_month_start(day) - timedelta(days=1)
    first, length = (week_start(day), 7) if unit == "week" else (day, 1)
    return first, first + timedelta(days=length - 1)
