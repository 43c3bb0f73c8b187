"""Which days are to be settled, and what was heard of them: from the API, or from the readings in the lake."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from sessions_pipeline.days import days_between
from sessions_pipeline.errors import NotReadError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.orchestration.pipeline import Pipeline, Workspace, now
from sessions_pipeline.process_day import DayTask, Heard, Rules
from sessions_pipeline.tables import RAW_SESSIONS
from sessions_pipeline.tables.readings import load_readings
from sessions_pipeline.validation.records import Columns, FetchedDay


def read_days(
    pipeline: Pipeline,
    client: SessionsClient,
    workspaces: Sequence[Workspace],
    first: date,
    last: date,
    tables: Sequence[str],
) -> Iterator[DayTask]:
    """Days from the API, newest first, then the undated sessions; a day comes when all workspaces have it.

    Raises:
        ApiError: a workspace could not be read, the text names it; days not yet handed out stay as they were.
    """
    started = now()
    rules = _rules(pipeline, tables)
    if pipeline.settings.keep_readings_days is not None:
        rules = replace(rules, kept_from=started - timedelta(days=pipeline.settings.keep_readings_days))
    received, finished, days = 0, 0, (last - first).days + 1
    client.progress = lambda: f"{finished} of {days} days"
    streams = [_days_of(workspace, first, last) for workspace in workspaces]
    for of_day in zip(*streams, strict=True):
        received += sum(reading.received for reading in of_day)
        # One microsecond apart, so that a row's time names its reading.
        heard = [
            _heard(workspace, reading, started + timedelta(microseconds=number))
            for number, (workspace, reading) in enumerate(zip(workspaces, of_day, strict=True))
        ]
        yield DayTask(of_day[0].day or UNDATED, rules, tuple(heard), received)
        finished += of_day[0].day is not None


def stored_days(pipeline: Pipeline, lake: Lake, first: date, last: date, tables: Sequence[str]) -> Iterator[DayTask]:
    """The same days from the raw readings in the lake, without the network.

    Raises:
        NotReadError: a day's raw sessions were never read, or not yet at the time asked for; nothing is replaced.
    """
    days: list[Day] = [*reversed(days_between(first, last))]
    days += [UNDATED] if lake.has(RAW_SESSIONS, UNDATED) else []
    for day in days:
        readings = load_readings(lake.metadata(RAW_SESSIONS, day))
        if pipeline.as_of is not None and not any(reading.fetched_at <= pipeline.as_of for reading in readings):
            named = "rows without a day" if day is UNDATED else str(day)
            raise NotReadError(f"raw_sessions was not read yet for {named} at {pipeline.as_of:%Y-%m-%d %H:%M:%S} UTC")
    rules = _rules(pipeline, tables)
    yield from (DayTask(day, rules) for day in days)


def _rules(pipeline: Pipeline, tables: Sequence[str]) -> Rules:
    return Rules(tuple(tables), pipeline.settings.max_rejected_ratio, pipeline.as_of)


def _days_of(workspace: Workspace, first: date, last: date) -> Iterator[FetchedDay]:
    with workspace.named():
        yield from workspace.source.days(first, last)


def _heard(workspace: Workspace, reading: FetchedDay, fetched_at: datetime) -> Heard:
    return Heard(workspace.asked, fetched_at, Columns.of(reading.records), reading.received, reading.requests)
