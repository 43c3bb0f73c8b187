"""`Pipeline`, the resource that Dagster hands to the assets: a plain object that does not know Dagster.

It opens the lake, reads the API, and has days processed and checked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from sessions_pipeline.days import days_between, now, utc_day
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.langsmith import SessionsQuery, parse_narrowing
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.source import MOST_WAITING, Source
from sessions_pipeline.outputs.formatting import plural
from sessions_pipeline.process_day import DayResult, examine_day, process_day, too_many_rejected
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import RAW_SESSIONS, SESSIONS, CheckResult, Table
from sessions_pipeline.tables.derived_day import RunOptions
from sessions_pipeline.tables.judge_cost_by_experiment import YOUNG
from sessions_pipeline.tables.readings import RawDay, load_readings, readings_as_of
from sessions_pipeline.tables.table import READINGS, Check
from sessions_pipeline.workers import Workers, processes_for, workers_for

OnResult: TypeAlias = Callable[[DayResult], object]
FetchedDay: TypeAlias = tuple[Day, Sequence[RawDay], int]
"""A day, what each workspace has sent of it, and how many records the run has received so far."""


class Fetching(NamedTuple):
    """A read from the API that is under way. `fetched_days` yields each day as it arrives, and can be iterated once."""

    days: frozenset[date]
    client: SessionsClient
    fetched_days: Iterator[FetchedDay]


@dataclass(frozen=True)
class Pipeline:
    """The settings of a run, and what is opened with them.

    `on_day` is called with each day as it is finished, `on_warning` with each warning. `as_of` makes the tables show
    what was known at that time. `clock` returns the current time. `processes` is the number of processes for a backfill
    (None: one for each processor; four at most; 1: none, but a thread). An experiment that is older than `judge_reach`,
    and whose judges were never measured, is not measured any more unless it runs again.
    """

    settings: Settings
    on_day: Callable[[date], object] = lambda _day: None
    on_warning: Callable[[str], object] = lambda _text: None
    as_of: datetime | None = None
    clock: Callable[[], datetime] = now
    processes: int | None = None
    judge_reach: timedelta = YOUNG
    _started: list[Fetching] = field(default_factory=list, repr=False, compare=False)

    @property
    def query(self) -> SessionsQuery:
        """The query parameters that narrow down which sessions are read, and the size of a page.

        Raises:
            SettingError: `SESSIONS_PIPELINE_QUERY` is wrong.
        """
        return parse_narrowing(self.settings.query).model_copy(update={"limit": self.settings.page_size})

    def recent_days(self) -> list[date]:
        """The days that the hourly schedule refreshes: the lookback days and today."""
        today, back = utc_day(self.clock()), timedelta(days=self.settings.lookback_days)
        return days_between(max(today - back, self.settings.start_date), today)

    def open_lake(self, *, read_only: bool = False) -> Lake:
        """The lake under the data root.

        Raises:
            LakeError: it can't be opened, or was filled with another query.
        """
        return Lake.open(self.settings.data_root, query=self.settings.query, read_only=read_only)

    def process(
        self, days: Sequence[date], tables: Sequence[Table], warn: Callable[[str], object], on_result: OnResult
    ) -> None:
        """Make these tables for the days, newest first, then for the rows without a day; each is written once complete.

        `on_result` is called for each that was written, also if a signal interrupts the run while it is being written.
        With `raw_sessions` among the tables, the days are read from the API, and its warnings are passed to `warn`.
        Without it, the tables are made from the raw sessions in the lake.

        Raises:
            ApiError: a workspace could not be read; the message names it. Days that did not arrive stay as they were.
            NotReadError: the raw sessions of a day were never read. Nothing is replaced.
            TooManyRejectedError: after all other days, if some have more rejected records than the settings allow.
        """
        lake, work, exceeded = self.open_lake(), partial(process_day, options=self._options(tables)), list[str]()
        with ExitStack() as stack:
            workers = stack.enter_context(self.workers(lake, len(days)))
            tasks: Iterator[tuple[Any, ...]] = _stored_days(lake, days, self.as_of)
            warnings = list[str]()
            if RAW_SESSIONS in tables:
                ahead = self._started.pop() if self._started and self._started[0].days == {*days} else None
                fetching = ahead or stack.enter_context(self._fetch(lake, days))
                tasks, warnings = fetching.fetched_days, fetching.client.warnings
                stack.callback(lambda: [*map(warn, warnings)])

            def pass_on(result: DayResult) -> None:
                if result.exceeded:
                    exceeded.append(result.exceeded)
                else:
                    on_result(_warned(result, warnings))

            workers.run(work, tasks, pass_on)
        if exceeded:
            raise too_many_rejected(exceeded, self.settings.max_rejected_ratio)

    def examine(self, checks: Sequence[Check], span: tuple[date, date] | None) -> dict[str, CheckResult]:
        """The checks' results by name, on the stored days from `span[0]` to `span[1]`, both included (None: all days).

        Each file is read at most once, and only the columns that these checks need. Many days are shared out to
        processes.

        Raises:
            LakeError: a file can't be read.
        """
        lake, time, workspaces = self.open_lake(read_only=True), self.clock(), self.settings.workspace_ids
        recent = {*self.recent_days()} if any(check.days == "recent" for check in checks) else set[date]()
        listed = lake.days(SESSIONS) if any(check.days == "run" for check in checks) else []
        stored = {day for day in listed if span is None or span[0] <= day <= span[1]}
        days, checked = sorted({*stored, *recent}), {"run": stored, "recent": recent}
        tasks = [(day, [check.name for check in checks if day in checked[check.days]]) for day in days]
        with self.workers(lake, len(days)) as workers:
            by_day, work = list[dict[str, CheckResult]](), partial(examine_day, now=time, workspaces=workspaces)
            workers.run(work, tasks, by_day.append)
        by_check = {check.name: [of_day[check.name] for of_day in by_day if check.name in of_day] for check in checks}
        return {
            name: CheckResult.merged([*results, CheckResult(counts={"days": len(results)})])
            for name, results in by_check.items()
        }

    @contextmanager
    def start_fetching(self, days: Sequence[date]) -> Iterator[None]:
        """Start to read these days in the background; `process`, called for them within the block, takes them over.

        For a caller that has other work to do first: loading Dagster takes as long as four slow pages. The run's
        deadline counts from here. Leaving the block may take ten seconds while a connection is being opened.

        Raises:
            SettingError: no key is set, or a setting is wrong.
            LakeError: the lake can't be opened. Errors of the API are raised by `process`.
        """
        with self._fetch(self.open_lake(), days) as fetching:
            self._started.append(fetching)
            try:
                yield
            finally:
                self._started.clear()

    @contextmanager
    def _fetch(self, lake: Lake, days: Sequence[date]) -> Iterator[Fetching]:
        # Noted before the first request, so that a reading that another run commits meanwhile is noticed.
        versions = lake.versions(RAW_SESSIONS, [*days, UNDATED])
        lengths = {reading.asked: reading.length for reading in lake.last_readings(UNDATED)}
        # The executor must be closed after the sources: closing waits for its thread, and that may be waiting for a
        # page until closing the sources stops the client.
        with ThreadPoolExecutor(1, "fetch") as executor, self.sources() as (client, sources):
            received = _read_days(client, sources, days, versions, lengths)
            # Begun here, and waited for where the days are iterated.
            first = map(Future.result, [executor.submit(next, received)])
            yield Fetching(frozenset(days), client, chain(first, received))

    def workers(self, lake: Lake, days: int) -> AbstractContextManager[Workers]:
        """Workers for this many days of the lake: processes for many days, one thread for few."""
        return workers_for(processes_for(days, self.processes), lake, self.settings.data_root, self.settings.query)

    def connect(self) -> SessionsClient:
        """A client for the API. Sends no request yet.

        Raises:
            SettingError: no key is set, or a setting is wrong.
        """
        return SessionsClient(self.settings, clock=self.clock)

    @contextmanager
    def sources(self) -> Iterator[tuple[SessionsClient, list[Source]]]:
        """A source for each workspace id in the settings, or one for the key's own workspace. All share one client.

        Raises:
            SettingError: no key is set, or a setting is wrong.
        """
        query, most, workspaces = self.query, self.settings.concurrency, self.settings.workspace_ids or (None,)
        with self.connect() as client, ThreadPoolExecutor(most, thread_name_prefix="pages") as executor:
            # Shared by the workspaces: with their number only the pages in flight grow, and not the waiting sessions.
            read = partial(Source, client, query, executor, most_waiting=max(1, MOST_WAITING // len(workspaces)))
            try:
                yield client, [read(workspace=workspace, in_flight=most) for workspace in workspaces]
            finally:
                # Closing the executor waits for its threads, which may be waiting for pages that nobody needs any more.
                client.stop()

    def _options(self, tables: Sequence[Table]) -> RunOptions:
        time, kept = self.clock(), self.settings.keep_readings_days
        return RunOptions(
            tables=tuple(table.name for table in tables),
            max_rejected_ratio=self.settings.max_rejected_ratio,
            attributes=self.settings.attributes,
            as_of=self.as_of,
            kept_from=None if kept is None else time - timedelta(days=kept),
            now=time,
        )


def _warned(result: DayResult, warnings: Sequence[str]) -> DayResult:
    """The result, with the API's warnings so far added to the metadata of `raw_sessions`."""
    if not warnings:
        return result
    raw = {**result.metadata.get(RAW_SESSIONS.name, {}), "api_warnings": "; ".join(warnings)}
    return replace(result, metadata={**result.metadata, RAW_SESSIONS.name: raw})


