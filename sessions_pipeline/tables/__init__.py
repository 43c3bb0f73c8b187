"""The lake's tables: their columns, transforms and checks. One file per table."""

# In the order in which a day's tables are made: a table comes after those it is made from.
# isort: off
from sessions_pipeline.tables.raw_sessions import RAW_SESSIONS as RAW_SESSIONS
from sessions_pipeline.tables.sessions import SESSIONS as SESSIONS
from sessions_pipeline.tables.rejected_sessions import REJECTED_SESSIONS as REJECTED_SESSIONS
from sessions_pipeline.tables.session_feedback import SESSION_FEEDBACK as SESSION_FEEDBACK
from sessions_pipeline.tables.experiment_summary import EXPERIMENT_SUMMARY as EXPERIMENT_SUMMARY
from sessions_pipeline.tables.session_attributes import SESSION_ATTRIBUTES as SESSION_ATTRIBUTES
from sessions_pipeline.tables.daily_cost_by_reference_dataset import (
    DAILY_COST_BY_REFERENCE_DATASET as DAILY_COST_BY_REFERENCE_DATASET,
)
from sessions_pipeline.tables.daily_cost_by_attribute import DAILY_COST_BY_ATTRIBUTE as DAILY_COST_BY_ATTRIBUTE
from sessions_pipeline.tables.period_costs import WEEKLY_COST_BY_REFERENCE_DATASET as WEEKLY_COST_BY_REFERENCE_DATASET
from sessions_pipeline.tables.period_costs import MONTHLY_COST_BY_REFERENCE_DATASET as MONTHLY_COST_BY_REFERENCE_DATASET
from sessions_pipeline.tables.reference_datasets import REFERENCE_DATASETS as REFERENCE_DATASETS
from sessions_pipeline.tables.daily_cost_by_project import DAILY_COST_BY_PROJECT as DAILY_COST_BY_PROJECT
from sessions_pipeline.tables.judge_cost_by_experiment import JUDGE_COST_BY_EXPERIMENT as JUDGE_COST_BY_EXPERIMENT

# isort: on
from sessions_pipeline.tables.table import CHECKS as CHECKS
from sessions_pipeline.tables.table import DERIVED as DERIVED
from sessions_pipeline.tables.table import CheckResult as CheckResult
from sessions_pipeline.tables.table import DayTables as DayTables
from sessions_pipeline.tables.table import Table as Table

# What the API returned at some time, so it can't be made again from other tables.
FROM_API = (RAW_SESSIONS, REFERENCE_DATASETS, DAILY_COST_BY_PROJECT, JUDGE_COST_BY_EXPERIMENT)
TABLES: tuple[Table, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Table))
"""All tables, in the order above."""
