"""The daily costs summed by calendar month."""

import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.daily_cost_by_reference_dataset import DAILY_MEASURES
from sessions_pipeline.tables.table import Table

MONTHLY_COST_BY_REFERENCE_DATASET = Table(
    "monthly_cost_by_reference_dataset",
    "The daily costs summed by calendar month; a month with an unread day says so.",
    (
        column.Column("month_start", pa.date32(), "The first day of the month", nullable=False),
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        *DAILY_MEASURES,
        column.count("day_count", "Days of the month that were read", nullable=False),
        column.flag("is_complete", "Whether every day of the month was read, and is over"),
    ),
    order=("month_start", "tenant_id", "reference_dataset_id"),
    partition=None,
    group="costs",
)
