"""One Dagster run in this process, on the instance in DAGSTER_HOME or one that is forgotten."""

import difflib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from datetime import date
from typing import Any
from uuid import uuid4

import dagster as dg
import sqlalchemy as db

from sessions_pipeline.errors import InstanceError, SessionsPipelineError, UsageError
from sessions_pipeline.orchestration import REFRESH, ensure_dagster_yaml, instance_file, range_tags, storage_yaml
from sessions_pipeline.orchestration.build import REPORT, build_definitions
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT, JUDGE_COST_BY_EXPERIMENT, RAW_SESSIONS, REFERENCE_DATASETS

# Packages whose errors are about Dagster's own database.
_DATABASES = {"sqlalchemy", "sqlite3", "psycopg2", "MySQLdb", "alembic"}
# The UI or the daemon may hold SQLite's lock for longer than the 5 s that Python waits.
LOCK_SECONDS = 60
# What a rebuild from the stored readings leaves alone: it comes from the API, or describes the present.
_PRESENT = (RAW_SESSIONS, REFERENCE_DATASETS, DAILY_COST_BY_PROJECT, JUDGE_COST_BY_EXPERIMENT)
OF_THE_PRESENT = (*(table.name for table in _PRESENT), REPORT)
# Dagster's own log stays off the terminal; errors are told by the command line.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@db.event.listens_for(db.Engine, "do_connect")
def _wait_for_the_lock(dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    if dialect.name == "sqlite":
        options.setdefault("timeout", LOCK_SECONDS)


def execute(
    pipeline: Pipeline, first: date, last: date, *, instance: dg.DagsterInstance, select: str | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize the days, both included: the assets of `refresh_sessions`, or those that `select` picks.

    Raises:
        SessionsPipelineError: what went wrong, in one line.
        KeyboardInterrupt: the run was interrupted, and counts as canceled.
    """
    repository = build_definitions(pipeline).get_repository_def()
    if select is None and pipeline.as_of is None:
        job, chosen = repository.get_job(REFRESH), None
    else:
        job = repository.get_implicit_global_asset_job_def()
        chosen = _selected(select or "*", job, without=OF_THE_PRESENT if pipeline.as_of else ())
    run_id, tags = str(uuid4()), range_tags(first, last)
    try:
        # What can't be stored Dagster prints, with the values, and goes on; what matters of it is raised.
        with redirect_stderr(io.StringIO()):
            return job.execute_in_process(
                instance=instance, run_config=QUIET, tags=tags, asset_selection=chosen, run_id=run_id
            )
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        # Dagster leaves it failed, or not started where it had not begun.
        if run := instance.get_run_by_id(run_id):
            instance.report_run_canceled(run, "Stopped by Ctrl-C.")
        raise KeyboardInterrupt from None


def days_made(result: dg.ExecuteInProcessResult) -> dict[str, list[date]]:
    """The days that a run has written, by asset, all that it was to make among them."""
    made: dict[dg.AssetKey, set[date]] = {key: set() for key in result.job_def.asset_layer.selected_asset_keys}
    for event in result.get_asset_materialization_events():
        if event.asset_key is not None and event.partition:
            made[event.asset_key].add(date.fromisoformat(event.partition))
    return {key.path[-1]: sorted(days) for key, days in made.items()}


def _selected(select: str, job: dg.JobDefinition, *, without: Sequence[str]) -> list[dg.AssetKey]:
    graph, keys = job.asset_layer.asset_graph, set[dg.AssetKey]()
    # Dagster's parser raises errors of many kinds, which speak of its own classes, and warns of "*" and groups.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        selection = dg.AssetSelection.from_string(select)
        keys = set(selection.resolve(graph)) - {dg.AssetKey(name) for name in without}
    if not keys:
        names = [key.to_user_string() for key in graph.get_all_asset_keys()]
        words = [word for word in re.findall(r"\w+", select) if word not in names]
        close = [name for word in words for name in difflib.get_close_matches(word, names, n=1)]
        meant = (
            f"did you mean {close[0]}?"
            if close
            else f"there are {', '.join(sorted(names))}; write several, for example key:sessions or key:raw_sessions"
        )
        raise UsageError(f"--select {select}: matches no asset; {meant}")
    return sorted(keys)


@contextmanager
def open_instance(home: str | None) -> Iterator[dg.DagsterInstance]:
    """The instance in a folder, which gets our `dagster.yaml` if it has none, or a temporary one.

    An error of its database is one line that names it.

    Raises:
        SettingError: the folder, or its `dagster.yaml`, can't be one.
        InstanceError: its settings are wrong, or its database is.
    """
    with ExitStack() as stack:
        folder = home or stack.enter_context(tempfile.TemporaryDirectory())
        file, place = instance_file(folder), f"DAGSTER_HOME: {home}" if home else f"TMPDIR: Dagster's folder {folder}"
        # Dagster logs retries of its database by `logging.warning`, which prints where nobody listens.
        logging.getLogger().addHandler(logging.NullHandler())
        instance = None
        try:
            if home:
                ensure_dagster_yaml(home)
            else:
                file.write_text(f"{storage_yaml(folder)}telemetry: {{enabled: false}}\n")
            instance = stack.enter_context(dg.DagsterInstance.from_config(folder))
            yield instance
        except SessionsPipelineError:
            raise
        except Exception as error:
            # While it is opened it may also be YAML, or Dagster's configuration.
            if (cause := _of_a_database(error)) or instance is None:
                raise InstanceError(f"{place}, {'its database' if cause else file.name}", cause or error) from None
            raise


def _of_a_database(error: BaseException | None) -> BaseException | None:
    """What a database raised, among what has led to an error."""
    cause, seen = error, list[BaseException]()
    # What Dagster raises for an error amid a step may be its own cause.
    while cause is not None and cause not in seen:
        seen.append(cause)
        if type(cause).__module__.partition(".")[0] in _DATABASES:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
