"""The daily costs summed by calendar month."""

import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.daily_cost_by_reference_dataset import DAILY_COST_BY_REFERENCE_DATASET, PERIOD_COLUMNS
from sessions_pipeline.tables.table import Table

MONTHLY_COST_BY_REFERENCE_DATASET = Table(
    "monthly_cost_by_reference_dataset",
    "The daily costs summed by calendar month; a month with an unread day says so.",
    (column.Column("month_start", pa.date32(), "The first day of the month", nullable=False), *PERIOD_COLUMNS),
    order=("month_start", *DAILY_COST_BY_REFERENCE_DATASET.order),
    partition=None,
    group="costs",
)
