"""The lake's tables: what they hold, how they are made and what they promise."""

from sessions_pipeline.tables.columns import (
    DAILY_COST_BY_PROJECT,
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    MONTHLY_COST_BY_REFERENCE_DATASET,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSION_FEEDBACK,
    SESSIONS,
    TABLES,
    WEEKLY_COST_BY_REFERENCE_DATASET,
    Column,
    Table,
)

__all__ = [
    "DAILY_COST_BY_PROJECT",
    "DAILY_COST_BY_REFERENCE_DATASET",
    "EXPERIMENT_SUMMARY",
    "MONTHLY_COST_BY_REFERENCE_DATASET",
    "RAW_SESSIONS",
    "REJECTED_SESSIONS",
    "SESSIONS",
    "SESSION_FEEDBACK",
    "TABLES",
    "WEEKLY_COST_BY_REFERENCE_DATASET",
    "Column",
    "Table",
]
