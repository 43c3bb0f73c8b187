"""One Dagster run in this process, with a progress bar on a terminal."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime

import click
import dagster as dg

from sessions_pipeline.errors import SettingError, UsageError
from sessions_pipeline.orchestration.build import build_definitions, quiet_config
from sessions_pipeline.orchestration.instance import temporary_instance
from sessions_pipeline.orchestration.partitions import range_tags
from sessions_pipeline.orchestration.pipeline import OnDay, Pipeline
from sessions_pipeline.settings import Settings

# What a rebuild from the stored readings leaves alone: it comes from the API, or describes the present.
FROM_THE_NETWORK = ("raw_sessions", "daily_cost_by_project", "cost_report")


def run_days(
    settings: Settings, first: date, last: date, *, select: str | None = None, as_of: datetime | None = None
) -> None:
    """Materialise the days, both included.

    Raises:
        SessionsPipelineError: what went wrong, in one line.
    """
    with _instance() as instance, _progress((last - first).days + 1) as on_day:
        pipeline = Pipeline(settings, on_day=on_day, as_of=as_of)
        definitions = build_definitions(pipeline)
        repository = definitions.get_repository_def()
        selection = None
        if select is None and as_of is None:
            job = repository.get_job("refresh_sessions")
        else:
            job = repository.get_implicit_global_asset_job_def()
            selection = _selected(select or "*", job, without=FROM_THE_NETWORK if as_of else ())
        try:
            job.execute_in_process(
                instance=instance,
                run_config=quiet_config(),
                tags=range_tags(first, last),
                asset_selection=selection,
            )
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None


def _selected(select: str, job: dg.JobDefinition, *, without: Sequence[str]) -> list[dg.AssetKey]:
    try:
        keys = dg.AssetSelection.from_string(select).resolve(job.asset_layer.asset_graph)
    except Exception as error:  # noqa: BLE001 - Dagster's parser raises errors of many kinds
        raise UsageError(f"--select {select}: {str(error).splitlines()[0]}") from None
    keys -= {dg.AssetKey(name) for name in without}
    if not keys:
        raise UsageError(
            f"--select {select}: matches no asset; run `dagster asset list -m sessions_pipeline.definitions`"
        )
    return sorted(keys)


@contextmanager
def _instance() -> Iterator[dg.DagsterInstance]:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        _say("DAGSTER_HOME is not set: this run is not kept in Dagster's history")
        with temporary_instance() as instance:
            yield instance
        return
    if not os.path.isabs(home) or not os.path.isdir(home):  # noqa: PTH117, PTH112
        raise SettingError("DAGSTER_HOME", f"{home} must be the absolute path of a folder that exists")
    with dg.DagsterInstance.get() as instance:
        yield instance


@contextmanager
def _progress(total: int) -> Iterator[OnDay]:
    if not sys.stderr.isatty():
        yield lambda _day: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("Days"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[day]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("days", total=total, day="searching")
        yield lambda day: bar.update(task, advance=1, day=day.isoformat())


def _say(message: str) -> None:
    click.echo(f"sessions-pipeline: {message}", err=True)
