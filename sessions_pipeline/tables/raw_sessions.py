"""What the API said of a day, before any judgement: the day's only commit, from which all else can be made again."""

from datetime import timedelta

from sessions_pipeline.tables import column
from sessions_pipeline.tables.table import CheckResult, DayTables, Table, check

# The schedule runs hourly: two missed hours are a hiccup, three a fault.
FRESH_WITHIN = timedelta(hours=3)

IDENTITY = (
    column.text("session_id", "The record's `id` as sent, if it has one that is text"),
    column.text("tenant_id", "The record's `tenant_id` as sent, if it has one that is text", repeats=True),
    column.text("start_time", "The record's `start_time` as sent, if it has one that is text"),
)

RAW_SESSIONS = Table(
    "raw_sessions",
    "What the API said, before any judgement: one row per session and differing reading.",
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
            "The reading that first gave this payload; readings of a day count up in their order, whatever any "
            "clock said",
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
    "Today and the lookback days were read within three hours.",
    "Costs of these days may be too low; see whether the schedule hourly_refresh runs.",
    reads={},
    severity="warn",
    days="recent",
)
def recent_days_are_fresh(day: DayTables) -> CheckResult:
    """By the latest reading, also one that learned nothing."""
    if not day.last_read:
        return CheckResult((f"{day.day}: was never read",))
    read_at = day.last_read[-1].fetched_at
    stale = day.now - read_at > FRESH_WITHIN
    return CheckResult((f"{day.day}: was read at {read_at:%Y-%m-%d %H:%M} UTC",) if stale else ())
