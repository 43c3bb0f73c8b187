"""The keys of the lake's files, and the days in them."""

from datetime import date

import pytest

from sessions_pipeline.lake.layout import UNDATED, day_of, key_of
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT, SESSIONS, WEEKLY_COST_BY_REFERENCE_DATASET

DAY = date(2025, 1, 31)


@pytest.mark.parametrize(
    ("table", "day", "key"),
    [
        (SESSIONS, DAY, "sessions/start_date=2025-01-31/sessions.parquet"),
        (SESSIONS, date(999, 1, 2), "sessions/start_date=0999-01-02/sessions.parquet"),
        (SESSIONS, UNDATED, "sessions/start_date=__HIVE_DEFAULT_PARTITION__/sessions.parquet"),
        (DAILY_COST_BY_PROJECT, DAY, "daily_cost_by_project/usage_date=2025-01-31/daily_cost_by_project.parquet"),
    ],
)
def test_a_key_names_its_day_and_the_day_can_be_read_from_it(table, day, key):
    assert key_of(table, day) == key
    assert day_of(table, key) == day


def test_a_table_without_partitions_is_one_file():
    table = WEEKLY_COST_BY_REFERENCE_DATASET
    assert key_of(table, None) == f"{table.name}/{table.name}.parquet"
    assert day_of(table, key_of(table, None)) is None


@pytest.mark.parametrize(
    "key",
    [
        "sessions/start_date=2025-01-31/other.parquet",
        "sessions/start_date=2025-01-31/deeper/sessions.parquet",
        "sessions/start_date=2025-13-31/sessions.parquet",
        "sessions/start_date=/sessions.parquet",
        "sessions/usage_date=2025-01-31/sessions.parquet",
        "sessions/start_date=20250131/sessions.parquet",
        "sessions/start_date=2025-W05-5/sessions.parquet",
        "sessions/start_date=2025-1-31/sessions.parquet",
        "sessions/README.md",
    ],
)
def test_other_files_in_a_tables_folder_are_not_days(key):
    assert day_of(SESSIONS, key) is None
