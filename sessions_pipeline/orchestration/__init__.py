"""Dagster only: assets, checks, jobs, schedules, sensors and metadata.

Here, where importing Dagster is not needed: what a `dagster.yaml` says about where events are stored.
"""

import json
from pathlib import Path

import yaml

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
