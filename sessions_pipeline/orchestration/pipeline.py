"""What a run works with: settings, the lake and the API's days. A plain object that Dagster hands to the assets."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from itertools import chain
from typing import NamedTuple

from sessions_pipeline.days import days_between, now, utc_day
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.query import SessionsQuery, parse_narrowing
from sessions_pipeline.langsmith.source import Source
from sessions_pipeline.orchestration.workers import Workers, processes_for, workers_for
from sessions_pipeline.process_day import DayResult, DayTask, process_day
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import RAW_SESSIONS, Table
from sessions_pipeline.tables.derived_day import Rules
from sessions_pipeline.tables.judge_cost_by_experiment import YOUNG
from sessions_pipeline.tables.readings import READINGS, load_readings, readings_as_of


class Fetching(NamedTuple):
    """Days that are being read from the API, with their client, and what comes of them; it comes once."""

    days: frozenset[date]
    client: SessionsClient
    tasks: Iterator[DayTask]


@dataclass(frozen=True)
class Pipeline:
    """Settings and the doors they open.

    `on_day` is told of each day as it is finished, `on_warning` of what the run warns of; `as_of` makes tables say what
    was known at that time; `clock` tells the time; `processes` is how many a backfill is shared out to (None: one for
    each processor, four at most). Judges of experiments older than `judge_reach` are not measured
    if they never were.
    """

    settings: Settings
    on_day: Callable[[date], object] = lambda _day: None
    on_warning: Callable[[str], object] = lambda _text: None
    as_of: datetime | None = None
    clock: Callable[[], datetime] = now
    processes: int | None = None
    judge_reach: timedelta = YOUNG
    _begun: list[Fetching] = field(default_factory=list, repr=False, compare=False)

    @property
    def query(self) -> SessionsQuery:
        """What narrows the sessions that are read.

        Raises:
            SettingError: `SESSIONS_PIPELINE_QUERY` is wrong.
        """
        return parse_narrowing(self.settings.query)

    def recent_days(self) -> list[date]:
        """What the hourly schedule refreshes: the lookback days and today."""
        today, back = utc_day(self.clock()), timedelta(days=self.settings.lookback_days)
        return days_between(max(today - back, self.settings.start_date), today)

    def warner(self, log: logging.Logger) -> Callable[[str], object]:
        """What says a warning in Dagster's log, and to `on_warning`."""

        def warn(text: str) -> None:
            log.warning(text)
            self.on_warning(text)

        return warn

    def open_lake(self, *, read_only: bool = False) -> Lake:
        """The lake under the data root.

        Raises:
            LakeError: it can't be opened, or was filled with another query.
        """
        return Lake.open(self.settings.data_root, query=self.settings.query, read_only=read_only)

    def process(
        self, days: Sequence[date], tables: Sequence[Table], warn: Callable[[str], object]
    ) -> Iterator[DayResult]:
        """Make these tables of the days, newest first, and of the rows without a day; each is written when it comes.

        With `raw_sessions` among them they are read from the API, whose warnings `warn` is told; else from the lake.

        Raises:
            ApiError: a workspace could not be read, the text names it; days that did not come stay as they were.
            NotReadError: a day's raw sessions were never read; nothing is replaced.
        """
        lake, work = self.open_lake(), partial(process_day, rules=self._rules(tables))
        with self.workers(lake, len(days)) as workers:
            if RAW_SESSIONS not in tables:
                yield from workers.each(work, _stored_days(lake, days, self.as_of))
                return
            begun = self._begun.pop() if self._begun and self._begun[0].days == {*days} else None
            with nullcontext(begun) if begun else self._fetch(lake, days) as fetching:
                try:
                    for result in workers.each(work, fetching.tasks):
                        yield _warned(result, fetching.client.warnings)
                finally:
                    for warning in fetching.client.warnings:
                        warn(warning)

    @contextmanager
    def begin(self, days: Sequence[date]) -> Iterator[None]:
        """Read these days already, some ahead, until `process` asks for them, or the block ends.

        For a caller that has something to do before: loading Dagster takes as long as four slow pages. The run's
        deadline counts from here. At the end of the block a connection that is being opened may take its ten seconds.

        Raises:
            SettingError: no key is set, or a setting is wrong.
            LakeError: the lake can't be opened. What the API refuses is raised by `process`.
        """
        with self._fetch(self.open_lake(), days) as fetching:
            self._begun.append(fetching)
            try:
                yield
            finally:
                self._begun.clear()

    @contextmanager
    def _fetch(self, lake: Lake, days: Sequence[date]) -> Iterator[Fetching]:
        # Before the first request: readings that are committed while this one goes on are newer than these versions.
        bases = lake.versions(RAW_SESSIONS, [*days, UNDATED])
        # Ends after the sources, whose end wakes a thread that waits for a page.
        with ThreadPoolExecutor(1, "begin") as executor, self.sources() as (client, sources):
            tasks = _read_days(client, sources, days, bases)
            first = executor.submit(next, tasks)
            yield Fetching(frozenset(days), client, chain((one.result() for one in [first]), tasks))

    def workers(self, lake: Lake, days: int) -> AbstractContextManager[Workers]:
        """What works on this many days of the lake: processes for many, a thread for few."""
        return workers_for(processes_for(days, self.processes), lake, self.settings.data_root, self.settings.query)

    def connect(self) -> SessionsClient:
        """A client for the API; sends nothing yet.

        Raises:
            SettingError: no key is set, or a setting is wrong.
        """
        return SessionsClient.from_settings(self.settings, clock=self.clock)

    @contextmanager
    def sources(self) -> Iterator[tuple[SessionsClient, list[Source]]]:
        """The ways into the API's workspaces, one for each id in the settings, sharing connections and patience.

        Raises:
            SettingError: no key is set, or a setting is wrong.
        """
        query, size, most = self.query, self.settings.page_size, self.settings.concurrency
        with self.connect() as client, ThreadPoolExecutor(most, thread_name_prefix="pages") as executor:
            read = partial(Source, client, query, executor, page_size=size, in_flight=most)
            try:
                yield client, [read(workspace=asked) for asked in self.settings.workspace_ids or (None,)]
            finally:
                # The executor waits for its workers, and they may be waiting for pages that nobody needs any more.
                client.stop()

    def _rules(self, tables: Sequence[Table]) -> Rules:
        time, kept = self.clock(), self.settings.keep_readings_days
        return Rules(
            tables=tuple(table.name for table in tables),
            max_rejected_ratio=self.settings.max_rejected_ratio,
            attributes=self.settings.attributes,
            as_of=self.as_of,
            kept_from=None if kept is None else time - timedelta(days=kept),
            now=time,
        )


