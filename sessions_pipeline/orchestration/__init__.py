"""Dagster only: assets, checks, jobs, schedules, sensors and metadata.

Here, where importing Dagster is not needed: what a `dagster.yaml` says about where events are stored, and how a run's
tags name its days.
"""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import yaml

REFRESH = "refresh_sessions"
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
STORAGE = """\
storage:
  custom:
    module: sessions_pipeline.orchestration.event_storage
    class: KeptStorage
"""


def storage_in(folder: str) -> str:
    """The lines of a `dagster.yaml` that keep events in its folder; by themselves they go by DAGSTER_HOME."""
    return f"{STORAGE}    config: {{base_dir: {json.dumps(folder)}}}\n"


def slow_storage(home: str | None) -> str | None:
    """Why the Dagster instance in this folder is slow, and which lines to add; None where it is not, or is not ours.

    Dagster's default storage takes 10 to 30 ms for each event, and a backfill of 90 days has 1,500.
    """
    if not home:
        return None
    file = Path(home).expanduser() / "dagster.yaml"
    config = (yaml.safe_load(file.read_text()) if file.exists() else None) or {}
    if "sqlite" not in config.get("storage", {"sqlite": {}}) or "event_log_storage" in config:
        return None
    return f"Dagster's default storage is ten times slower; add these lines to {file}:\n{STORAGE}"


def range_tags(first: date, last: date) -> dict[str, str]:
    """Run tags that make one run of several days."""
    return dict(zip(_RANGE, (first.isoformat(), last.isoformat()), strict=True))


def tagged_range(tags: Mapping[str, str]) -> tuple[date, date] | None:
    """The first and last day that a run's tags name, as a range or as one partition; None where they name none."""
    first, last = (tags.get(name) or tags.get("dagster/partition") for name in _RANGE)
    return (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None
