"""Runs at the same time: what one has stored is never undone by another that has read less."""

from collections.abc import Callable

import dagster as dg
import pytest

from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.store import Opened, store_at
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables.period_costs import PERIODS, Period
from sessions_pipeline_tests.faulty_server import running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    FIRST,
    NOW,
    TODAY,
    DataRoot,
    PipelineWithShortWindow,
    execute,
    files,
    lake_at,
    read,
    run_days,
    settings_for,
    some_records,
)
from sessions_pipeline_tests.lake_rows import CountingStore


class Overtaken(CountingStore):
    """A store that lets another run come first when a file is opened: before (`"before"`) or after it was opened."""

    def __init__(self, root: DataRoot, key: str, moment: str, other: Callable[[], object]) -> None:
        super().__init__(store_at(str(root)))
        self.key, self.moment, self.others = key, moment, [other]

    def open(self, key: str, *, whole: bool) -> Opened:
        now = key.startswith(self.key) and whole and self.others
        if now and self.moment == "before":
            self.others.pop()()
        opened = super().open(key, whole=whole)
        if now and self.moment == "after":
            self.others.pop()()
        return opened


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("period", PERIODS, ids=lambda period: period.unit)
def test_weeks_and_months_are_the_sums_of_the_newest_days_when_another_run_is_quicker(
    data_root: DataRoot, moment: str, period: Period
) -> None:
    with running_sandbox(texts=some_records(60), now=NOW) as sandbox:

        def refresh(price: str) -> None:
            sandbox.api.data.texts = some_records(60, total_cost=price)  # type: ignore[attr-defined]
            read(sandbox, data_root)

        class Slower(PipelineWithShortWindow):
            def open_lake(self, *, read_only: bool = False) -> Lake:
                store = Overtaken(data_root, period.table.name, moment, lambda: refresh("3"))
                return Lake.open(store, query={}, read_only=read_only)

        refresh("1")
        sandbox.api.data.texts = some_records(60, total_cost="2")  # type: ignore[attr-defined]
        settings = settings_for(sandbox.url, data_root)
        with dg.DagsterInstance.ephemeral() as instance:
            execute(Slower(settings), FIRST, TODAY, instance=instance)
        lake = lake_at(data_root)
        days = lake.read_days(DAILY, lake.days(DAILY)).column("total_cost").to_pylist()
        assert sum(days) == 60 * 3
        for kind in PERIODS:
            assert sum(lake.read(kind.table, None).column("total_cost").to_pylist()) == sum(days)
        before = files(data_root)
        run_days(settings, FIRST, TODAY, select=" or ".join(f'key:"{kind.table.name}"' for kind in PERIODS))
        assert files(data_root) == before
