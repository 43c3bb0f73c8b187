"""Measures Dagster's share of a run: records the product's events for eight daily tables, and does nothing else.

    python benchmarks/dagster_share.py stock|ours DAYS...

Needs a DAGSTER_HOME without history; for `stock`, it removes the `storage` lines from `dagster.yaml`. Prints JSON.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from sessions_pipeline.orchestration import STORAGE
from sessions_pipeline.orchestration.event_storage import batch_events

TABLES = tuple(f"table_{number}" for number in range(8))
FIRST = date(2023, 1, 1)
ENTRIES = {f"number_{number}": number for number in range(12)}
started: dict[str, float] = {}
warnings.simplefilter("ignore", dg.BetaWarning)


@dg.multi_asset(
    specs=[
        dg.AssetSpec(table, partitions_def=dg.DailyPartitionsDefinition(str(FIRST)), skippable=True) for table in TABLES
    ],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def daily_tables(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    started["body"] = time.perf_counter()
    for day in context.partition_keys:
        with batch_events(context.instance):
            for table in TABLES:
                context.log_event(dg.AssetMaterialization(table, partition=day, metadata=ENTRIES))
    yield from ()


def main() -> None:
    which, *lengths = sys.argv[1:]
    if which == "stock":
        file = Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml"
        file.write_text(file.read_text().replace(STORAGE, ""))
    definitions = dg.Definitions(assets=[daily_tables], executor=dg.in_process_executor)
    job = definitions.resolve_implicit_global_asset_job_def()
    rows = []
    with dg.DagsterInstance.get() as instance:
        for days in map(int, lengths):
            begun, used = time.perf_counter(), time.process_time()
            job.execute_in_process(
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": str(FIRST),
                    "dagster/asset_partition_range_end": str(FIRST + timedelta(days=days - 1)),
                },
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            rows.append(
                {
                    "days": days,
                    "wall": time.perf_counter() - begun,
                    "cpu": time.process_time() - used,
                    "before_the_asset": started["body"] - begun,
                }
            )
    print(json.dumps({"storage": which, "tables": len(TABLES), "runs": rows}))


if __name__ == "__main__":
    main()
