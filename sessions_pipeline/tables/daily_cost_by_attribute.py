"""What experiments cost by what they say about themselves, such as their models or their git branch."""

from sessions_pipeline.tables.daily_cost_by_reference_dataset import DAILY_MEASURES
from sessions_pipeline.tables.table import EXPERIMENTS_DATASET, TENANT, Table, registered, text

DAILY_COST_BY_ATTRIBUTE = registered(
    Table(
        "daily_cost_by_attribute",
        "What experiments cost by an attribute's value, by the UTC day they started; for each attribute the rows of a "
        "dataset add up to its row of `daily_cost_by_reference_dataset`.",
        (
            TENANT,
            EXPERIMENTS_DATASET,
            text("attribute", "The key of `extra.metadata`", nullable=False, repeats=True),
            text("value", "The attribute's value; null where the experiments do not say", repeats=True),
            *DAILY_MEASURES,
        ),
        order=("tenant_id", "reference_dataset_id", "attribute", "value"),
        group="costs",
    )
)
