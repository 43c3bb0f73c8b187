"""What experiments say about themselves: the metadata of their `extra`, one row per key."""

from sessions_pipeline.tables.table import EXPERIMENTS_DATASET, TENANT, Table, registered, text

SESSION_ATTRIBUTES = registered(
    Table(
        "session_attributes",
        "What experiments say about themselves: one row per session and key of `extra.metadata`.",
        (
            text("session_id", "The experiment, canonical UUID", nullable=False),
            TENANT,
            EXPERIMENTS_DATASET,
            text(
                "key",
                "The metadata's key; of nested objects the keys joined by dots, three levels",
                nullable=False,
                repeats=True,
            ),
            text(
                "value",
                "Its value: text, numbers as sent, true or false, arrays of these sorted and joined by commas; one of "
                "over 200 characters is cut to 191 with `…` and eight hex digits of its SHA-256",
                nullable=False,
                repeats=True,
            ),
        ),
        order=("session_id", "key"),
        group="insight",
    )
)
