"""The work on one day, without Dagster and without the network: settle and judge it, then summarize it.

It is done by whoever is free, a thread or a process (see `workers`), so what comes in and out are plain values.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from sessions_pipeline.errors import SumOverflowError
from sessions_pipeline.lake.lake import Lake, Written
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSION_FEEDBACK,
    SESSIONS,
)
from sessions_pipeline.tables import daily_cost_by_reference_dataset as costs
from sessions_pipeline.tables import day_metadata as telling
from sessions_pipeline.tables import experiment_summary as experiments
from sessions_pipeline.tables import session_feedback as feedback
from sessions_pipeline.tables.history import DayVerdict, judge_day
from sessions_pipeline.tables.readings import Reading, dump_readings, load_readings, merge_reading
from sessions_pipeline.tables.retention import without_superseded
from sessions_pipeline.validation.records import Columns

# A handful of broken records among few is no sign of a broken API: the fuse needs this many.
FUSE_FLOOR = 20


@dataclass(frozen=True, slots=True)
class Heard:
    """What one workspace (`asked`; None: the key's own) said about a day at `fetched_at`."""

    asked: str | None
    fetched_at: datetime
    records: Columns
    received: int
    requests: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all days of a run.

    `tables` names the tables to replace; `as_of` and `kept_from` are limits in time (see `judge_day` and
    `without_superseded`), None for no limit; `max_rejected_ratio` is the fuse.
    """

    tables: tuple[str, ...]
    max_rejected_ratio: float
    as_of: datetime | None = None
    kept_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class DayTask:
    """A day to settle: with what was heard of it, or again from what is stored where nothing was.

    `received` counts all records of the run so far.
    """

    day: Day
    rules: Rules
    heard: tuple[Heard, ...] = ()
    received: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of a day: the files written, and what to tell of each; all by the table's name.

    `fuse` says why nothing was written, where too many of its records are rejected.
    """

    day: Day
    sessions: int
    written: Mapping[str, Written]
    told: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, Sequence[Mapping[str, str]]]
    fuse: str | None = None


def settle(lake: Lake, task: DayTask) -> Settled:
    """Settle a day and replace its tables, raw first: the others can be made again from it, never the other way round.

    Raises:
        LakeError: the day could not be read or written; its former tables are intact.
    """
    with _alone(lake, task.day):
        return _settled(lake, task)


def _settled(lake: Lake, task: DayTask) -> Settled:
    raw, readings = _merged(lake, task)
    verdict = judge_day(raw, readings, as_of=task.rules.as_of)
    count = verdict.sessions.num_rows
    if fuse := _fuse(task, verdict):
        return Settled(task.day, count, {}, {}, {}, fuse)
    rows = {RAW_SESSIONS: raw, SESSIONS: verdict.sessions, REJECTED_SESSIONS: verdict.rejected}
    told = {
        RAW_SESSIONS.name: telling.of_readings(readings),
        SESSIONS.name: telling.of_sessions(verdict),
        REJECTED_SESSIONS.name: telling.of_rejected(verdict),
    }
    metadata = _metadata(readings, verdict)
    tables = [table for table in rows if table.name in task.rules.tables]
    written = {table.name: lake.replace(table, task.day, rows[table], metadata) for table in tables}
    samples = {table.name: telling.sample(table.name, rows[table]) for table in tables}
    return Settled(task.day, count, written, told, samples)


def summarize(lake: Lake, day: Day, *, tables: Sequence[str]) -> dict[str, Written]:
    """Replace those of the day's feedback and experiment tables that are named, from its sessions.

    Raises:
        NotReadError: the day has no sessions.
        LakeError: the day could not be read or written; its former tables are intact.
    """
    with _alone(lake, day):
        sessions = lake.read(SESSIONS, day, sorted({*feedback.NEEDED, *experiments.NEEDED}))
        scores = feedback.session_feedback(sessions)
        made = {SESSION_FEEDBACK: scores}
        if EXPERIMENT_SUMMARY.name in tables:
            made[EXPERIMENT_SUMMARY] = experiments.experiment_summary(sessions, scores)
        # Under the readings of the sessions that they were made from.
        metadata = lake.metadata(SESSIONS, day)
        return {
            table.name: lake.replace(table, day, rows, metadata) for table, rows in made.items() if table.name in tables
        }


def sum_costs(lake: Lake, day: Day) -> tuple[Written, dict[str, Any]]:
    """Replace the day's daily costs, from its sessions; also what to tell of them.

    Raises:
        NotReadError: the day has no sessions.
        LakeError: the day could not be read or written; its former table is intact.
        SumOverflowError: a sum does not fit its column; the text names the day too.
    """
    try:
        rows = costs.daily_cost_by_reference_dataset(lake.read(SESSIONS, day, costs.NEEDED))
    except SumOverflowError as error:
        raise SumOverflowError(f"{day}: {error}") from None
    written = lake.replace(DAILY_COST_BY_REFERENCE_DATASET, day, rows, lake.metadata(SESSIONS, day))
    return written, telling.money(telling.total(rows.column("total_cost")))


@contextmanager
def _alone(lake: Lake, day: Day) -> Iterator[None]:
    """Keep other runs away from the day while it is merged and written."""
    with lake.lock(day):
        yield


def _merged(lake: Lake, task: DayTask) -> tuple[pa.Table, list[Reading]]:
    raw: pa.Table | None = None
    readings: list[Reading] = []
    if not task.heard or lake.has(RAW_SESSIONS, task.day):
        raw = lake.read(RAW_SESSIONS, task.day)
        readings = load_readings(lake.metadata(RAW_SESSIONS, task.day))
    for heard in task.heard:
        raw, readings = merge_reading(
            raw,
            readings,
            heard.records,
            asked=heard.asked,
            fetched_at=heard.fetched_at,
            received=heard.received,
            requests=heard.requests,
        )
    if task.rules.kept_from is not None and task.heard:
        raw = without_superseded(raw, readings, before=task.rules.kept_from)
    return raw, readings


def _metadata(readings: Sequence[Reading], verdict: DayVerdict) -> dict[str, str]:
    return {
        **dump_readings(readings),
        **({"shrunk": json.dumps(verdict.shrunk)} if verdict.shrunk else {}),
        **({"drift": json.dumps(verdict.drift, sort_keys=True)} if verdict.drift else {}),
    }


def _fuse(task: DayTask, verdict: DayVerdict) -> str | None:
    rejected = verdict.rejected.num_rows
    count = rejected + verdict.sessions.num_rows
    if task.day is UNDATED:
        # Records without a readable day are few or none: they are measured against all that the run received.
        count = max(count, task.received)
    if rejected < FUSE_FLOOR or rejected <= task.rules.max_rejected_ratio * count:
        return None
    reason = verdict.rejected.column("reasons")[0].as_py()[0]
    return f"{task.day}: {rejected} of {count} records are rejected ({reason})"
