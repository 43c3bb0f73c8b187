"""Records that failed validation, nothing lost."""

import pyarrow as pa

from sessions_pipeline.tables.table import Column, Table, registered, text, time

REJECTED_SESSIONS = registered(
    Table(
        "rejected_sessions",
        "Records that failed validation, with every reason and the payload as sent. Nothing is lost.",
        (
            text("session_id", "The record's `id` as sent, if it has one that is text"),
            text("tenant_id", "The record's `tenant_id` as sent, if it has one that is text", repeats=True),
            text("start_time", "The record's `start_time` as sent, if it has one that is text"),
            Column(
                "reasons",
                pa.list_(pa.string()),
                "Every reason, as `field: what is wrong`",
                nullable=False,
                repeats=True,
                long_text=True,
            ),
            text("payload", "The record's JSON text, verbatim", nullable=False, long_text=True),
            time("fetched_at", "The reading that first brought the record", nullable=False),
        ),
        order=("session_id", "payload"),
        sample=("session_id", "reasons"),
    )
)
