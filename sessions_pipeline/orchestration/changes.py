"""Which older days have changed since the last look. Pure but for reading Dagster's runs in progress."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import dagster as dg

from sessions_pipeline.days import day_of_us, days_between
from sessions_pipeline.langsmith.activity import Activity
from sessions_pipeline.orchestration.partitions import tagged_range

# A run is listed under the time it started, yet may arrive when it ends: look this far back again.
OVERLAP = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a sensor remembers: how far it looked and when, what it saw in the overlap, and days still to be asked for.

    `since` is the latest activity that it saw, `looked` the time of its last look.
    """

    since: datetime
    looked: datetime
    seen: dict[str, str] = field(default_factory=dict)
    pending: tuple[date, ...] = ()

    def dump(self) -> str:
        """As text, for Dagster to keep."""
        pending = [day.isoformat() for day in self.pending]
        times = {"since": self.since.isoformat(), "looked": self.looked.isoformat()}
        return json.dumps({**times, "seen": self.seen, "pending": pending})

    @classmethod
    def load(cls, text: str | None, now: datetime) -> "Cursor":
        """From its text; the first look begins one overlap before now."""
        if not text:
            return cls(now, now)
        values = json.loads(text)
        return cls(
            datetime.fromisoformat(values["since"]),
            datetime.fromisoformat(values["looked"]),
            values["seen"],
            tuple(date.fromisoformat(day) for day in values["pending"]),
        )

    @property
    def look_from(self) -> datetime:
        """The time from which activity is to be listed."""
        return self.since - OVERLAP

    def after(self, activity: Iterable[Activity], *, first: date, last: date) -> "Cursor":
        """The cursor after a whole listing: days from `first` to `last` with activity not seen before are pending."""
        latest = self.since
        seen: dict[str, str] = {}
        days = set(self.pending)
        for active in activity:
            latest = max(latest, active.latest_run)
            seen[active.session] = active.latest_run.isoformat()
            if active.start_us is None or self.seen.get(active.session) == seen[active.session]:
                continue
            day = day_of_us(active.start_us)
            if first <= day <= last:
                days.add(day)
        return Cursor(latest, self.looked, seen, tuple(sorted(days)))


def days_being_read(instance: dg.DagsterInstance, job: str) -> set[date]:
    """The days of the job's runs that wait or run."""
    unfinished = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    return _days_of_runs(instance, dg.RunsFilter(job_name=job, statuses=unfinished))


def days_that_failed(instance: dg.DagsterInstance, sensor: str, since: datetime) -> set[date]:
    """The days of the sensor's runs that have failed or were cancelled since a time."""
    failed = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    tags = {"dagster/sensor_name": sensor}
    return _days_of_runs(instance, dg.RunsFilter(statuses=failed, tags=tags, updated_after=since))


def _days_of_runs(instance: dg.DagsterInstance, filters: dg.RunsFilter) -> set[date]:
    days: set[date] = set()
    for run in instance.get_runs(filters=filters):
        span = tagged_range(run.tags)
        if span is not None:
            days.update(days_between(*span))
    return days