def _stored_days(lake: Lake, days: Sequence[date], as_of: datetime | None) -> Iterator[tuple[Day]]:
    """Days to be made again from their raw sessions, newest first, then the rows without a day if there are any.

    All days are checked before the first is yielded.

    Raises:
        NotReadError: a day was never read, or not yet at `as_of`.
    """
    stored: list[Day] = [*sorted(days, reverse=True), *([UNDATED] if lake.has(RAW_SESSIONS, UNDATED) else [])]
    for day, metadata in lake.each(partial(lake.metadata, RAW_SESSIONS), stored):
        readings_as_of(as_of, day, load_readings(metadata[READINGS]))
    yield from ((day,) for day in stored)


def _read_days(
    client: SessionsClient,
    sources: Sequence[Source],
    days: Sequence[date],
    versions: Mapping[Day, str | None],
    lengths: Mapping[str | None, int],
) -> Iterator[FetchedDay]:
    """Days from the API, newest first, then the undated sessions. A day is yielded once all workspaces have sent it."""
    received, finished = 0, 0
    client.throttle.progress = lambda: f"{finished} of {plural(len(days), 'day')}"
    streams = [source.days(min(days), max(days), length=lengths.get(source.workspace, 0)) for source in sources]
    for fetched in zip(*streams, strict=True):
        received += sum(of_workspace.readings[0].received for of_workspace in fetched)
        day = fetched[0].day
        yield day, [of_workspace._replace(version=versions[day]) for of_workspace in fetched], received
        finished += day is not UNDATED
