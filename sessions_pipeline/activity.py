"""Recent activity: which older days have sessions with new runs, and so should be read again.

A look lists the sessions that were active since the last one. If its time is over before the list is complete, the days
that it found so far are requested, and the next look continues at the same place. If nothing was listed, or the API no
longer knows the place, the list starts from the beginning.
"""

from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from sessions_pipeline.days import day_of_us, utc_day
from sessions_pipeline.errors import DeadlineExceededError
from sessions_pipeline.langsmith.lists import NEWEST, Activity, Place, active_since
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.settings import Settings

# Days older than `OLD_AFTER` are refreshed only once in `OLD_INTERVAL`. Otherwise every project that is always active
# would cost a run and a reading an hour, for ever. Half an hour less than a day, since ticks do not come to the second.
OLD_AFTER, OLD_INTERVAL = timedelta(days=31), timedelta(hours=23, minutes=30)
# A session's run is listed by its start time, but may arrive only when it ends. So each look goes this far back again.
OVERLAP = timedelta(hours=2)
# A time without a zone can't be compared with others.
AwareDatetime: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class Stopped(NamedTuple):
    """Where a look stopped: the next one continues in this workspace at this place.

    `since` becomes the cursor's `since` when the look is complete.
    """

    workspace: str | None
    place: Place
    since: AwareDatetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers from one tick to the next; Dagster stores it as text.

    `since` is the latest activity that complete looks have seen, `looked` the time of the last tick. `seen` has the
    latest run of each session in the overlap, as ISO 8601. `pending` are changed days that are still to be requested.
    `stopped` is set while a look is incomplete. `requested` are days older than `OLD_AFTER`, with the request's time.
    """

    since: AwareDatetime
    looked: AwareDatetime
    seen: dict[str, str] = field(default_factory=dict)
    pending: tuple[date, ...] = ()
    stopped: Stopped | None = None
    requested: dict[date, AwareDatetime] = field(default_factory=dict)

    def after(self, look: "Look", *, first: date, last: date, now: datetime) -> "Cursor":
        """The cursor after a look, with the days from `first` to `last` that had new activity among the pending.

        The schedule refreshes the days after `last`. Their activity is not noted as seen: if the schedule does not read
        such a day before it becomes too old for it, the sensor has to.
        """
        seen, days = dict(self.seen), set(self.pending)
        # If a look takes several ticks, only the first has surely listed the latest activity of every workspace. The
        # clients set the times of runs: one in the future must not hide those that come before it.
        latest = self.stopped.since if self.stopped else max([self.since, *(one.last_active for one in look.listed)])
        since = min(now, latest)
        for active in look.listed:
            day = None if active.start_us is None else day_of_us(active.start_us)
            if day is not None and day > last:
                continue
            at = active.last_active.isoformat()
            if day is not None and day >= first and self.seen.get(active.session) != at:
                days.add(day)
            seen[active.session] = at
        pending = tuple(sorted(days))
        if look.stopped_at:
            stopped = Stopped(*look.stopped_at, since) if self.stopped or look.listed else None
            return replace(self, seen=seen, pending=pending, stopped=stopped)
        oldest = (since - OVERLAP).isoformat()
        recent = {session: at for session, at in seen.items() if at >= oldest}
        return replace(self, since=since, seen=recent, pending=pending, stopped=None)


class Look(NamedTuple):
    """What a tick listed, and the workspace and place at which its time was over; None if the list is complete."""

    listed: list[Activity]
    stopped_at: tuple[str | None, Place] | None = None


def next_look(
    before: Cursor, look: Look, settings: Settings, *, time: datetime, being_read: set[date], failed: set[date]
) -> tuple[Cursor, set[date]]:
    """The next cursor and the days to refresh now: those that changed, and those of `failed` runs again.

    Days that are `being_read` stay pending, and so do days older than `OLD_AFTER` that were requested within
    `OLD_INTERVAL`. The lookback days and today are left to the schedule.
    """
    last = utc_day(time) - timedelta(days=settings.lookback_days + 1)
    after = before.after(look, first=settings.start_date, last=last, now=time)
    requested = {day: at for day, at in before.requested.items() if abs(time - at) < OLD_INTERVAL}
    changed, waiting = {*after.pending, *failed}, being_read | (requested.keys() - failed)
    days = changed - waiting
    requested |= {day: time for day in days if day < utc_day(time) - OLD_AFTER}
    return replace(after, looked=time, pending=tuple(sorted(changed & waiting)), requested=requested), days


def list_activity(pipeline: Pipeline, before: Cursor, seconds: float) -> Look:
    """List the activity since the last look in every workspace, or as much of it as arrives within `seconds`.

    Raises:
        ApiError: a workspace could not be listed.
    """
    listed, query, since = list[Activity](), pipeline.query, before.since - OVERLAP
    with pipeline.sources() as (client, sources):
        client.throttle.end_within(seconds)
        names, stopped, place, begin = [one.workspace for one in sources], before.stopped, NEWEST, 0
        if stopped and stopped.workspace in names:
            begin, place = names.index(stopped.workspace), stopped.place
        for source in sources[begin:]:
            try:
                with source.named():
                    pages = active_since(client, query, workspace=source.workspace, since=since, place=place)
                    for found, place in pages:  # noqa: B007 - `place` is needed if the next page does not arrive
                        listed += found
            except DeadlineExceededError:
                return Look(listed, (source.workspace, place))
            place = NEWEST
    return Look(listed)
