"""All that needs Dagster: assets, checks, jobs, schedules, sensors and metadata.

This file itself does not import Dagster, which takes over a second. It has what works without it: the
`dagster.yaml` of an instance, the run tags that name a run's days, and sensors' cursors as text.
"""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import date
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeVar

import msgspec
import yaml

from sessions_pipeline.errors import InstanceError, SettingError
from sessions_pipeline.validation.json_text import UNREADABLE

REFRESH = "refresh_sessions"
_RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
# The `dagster.yaml` for an instance on one machine.
SHIPPED = Path(__file__).with_name("dagster.yaml")
_DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
Loaded = TypeVar("Loaded")
# Its lines that replace Dagster's slow storage.
STORAGE = "".join(re.findall(r"^storage:\n(?: +.+\n)+", SHIPPED.read_text("utf-8"), re.MULTILINE))


def own_yaml(folder: str) -> str:
    """A `dagster.yaml` for an instance that stores everything in this folder, wherever DAGSTER_HOME leads."""
    quiet = "python_logs: {python_log_level: INFO}\ntelemetry: {enabled: false}\nnux: {enabled: false}\n"
    return f"{STORAGE}    config: {{base_dir: {json.dumps(folder)}}}\n{quiet}"


def instance_file(home: str) -> Path:
    """The path of an instance's `dagster.yaml`; the file may be missing. `home` is the value of DAGSTER_HOME.

    Raises:
        SettingError: `home` is not the absolute path of a folder, or its `dagster.yaml` is not a regular file: Dagster
            would fail on a folder, and hang on a pipe.
    """
    file = Path(home) / "dagster.yaml"
    if not file.is_absolute() or not file.parent.is_dir():
        raise SettingError("DAGSTER_HOME", f"{home} must be the absolute path of a folder that exists")
    if file.exists() and not file.is_file():
        raise SettingError("DAGSTER_HOME", f"{file} is not a regular file; move it away")
    return file


def ensure_dagster_yaml(home: str) -> None:
    """Copy the shipped `dagster.yaml` into an instance's folder, unless the folder has one.

    Raises:
        SettingError: see `instance_file`; or the folder can't be written to.
    """
    if (file := instance_file(home)).exists():
        return
    # Written under another name and then renamed, because another run may be reading it.
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        shutil.copyfile(SHIPPED, temporary)
        temporary.replace(file)
    except OSError as error:
        raise SettingError("DAGSTER_HOME", f"{home} can't be written ({error.strerror}); name another folder") from None


def slow_storage(home: str) -> str | None:
    """Why the Dagster instance in this folder is slow, with the lines for `dagster.yaml` that help; None if it is not.

    Dagster's default storage takes 10 to 30 ms for each event, and a backfill of 90 days has 1,500 events. A folder
    without `dagster.yaml` is judged by the shipped one, which it will get.

    Raises:
        SettingError: see `instance_file`; or the file can't be read; or the folder holds the storage, and can't be
            written, for instance because its disk is full.
        InstanceError: the file is not valid YAML, or a database is broken.
    """
    file = instance_file(home)
    try:
        # From an open file: the errors for a text quote its lines, which may hold passwords.
        with (file if file.exists() else SHIPPED).open() as opened:
            config = yaml.safe_load(opened) or {}
        storage = config.get("storage", {"sqlite": {}})
        is_slow = "sqlite" in storage and "event_log_storage" not in config
        is_here = (is_slow or "KeptStorage" in str(storage)) and "base_dir" not in str(storage)
        if is_here:
            with TemporaryFile(dir=home) as probe:
                probe.write(bytes(65_536))  # a full disk may still have room for an empty file
    except OSError as error:
        advice = "free some space, give this user access, or name another folder"
        raise SettingError("DAGSTER_HOME", f"{home} can't be used ({error.strerror}); {advice}") from None
    except Exception as error:  # noqa: BLE001 - the file may hold anything, such as a list where a mapping belongs
        raise InstanceError(f"DAGSTER_HOME: {file}", error) from None
    if is_here:
        _check_databases(home)
    return f"Dagster's default storage is ten times slower; add to its dagster.yaml:\n\n{STORAGE}" if is_slow else None


def _check_databases(home: str) -> None:
    """Read the schemas of the SQLite databases that all runs share; SQLite also notices if a file was cut off.

    Raises:
        InstanceError: one is broken, or its folder can't be read.
    """
    try:
        for file in filter(Path.exists, (Path(home, name) for name in _DATABASES)):
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
                database.execute("SELECT count(*) FROM sqlite_master")
    except (OSError, sqlite3.Error) as error:
        raise InstanceError(f"DAGSTER_HOME: {home}, its database", error) from None


def range_tags(first: date, last: date) -> dict[str, str]:
    """The run tags for one run of all days from `first` to `last`, both included."""
    return dict(zip(_RANGE_TAGS, (first.isoformat(), last.isoformat()), strict=True))


def tagged_range(tags: Mapping[str, str]) -> tuple[date, date] | None:
    """The first and last day in a run's tags, from a partition range or one partition; None if there is neither."""
    first, last = (tags.get(name) or tags.get("dagster/partition") for name in _RANGE_TAGS)
    return (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None


def dump_cursor(cursor: object) -> str:
    """A sensor's cursor as JSON text."""
    return msgspec.json.encode(cursor).decode()


def load_cursor(text: str | None, kind: type[Loaded], warn: Callable[[str], object]) -> Loaded | None:
    """A sensor's cursor, decoded; None at its first tick, or, with a warning, if it was edited and can't be read."""
    try:
        return msgspec.json.decode(text, type=kind) if text else None
    except UNREADABLE as error:
        warn(f"The cursor can't be read, so the search starts anew: {error}")
        return None
