"""The daily costs summed by ISO week."""

import pyarrow as pa

from sessions_pipeline.tables.daily_cost_by_reference_dataset import DAILY_MEASURES
from sessions_pipeline.tables.table import EXPERIMENTS_DATASET, TENANT, Column, Table, count, flag, registered

WEEKLY_COST_BY_REFERENCE_DATASET = registered(
    Table(
        "weekly_cost_by_reference_dataset",
        "The daily costs summed by ISO week; a week with an unread day says so.",
        (
            Column("week_start", pa.date32(), "The Monday that the ISO week starts on", nullable=False),
            TENANT,
            EXPERIMENTS_DATASET,
            *DAILY_MEASURES,
            count("day_count", "Days of the week that were read", nullable=False),
            flag("is_complete", "Whether every day of the week was read, and is over"),
        ),
        order=("week_start", "tenant_id", "reference_dataset_id"),
        partition=None,
        group="costs",
    )
)
