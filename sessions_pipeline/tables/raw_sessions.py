"""The API's records as received. This file is the day's only commit: all other tables can be derived from it again."""

from datetime import timedelta

from sessions_pipeline.tables import column
from sessions_pipeline.tables.table import CheckResult, DayTables, Table, check

# The schedule runs hourly: two missed runs are a hiccup, three are a fault.
FRESH_WITHIN = timedelta(hours=3)

IDENTITY = (
    column.text("session_id", "The record's `id` as sent; null if it is absent or not a string"),
    column.text("tenant_id", "The record's `tenant_id` as sent; null if it is absent or not a string", repeats=True),
    column.text("start_time", "The record's `start_time` as sent; null if it is absent or not a string"),
)

RAW_SESSIONS = Table(
    "raw_sessions",
    "The API's records as received, before validation: one row per session and change of its payload.",
    (
        *IDENTITY,
        column.text(
            "payload",
            "The record's JSON text, verbatim: spacing, escapes and number spellings as sent",
            nullable=False,
            long_text=True,
        ),
        column.count(
            "reading",
            "Number of the reading that first returned this payload; a day's readings are numbered in their order, "
            "whatever the clocks said",
            nullable=False,
            repeats=True,
        ),
        column.time("fetched_at", "When that reading began", nullable=False),
    ),
    order=("session_id", "reading", "payload"),
    sample=("session_id", "start_time", "payload"),
)


@check(
    RAW_SESSIONS,
    "Today and the lookback days were read within the last three hours.",
    "Costs of these days may be too low; check that the schedule hourly_refresh is running.",
    reads={},
    severity="warn",
    days="recent",
)
def recent_days_are_fresh(day: DayTables) -> CheckResult:
    """Looks at the latest reading, including one that brought nothing new."""
    if not day.last_readings:
        return CheckResult((f"{day.day}: was never read",))
    read_at = day.last_readings[-1].fetched_at
    stale = day.now - read_at > FRESH_WITHIN
    return CheckResult((f"{day.day}: was read at {read_at:%Y-%m-%d %H:%M} UTC",) if stale else ())
