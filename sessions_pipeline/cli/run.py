"""One Dagster run in this process, with a progress bar on a terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as db

from sessions_pipeline.cli.terminal import progress_bar, say
from sessions_pipeline.errors import InstanceError, SessionsPipelineError, SettingError
from sessions_pipeline.orchestration import runs
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.settings import Settings

# Whose errors are about Dagster's own database.
_DATABASES = {"sqlalchemy", "sqlite3", "psycopg2", "MySQLdb", "alembic"}
# The UI or the daemon may hold SQLite's lock for longer than the 5 s that Python waits.
LOCK_SECONDS = 60


@db.event.listens_for(db.Engine, "do_connect")
def _wait_for_the_lock(dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    if dialect.name == "sqlite":
        options.setdefault("timeout", LOCK_SECONDS)


def run_days(
    settings: Settings, first: date, last: date, *, select: str | None = None, **pipeline: Any
) -> dict[str, list[date]]:
    """Materialise the days, both included; the days that were written, by asset, all assets of the run among them.

    `pipeline` are more values of the `Pipeline`, such as `as_of`.

    Raises:
        SessionsPipelineError: what went wrong, in one line.
    """
    home = settings.dagster_home
    with _open_instance(home) as instance, progress_bar((last - first).days + 1) as on_day, _naming(home):
        made_with = Pipeline(settings, on_day=on_day, **pipeline)
        result = runs.run_days(made_with, first, last, instance=instance, select=select)
    made: dict[dg.AssetKey, set[date]] = {key: set() for key in result.job_def.asset_layer.selected_asset_keys}
    for event in result.get_asset_materialization_events():
        if event.asset_key is not None and event.partition:
            made[event.asset_key].add(date.fromisoformat(event.partition))
    return {key.path[-1]: sorted(days) for key, days in made.items()}


@contextmanager
def _open_instance(home: str | None) -> Iterator[dg.DagsterInstance]:
    if not home:
        say("DAGSTER_HOME is not set: this run is not kept in Dagster's history")
        with runs.temporary_instance() as instance:
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
