"""All that needs Dagster: assets, checks, jobs, schedules, sensors and metadata.

This file itself does not import Dagster, which takes over a second. It has what works without it: the
`dagster.yaml` of an instance, the run tags that name a run's days, and sensors' cursors as text.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeVar

import msgspec

from sessions_pipeline.errors import SettingError
from sessions_pipeline.validation.json_text import UNREADABLE

REFRESH = "refresh_sessions"
_RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
# The `dagster.yaml` for an instance on one machine.
SHIPPED = Path(__file__).with_name("dagster.yaml")
Loaded = TypeVar("Loaded")
# Its lines that replace Dagster's slow storage.
STORAGE = "".join(re.findall(r"^storage:\n(?: +.+\n)+", SHIPPED.read_text("utf-8"), re.MULTILINE))


def own_yaml(folder: str) -> str:
    """A `dagster.yaml` for an instance that stores everything in this folder, wherever DAGSTER_HOME leads."""
    quiet = "telemetry: {enabled: false}\nnux: {enabled: false}\n"
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
        SettingError: see `instance_file`, and `check_writable`.
    """
    file = instance_file(home)
    if not file.exists():
        check_writable(home)
        # Written under another name and then renamed, because another run may be reading it.
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_bytes(SHIPPED.read_bytes())
        temporary.replace(file)


def check_writable(folder: str | Path) -> None:
    """Try to write to a folder of Dagster's.

    Raises:
        SettingError: it can't be written, for instance because its disk is full.
    """
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(bytes(65_536))  # a full disk may still have room for an empty file
    except OSError as error:
        advice = "free some space, give this user access, or name another folder"
        raise SettingError("DAGSTER_HOME", f"{folder} can't be used ({error.strerror}); {advice}") from None


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
