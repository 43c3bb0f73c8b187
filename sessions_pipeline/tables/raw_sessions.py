"""What the API said of a day, before any judgement: the day's only commit, from which all else can be made again."""

from sessions_pipeline.tables.table import Table, count, registered, text, time

RAW_SESSIONS = registered(
    Table(
        "raw_sessions",
        "What the API said, before any judgement: one row per session and differing reading.",
        (
            text("session_id", "The record's `id` as sent, if it has one that is text"),
            text("tenant_id", "The record's `tenant_id` as sent, if it has one that is text", repeats=True),
            text("start_time", "The record's `start_time` as sent, if it has one that is text"),
            text(
                "payload",
                "The record's JSON text, verbatim: spacing, escapes and number spellings as sent",
                nullable=False,
                long_text=True,
            ),
            count(
                "reading",
                "The reading that first gave this payload; readings of a day count up in their order, whatever any "
                "clock said",
                nullable=False,
                repeats=True,
            ),
            time("fetched_at", "When that reading began", nullable=False),
        ),
        order=("session_id", "reading", "payload"),
        sample=("session_id", "start_time", "payload"),
    )
)
