"""A Dagster run of the pipeline's shape in which no asset does anything: what is left is Dagster's own.

    python benchmarks/noop_run.py DAYS

Runs in the product's environment. Three steps, six daily assets, for each asset and day the events that the pipeline
records, with as many metadata entries. Prints the seconds of each phase as JSON.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta

started = time.perf_counter()
import dagster as dg  # noqa: E402 - its import is what is timed

imported = time.perf_counter()
STEPS = {
    "read_sessions": ("raw_sessions", "sessions", "rejected_sessions"),
    "sum_daily_costs": ("daily_cost_by_reference_dataset",),
    "summarize_experiments": ("session_feedback", "experiment_summary"),
}
ENTRIES = 12
FIRST = date(2023, 1, 1)


def step(name: str, tables: tuple[str, ...], daily: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    """One multi-asset that only tells Dagster of its days."""
    deps = [] if name == "read_sessions" else ["sessions"]

    @dg.multi_asset(
        name=name,
        specs=[dg.AssetSpec(table, deps=deps, partitions_def=daily) for table in tables],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def nothing(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        told = {f"number_{entry}": entry for entry in range(ENTRIES)}
        for day in context.partition_keys:
            for table in tables:
                if name == "read_sessions":
                    context.log_event(dg.AssetMaterialization(table, partition=day, metadata=told))
                context.add_asset_metadata(told, asset_key=table, partition_key=day)
        for table in tables:
            yield dg.MaterializeResult(asset_key=table)

    return nothing


def main() -> None:
    days = int(sys.argv[1])
    phases = {"import dagster": imported - started}

    def phase(name: str, work: Callable[[], object]) -> object:
        begun = time.perf_counter()
        made = work()
        phases[name] = time.perf_counter() - begun
        return made

    daily = dg.DailyPartitionsDefinition(start_date=FIRST.isoformat(), end_offset=1)
    definitions = dg.Definitions(
        assets=[step(name, tables, daily) for name, tables in STEPS.items()], executor=dg.in_process_executor
    )
    job = phase("definitions", definitions.resolve_implicit_global_asset_job_def)
    instance = phase("instance", dg.DagsterInstance.ephemeral)
    assert isinstance(job, dg.JobDefinition)
    assert isinstance(instance, dg.DagsterInstance)
    tags = {
        "dagster/asset_partition_range_start": str(FIRST),
        "dagster/asset_partition_range_end": str(FIRST + timedelta(days=days - 1)),
    }
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    phase("run", lambda: job.execute_in_process(instance=instance, tags=tags, run_config=quiet))
    print(json.dumps(phases))


if __name__ == "__main__":
    main()
