"""One Dagster run in this process, on the instance in DAGSTER_HOME or on a temporary one."""

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
from sessions_pipeline.orchestration import REFRESH, ensure_dagster_yaml, instance_file, own_yaml, range_tags
from sessions_pipeline.orchestration.assets import cost_report
from sessions_pipeline.tables import FROM_API

# An error from one of these packages is about Dagster's own database.
_DATABASE_PACKAGES = {"sqlalchemy", "sqlite3", "psycopg2", "MySQLdb", "alembic"}
# Python waits 5 s for SQLite's lock by default; the UI or the daemon may hold it for longer.
LOCK_SECONDS = 60
# Assets that `as_of` leaves alone, because they come from the API or describe the present.
NOT_AS_OF = (*(table.name for table in FROM_API), cost_report.key.to_user_string())
# Keeps Dagster's log off the terminal; the command line reports errors itself.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@db.event.listens_for(db.Engine, "do_connect")
def _wait_for_the_lock(dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    if dialect.name == "sqlite":
        options.setdefault("timeout", LOCK_SECONDS)


def execute(
    definitions: dg.Definitions, first: date, last: date, *, instance: dg.DagsterInstance, select: tuple[str, ...] = ()
) -> dg.ExecuteInProcessResult:
    """Materialize the days from `first` to `last`, both included, and return Dagster's result.

    The assets are those of `refresh_sessions`, or those of `select`, selections in Dagster's syntax. If the
    definitions' `pipeline` has an `as_of`, they are all assets, or those of `select`, but never `NOT_AS_OF`.

    Raises:
        UsageError: one of `select` matches no asset.
        SessionsPipelineError: the run failed, with the reason in one line.
        KeyboardInterrupt: the run was interrupted. Dagster has it as canceled.
    """
    as_of, repository = (definitions.resources or {})["pipeline"].as_of, definitions.get_repository_def()
    if not select and as_of is None:
        job, selected = repository.get_job(REFRESH), None
    else:
        job, without = repository.get_implicit_global_asset_job_def(), NOT_AS_OF if as_of else ()
        # Each by itself, because Dagster ignores a name that it does not know if it is joined to others by `or`.
        selected = sorted({key for one in select or ("*",) for key in _selected(one, job, without=without)})
    run_id, tags = str(uuid4()), range_tags(first, last)
    try:
        # If Dagster can't store an event, it prints the error with the event's values and continues. The values must
        # not reach the terminal; errors that matter are raised as well.
        with redirect_stderr(io.StringIO()):
            return job.execute_in_process(
                instance=instance, run_config=QUIET, tags=tags, asset_selection=selected, run_id=run_id
            )
    except dg.Failure as failure:
        raise failure.__cause__ or failure from None
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        # Dagster marks the run as failed or, if it had not begun, leaves it as not started.
        if run := instance.get_run_by_id(run_id):
            instance.report_run_canceled(run, "Stopped by Ctrl-C.")
        raise KeyboardInterrupt from None


def days_made(result: dg.ExecuteInProcessResult) -> dict[str, list[date]]:
    """The days that a run has recorded, by the name of the asset; every selected asset is there, also one without."""
    recorded: dict[dg.AssetKey, set[date]] = {key: set() for key in result.job_def.asset_layer.selected_asset_keys}
    for event in result.get_asset_materialization_events():
        if event.asset_key is not None and event.partition:
            recorded[event.asset_key].add(date.fromisoformat(event.partition))
    return {key.path[-1]: sorted(days) for key, days in recorded.items()}


def _selected(select: str, job: dg.JobDefinition, *, without: Sequence[str]) -> set[dg.AssetKey]:
    graph, keys = job.asset_layer.asset_graph, set[dg.AssetKey]()
    known = {key.to_user_string() for key in graph.get_all_asset_keys()}
    # Dagster's parser raises many kinds of errors, whose messages are about its own classes. It also warns about `*`
    # and groups.
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keys = set(dg.AssetSelection.from_string(select).resolve(graph)) - {dg.AssetKey(name) for name in without}
    # Dagster ignores a key that it does not know if another one matches; one with `*` may match nothing.
    if not keys or set(re.findall(r'\bkey:"?(\w+)(?!\w*\*)', select)) - known:
        names = sorted(known.difference(without))
        words = [word for word in re.findall(r"\w+", select) if word not in known]
        close = [name for word in words for name in difflib.get_close_matches(word, names, n=1)]
        every = f"there are {', '.join(names)}; to select two, write key:sessions or key:session_feedback"
        advice = f"did you mean {close[0]}?" if close else every
        problem = "a name in it matches no asset" if keys else "matches no asset"
        raise UsageError(f"--select {select}: {problem}{' that --as-of rebuilds' if without else ''}; {advice}")
    return keys


@contextmanager
def open_instance(home: str | None) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance in the folder `home`, or a temporary one for None, until the block ends.

    A folder without `dagster.yaml` gets ours. Errors of the instance's database within the block become one line that
    names it.

    Raises:
        SettingError: `home` is not the absolute path of a folder, or its `dagster.yaml` is not a regular file.
        InstanceError: the instance's configuration is wrong, or its database fails.
    """
    with ExitStack() as stack:
        folder = home or stack.enter_context(tempfile.TemporaryDirectory())
        file, place = instance_file(folder), f"DAGSTER_HOME: {home}" if home else f"TMPDIR: Dagster's folder {folder}"
        # Dagster logs database retries with `logging.warning`, which prints to standard error if there is no handler.
        logging.getLogger().addHandler(logging.NullHandler())
        instance = None
        try:
            if home:
                ensure_dagster_yaml(home)
            else:
                file.write_text(own_yaml(folder))
            opened = stack.enter_context(dg.DagsterInstance.from_config(folder))
            # Dagster would read this part of the configuration only in the run.
            opened.get_concurrency_config()
            instance = opened
            yield instance
        except SessionsPipelineError:
            raise
        except Exception as error:
            # While the instance is being opened, the error may also be about the YAML or Dagster's configuration.
            if (cause := _database_error(error)) or instance is None:
                raise InstanceError(f"{place}, {'its database' if cause else file.name}", cause or error) from None
            raise


def _database_error(error: BaseException | None) -> BaseException | None:
    """The first database error in the chain of an error's causes, or None."""
    chain = list[BaseException]()
    # The chain may be a cycle: what Dagster raises for an error within a step may be its own cause.
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return next((one for one in chain if type(one).__module__.partition(".")[0] in _DATABASE_PACKAGES), None)