def _warned(result: DayResult, warnings: Sequence[str]) -> DayResult:
    """The result with what the API has warned of so far, as metadata of `raw_sessions`."""
    if not warnings:
        return result
    raw = {**result.metadata.get(RAW_SESSIONS.name, {}), "api_warnings": "; ".join(warnings)}
    return replace(result, metadata={**result.metadata, RAW_SESSIONS.name: raw})


def _stored_days(lake: Lake, days: Sequence[date], as_of: datetime | None) -> Iterator[DayTask]:
    """The days to be made again from their raw sessions, newest first, then the rows without a day if there are any.

    Raises:
        NotReadError: a day was never read, or not by `as_of`; nothing is replaced.
    """
    undated: list[Day] = [UNDATED] if lake.has(RAW_SESSIONS, UNDATED) else []
    stored = [*sorted(days, reverse=True), *undated]
    for day in stored:
        readings_as_of(as_of, day, load_readings(lake.metadata(RAW_SESSIONS, day)[READINGS]))
    yield from map(DayTask, stored)


def _read_days(
    client: SessionsClient, sources: Sequence[Source], days: Sequence[date], bases: dict[Day, str | None]
) -> Iterator[DayTask]:
    """Days from the API, newest first, then the undated sessions; a day comes when all workspaces have it."""
    received, finished = 0, 0
    client.throttle.progress = lambda: f"{finished} of {len(days)} days"
    streams = [source.days(min(days), max(days)) for source in sources]
    for fetched in zip(*streams, strict=True):
        received += sum(one.received for one in fetched)
        day = fetched[0].day
        yield DayTask(day, fetched, bases[day], received)
        finished += day is not UNDATED
