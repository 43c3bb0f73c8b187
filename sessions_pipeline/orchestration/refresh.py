"""The main job without Dagster: read a day, settle its history, judge it, and replace its three tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pyarrow as pa

from sessions_pipeline.errors import NotReadError, TooManyRejectedError
from sessions_pipeline.lake.lake import Lake, Written
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.days import DayReading
from sessions_pipeline.orchestration.partitions import days_between
from sessions_pipeline.orchestration.pipeline import Pipeline, Workspace, now
from sessions_pipeline.schema.columns import RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS, Table
from sessions_pipeline.schema.history import DayVerdict, judge_day
from sessions_pipeline.schema.readings import Reading, dump_readings, load_readings, merge_reading
from sessions_pipeline.schema.retention import without_superseded

# A handful of broken records among few is no sign of a broken API: the fuse needs this many.
FUSE_FLOOR = 20


@dataclass(frozen=True, slots=True)
class DayState:
    """A day as decided, before it is written: its raw rows and readings, and the verdict on them.

    `fuse` says why the day must not be written, where too many of its records are rejected.
    """

    day: Day
    raw: pa.Table
    readings: Sequence[Reading]
    verdict: DayVerdict
    fuse: str | None = None

    def table(self, table: Table) -> pa.Table:
        """The rows of one of the day's three tables."""
        return {
            RAW_SESSIONS.name: self.raw,
            SESSIONS.name: self.verdict.sessions,
            REJECTED_SESSIONS.name: self.verdict.rejected,
        }[table.name]


def read_days(
    pipeline: Pipeline, lake: Lake, client: SessionsClient, workspaces: Sequence[Workspace], first: date, last: date
) -> Iterator[DayState]:
    """Days from the API, newest first, then the undated sessions; a day comes when all workspaces have it.

    Raises:
        ApiError: a workspace could not be read, the text names it; days not yet handed out stay as they were.
    """
    started = now()
    total, finished, days = 0, 0, (last - first).days + 1
    client.progress = lambda: f"{finished} of {days} days"
    streams = [_days_of(workspace, first, last) for workspace in workspaces]
    for of_day in zip(*streams, strict=True):
        day: Day = of_day[0].day or UNDATED
        raw, readings = _stored(lake, day)
        for number, (workspace, reading) in enumerate(zip(workspaces, of_day, strict=True)):
            # One microsecond apart, so that a row's time names its reading.
            fetched_at = started + timedelta(microseconds=number)
            raw, readings = _merge(raw, readings, reading, workspace.asked, fetched_at)
        if pipeline.settings.keep_readings_days is not None:
            kept_from = started - timedelta(days=pipeline.settings.keep_readings_days)
            raw = without_superseded(raw, readings, before=kept_from)
        total += sum(reading.received for reading in of_day)
        yield _judge(pipeline, day, raw, readings, total)
        finished += isinstance(day, date)


def stored_days(pipeline: Pipeline, lake: Lake, first: date, last: date) -> Iterator[DayState]:
    """The same days from the raw readings in the lake, without the network.

    Raises:
        NotReadError: a day's raw sessions were never read, or not yet at the time asked for; nothing is replaced.
    """
    days: list[Day] = [*reversed(days_between(first, last))]
    days += [UNDATED] if lake.has(RAW_SESSIONS, UNDATED) else []
    readings = {day: load_readings(lake.metadata(RAW_SESSIONS, day)) for day in days}
    for day in days:
        if pipeline.as_of is not None and not any(r.fetched_at <= pipeline.as_of for r in readings[day]):
            named = "rows without a day" if day is UNDATED else str(day)
            raise NotReadError(f"raw_sessions was not read yet for {named} at {pipeline.as_of:%Y-%m-%d %H:%M:%S} UTC")
    for day in days:
        yield _judge(pipeline, day, lake.read(RAW_SESSIONS, day), readings[day])


def write_day(lake: Lake, state: DayState, tables: Sequence[Table]) -> Mapping[str, Written]:
    """Replace the day's tables, raw first: what is derived can be made again from it, never the other way round."""
    verdict = state.verdict
    metadata = {
        **dump_readings(state.readings),
        **({"shrunk": json.dumps(verdict.shrunk)} if verdict.shrunk else {}),
        **({"drift": json.dumps(verdict.drift, sort_keys=True)} if verdict.drift else {}),
    }
    return {table.name: lake.replace(table, state.day, state.table(table), metadata) for table in tables}


def _stored(lake: Lake, day: Day) -> tuple[pa.Table | None, list[Reading]]:
    if not lake.has(RAW_SESSIONS, day):
        return None, []
    return lake.read(RAW_SESSIONS, day), load_readings(lake.metadata(RAW_SESSIONS, day))


def _days_of(workspace: Workspace, first: date, last: date) -> Iterator[DayReading]:
    with workspace.named():
        yield from workspace.source.days(first, last)


def _merge(
    raw: pa.Table | None, readings: list[Reading], reading: DayReading, asked: str | None, fetched_at: datetime
) -> tuple[pa.Table, list[Reading]]:
    return merge_reading(
        raw,
        readings,
        reading.records,
        asked=asked,
        fetched_at=fetched_at,
        received=reading.received,
        requests=reading.requests,
    )


def _judge(
    pipeline: Pipeline, day: Day, raw: pa.Table, readings: Sequence[Reading], total: int | None = None
) -> DayState:
    verdict = judge_day(raw, readings, as_of=pipeline.as_of)
    rejected, limit = verdict.rejected.num_rows, pipeline.settings.max_rejected_ratio
    count = rejected + verdict.sessions.num_rows
    if day is UNDATED:
        # Records without a readable day are few or none: they are measured against all that the run received.
        count = max(count, total or 0)
    fuse = None
    if rejected >= FUSE_FLOOR and rejected > limit * count:
        reason = verdict.rejected.column("reasons")[0].as_py()[0]
        fuse = f"{day}: {rejected} of {count} records are rejected ({reason})"
    return DayState(day, raw, readings, verdict, fuse)


def blow_fuse(states: Sequence[DayState], limit: float) -> None:
    """Fail for the days that were not written.

    Raises:
        TooManyRejectedError: there are such days.
    """
    if states:
        days = "; ".join(str(state.fuse) for state in states[:3]) + ("; and more" if len(states) > 3 else "")  # noqa: PLR2004
        raise TooManyRejectedError(
            f"{days}. More than SESSIONS_PIPELINE_MAX_REJECTED_RATIO={limit:g} allows, so these days keep their former "
            "tables; see whether the API changed, or raise the ratio"
        )
