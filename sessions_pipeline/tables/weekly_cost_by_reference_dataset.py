"""The daily costs summed by ISO week."""

import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.daily_cost_by_reference_dataset import DAILY_COST_BY_REFERENCE_DATASET, PERIOD_COLUMNS
from sessions_pipeline.tables.table import Table

WEEKLY_COST_BY_REFERENCE_DATASET = Table(
    "weekly_cost_by_reference_dataset",
    "The daily costs summed by ISO week; a week with an unread day says so.",
    (
        column.Column("week_start", pa.date32(), "The Monday that the ISO week starts on", nullable=False),
        *PERIOD_COLUMNS,
    ),
    order=("week_start", *DAILY_COST_BY_REFERENCE_DATASET.order),
    partition=None,
    group="costs",
)
