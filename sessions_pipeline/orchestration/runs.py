"""One Dagster run in this process, as the command line has it."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import dagster as dg

from sessions_pipeline.errors import UsageError
from sessions_pipeline.orchestration.build import build_definitions
from sessions_pipeline.orchestration.home import STORAGE
from sessions_pipeline.orchestration.partitions import range_tags
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.report import REPORT
from sessions_pipeline.orchestration.schedules import REFRESH
from sessions_pipeline.tables import (
    DAILY_COST_BY_PROJECT,
    JUDGE_COST_BY_EXPERIMENT,
    RAW_SESSIONS,
    REFERENCE_DATASETS,
)

# What a rebuild from the stored readings leaves alone: it comes from the API, or describes the present.
_PRESENT = (RAW_SESSIONS, REFERENCE_DATASETS, DAILY_COST_BY_PROJECT, JUDGE_COST_BY_EXPERIMENT)
OF_THE_PRESENT = (*(table.name for table in _PRESENT), REPORT)
# Dagster's own log stays off the terminal; errors are told by the command line.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_days(
    pipeline: Pipeline, first: date, last: date, *, instance: dg.DagsterInstance, select: str | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize the days, both included: the assets of `refresh_sessions`, or those that `select` picks.

    Raises:
        SessionsPipelineError: what went wrong, in one line.
        KeyboardInterrupt: the run was interrupted.
    """
    repository = build_definitions(pipeline).get_repository_def()
    if select is None and pipeline.as_of is None:
        job, chosen = repository.get_job(REFRESH), None
    else:
        job = repository.get_implicit_global_asset_job_def()
        chosen = _selected(select or "*", job, without=OF_THE_PRESENT if pipeline.as_of else ())
    try:
        return job.execute_in_process(
            instance=instance, run_config=QUIET, tags=range_tags(first, last), asset_selection=chosen
        )
    except dg.DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None


@contextmanager
def temporary_instance() -> Iterator[dg.DagsterInstance]:
    """An instance in a folder that goes when the block ends, with the storage that the shipped `dagster.yaml` names."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "dagster.yaml").write_text(f"{STORAGE}telemetry: {{enabled: false}}\n")
        with dg.DagsterInstance.from_config(folder) as instance:
            yield instance


def _selected(select: str, job: dg.JobDefinition, *, without: Sequence[str]) -> list[dg.AssetKey]:
    try:
        # Dagster warns of its own parser's "*".
        selection = dg.AssetSelection.all() if select == "*" else dg.AssetSelection.from_string(select)
        keys = selection.resolve(job.asset_layer.asset_graph)
    except Exception as error:  # noqa: BLE001 - Dagster's parser raises errors of many kinds
        raise UsageError(f"--select {select}: {str(error).splitlines()[0]}") from None
    keys -= {dg.AssetKey(name) for name in without}
    if not keys:
        raise UsageError(
            f"--select {select}: matches no asset; run `dagster asset list -m sessions_pipeline.definitions`"
        )
    return sorted(keys)
