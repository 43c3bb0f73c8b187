"""Dagster only: assets, checks, jobs, schedules, sensors and metadata.

Here, where importing Dagster is not needed: what a `dagster.yaml` says about where events are stored, and how a run's
tags name its days.
"""

import json
import os
import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import yaml

from sessions_pipeline.errors import InstanceError, SettingError

REFRESH = "refresh_sessions"
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
# The configuration of an instance on one machine.
SHIPPED = Path(__file__).with_name("dagster.yaml")
STORAGE = """\
storage:
  custom:
    module: sessions_pipeline.orchestration.event_storage
    class: KeptStorage
"""


def storage_in(folder: str) -> str:
    """The lines of a `dagster.yaml` that keep events in its folder; by themselves they go by DAGSTER_HOME."""
    return f"{STORAGE}    config: {{base_dir: {json.dumps(folder)}}}\n"


def instance_file(home: str) -> Path:
    """The `dagster.yaml` of an instance, which may be missing; a folder or a pipe of that name would stop Dagster.

    Raises:
        SettingError: DAGSTER_HOME is no folder, or what it holds under that name is no file.
    """
    file = Path(home) / "dagster.yaml"
    if not file.is_absolute() or not file.parent.is_dir():
        raise SettingError("DAGSTER_HOME", f"{home} must be the absolute path of a folder that exists")
    if file.exists() and not file.is_file():
        raise SettingError("DAGSTER_HOME", f"{file} is no file; move it away")
    return file


def settle(home: str) -> None:
    """Put the `dagster.yaml` that is shipped into the folder of an instance that has none.

    Raises:
        SettingError: as `instance_file`.
        InstanceError: the folder can't be written.
    """
    file = instance_file(home)
    if file.exists():
        return
    # Renamed when it is whole: another run may be reading it.
    whole = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        shutil.copyfile(SHIPPED, whole)
        whole.replace(file)
    except OSError as error:
        raise InstanceError(f"DAGSTER_HOME: {home}", error) from None


def slow_storage(home: str) -> str | None:
    """Why the Dagster instance in this folder is slow, and after an empty line what helps; None where it is not.

    Dagster's default storage takes 10 to 30 ms for each event, and a backfill of 90 days has 1,500. A folder without
    `dagster.yaml` counts as `settle` would leave it.

    Raises:
        SettingError: as `instance_file`, or the storage lies in the folder, which can't be written.
        InstanceError: the file can't be read.
    """
    file = instance_file(home)
    try:
        config = yaml.safe_load((file if file.exists() else SHIPPED).read_text()) or {}
        storage = config.get("storage", {"sqlite": {}})
        is_slow = "sqlite" in storage and "event_log_storage" not in config
        is_here = (is_slow or "KeptStorage" in str(storage)) and "base_dir" not in str(storage)
    except Exception as error:  # noqa: BLE001 - whatever YAML, or what stands in it, gives
        raise InstanceError(f"DAGSTER_HOME: {file}", error) from None
    if is_here and not os.access(home, os.W_OK):
        raise SettingError("DAGSTER_HOME", f"{home} can't be written; give this user access, or name another folder")
    lines = f"add these lines to its dagster.yaml:\n\n{STORAGE}"
    return f"Dagster's default storage is ten times slower; {lines}" if is_slow else None


def range_tags(first: date, last: date) -> dict[str, str]:
    """Run tags that make one run of several days."""
    return dict(zip(_RANGE, (first.isoformat(), last.isoformat()), strict=True))


def tagged_range(tags: Mapping[str, str]) -> tuple[date, date] | None:
    """The first and last day that a run's tags name, as a range or as one partition; None where they name none."""
    first, last = (tags.get(name) or tags.get("dagster/partition") for name in _RANGE)
    return (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None
