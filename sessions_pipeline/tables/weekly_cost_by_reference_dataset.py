"""The daily costs summed by ISO week."""

import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.daily_cost_by_reference_dataset import DAILY_MEASURES
from sessions_pipeline.tables.table import Table

WEEKLY_COST_BY_REFERENCE_DATASET = Table(
    "weekly_cost_by_reference_dataset",
    "The daily costs summed by ISO week; a week with an unread day says so.",
    (
        column.Column("week_start", pa.date32(), "The Monday that the ISO week starts on", nullable=False),
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        *DAILY_MEASURES,
        column.count("day_count", "Days of the week that were read", nullable=False),
        column.flag("is_complete", "Whether every day of the week was read, and is over"),
    ),
    order=("week_start", "tenant_id", "reference_dataset_id"),
    partition=None,
    group="costs",
)
