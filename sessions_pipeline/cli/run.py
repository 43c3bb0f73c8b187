"""One Dagster run in this process, with a progress bar on a terminal."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path

import dagster as dg

from sessions_pipeline.cli.terminal import progress_bar, say
from sessions_pipeline.errors import InstanceError, SessionsPipelineError, SettingError, UsageError
from sessions_pipeline.orchestration.build import build_definitions, quiet_config
from sessions_pipeline.orchestration.instance import temporary_instance
from sessions_pipeline.orchestration.partitions import range_tags
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.settings import Settings

# What a rebuild from the stored readings leaves alone: it comes from the API, or describes the present.
FROM_THE_NETWORK = ("raw_sessions", "daily_cost_by_project", "cost_report")
# Whose errors are about Dagster's own database.
_DATABASES = {"sqlalchemy", "sqlite3", "psycopg2", "MySQLdb", "alembic"}


def run_days(
    settings: Settings, first: date, last: date, *, select: str | None = None, as_of: datetime | None = None
) -> dict[str, list[date]]:
    """Materialise the days, both included; the days that were written, by asset, all assets of the run among them.

    Raises:
        SessionsPipelineError: what went wrong, in one line.
    """
    home = settings.dagster_home
    with _open_instance(home) as instance, progress_bar((last - first).days + 1) as on_day, _naming(home):
        pipeline = Pipeline(settings, on_day=on_day, on_wait=say, as_of=as_of)
        repository = build_definitions(pipeline).get_repository_def()
        if select is None and as_of is None:
            job, selection = repository.get_job("refresh_sessions"), None
        else:
            job = repository.get_implicit_global_asset_job_def()
            selection = _selected(select or "*", job, without=FROM_THE_NETWORK if as_of else ())
        try:
            result = job.execute_in_process(
                instance=instance,
                run_config=quiet_config(),
                tags=range_tags(first, last),
                asset_selection=selection,
            )
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None
        made: dict[dg.AssetKey, set[date]] = {key: set() for key in selection or job.asset_layer.selected_asset_keys}
        for event in result.get_asset_materialization_events():
            if event.asset_key is not None and event.partition:
                made.setdefault(event.asset_key, set()).add(date.fromisoformat(event.partition))
        return {key.path[-1]: sorted(days) for key, days in made.items()}


def _selected(select: str, job: dg.JobDefinition, *, without: Sequence[str]) -> list[dg.AssetKey]:
    try:
        # Dagster warns of its own parser's "*".
        selected = dg.AssetSelection.all() if select == "*" else dg.AssetSelection.from_string(select)
        keys = selected.resolve(job.asset_layer.asset_graph)
    except Exception as error:  # noqa: BLE001 - Dagster's parser raises errors of many kinds
        raise UsageError(f"--select {select}: {str(error).splitlines()[0]}") from None
    keys -= {dg.AssetKey(name) for name in without}
    if not keys:
        raise UsageError(
            f"--select {select}: matches no asset; run `dagster asset list -m sessions_pipeline.definitions`"
        )
    return sorted(keys)


@contextmanager
def _open_instance(home: str | None) -> Iterator[dg.DagsterInstance]:
    if not home:
        say("DAGSTER_HOME is not set: this run is not kept in Dagster's history")
        with temporary_instance() as instance:
            yield instance
        return
    if not Path(home).is_absolute() or not Path(home).is_dir():
        raise SettingError("DAGSTER_HOME", f"{home} must be the absolute path of a folder that exists")
    # Dagster logs retries of its database by `logging.warning`, which prints where nobody listens.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        instance = dg.DagsterInstance.from_config(home)
    except Exception as error:  # noqa: BLE001 - of YAML, of Dagster's configuration, or of any database
        raise InstanceError(str(Path(home) / "dagster.yaml"), error) from None
    with instance:
        yield instance


@contextmanager
def _naming(home: str | None) -> Iterator[None]:
    """An error of Dagster's database is one line that names the instance."""
    try:
        yield
    except SessionsPipelineError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if type(cause).__module__.partition(".")[0] in _DATABASES:
                raise InstanceError(f"{home or 'a temporary instance'}, its database", cause) from None
            cause = cause.__cause__ or cause.__context__
        raise
