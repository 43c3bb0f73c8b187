"""Notifications: one for each cause and day, sent by Apprise.

What was sent is remembered until it may be sent again: a day later, or for a budget in its next period.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from importlib.util import find_spec
from typing import Any, NamedTuple, Self

import msgspec

from sessions_pipeline.days import days_between, midnight, utc_day
from sessions_pipeline.errors import SessionsPipelineError, SettingError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.outputs import REPORT_FILE
from sessions_pipeline.outputs.budget_file import load_budgets
from sessions_pipeline.outputs.budgets import BudgetStatus, budget_statuses
from sessions_pipeline.settings import Settings, without_secrets
from sessions_pipeline.tables.raw_sessions import FRESH_WITHIN

NOTIFY = "SESSIONS_PIPELINE_NOTIFY"
# Between two addresses, which may have commas themselves.
_NEXT = re.compile(r"[\s,;]+(?=[\w-]+://)")
A_DAY = timedelta(days=1)
BUDGETS = {"warning": "has reached its warning", "exceeded": "is beyond its limit"}


class Notice(NamedTuple):
    """What happened, what to do and where to look; nothing is sent of the same cause before `again_from`."""

    cause: str
    title: str
    text: str
    again_from: datetime


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered from one look to the next: the times of the first and the last, and what was sent.

    Runs that ended after `runs_from` are still to be looked at; `sent` has for each cause when it may be sent again.
    """

    began: datetime
    looked: datetime
    runs_from: datetime
    sent: Mapping[str, datetime] = field(default_factory=dict)

    def dump(self) -> str:
        """As text, for Dagster to keep."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def load(cls, text: str | None, now: datetime) -> Self:
        """From its text; the first look goes a day back."""
        return msgspec.json.decode(text, type=cls) if text else cls(now, now, now - A_DAY)

    def due(self, found: Iterable[Notice], now: datetime) -> list[Notice]:
        """Of each cause the first, unless it was sent and may not be sent again yet."""
        first: dict[str, Notice] = {}
        for notice in found:
            if self.sent.get(notice.cause, now) <= now:
                first.setdefault(notice.cause, notice)
        return list(first.values())

    def after(self, sent: Iterable[Notice], now: datetime, runs_from: datetime) -> Self:
        """The memory when these were sent."""
        still = {cause: again_from for cause, again_from in self.sent.items() if again_from > now}
        new = {notice.cause: notice.again_from for notice in sent}
        return replace(self, looked=now, runs_from=runs_from, sent={**still, **new})


def look(settings: Settings, memory: Memory, now: datetime) -> list[Notice]:
    """What the data root says, or why it can't be looked at; wrong budgets hide no stall."""
    statuses, found = list[BudgetStatus](), list[Notice]()
    try:
        lake = Lake.open(settings.data_root, query=settings.query, read_only=True)
        try:
            statuses = budget_statuses(lake, load_budgets(settings), now)
        except SettingError as error:
            found.append(Notice("budgets", "Budgets can't be looked at", str(error), now + A_DAY))
        report = f"{settings.absolute_data_root}/{REPORT_FILE}"
        found += lake_notices(statuses, last_refresh(lake, settings, now), memory, now, report)
    except SessionsPipelineError as error:
        found.append(Notice("data root", "The data root can't be looked at", str(error), now + A_DAY))
    return found


def lake_notices(
    statuses: Iterable[BudgetStatus], last: datetime | None, memory: Memory, now: datetime, report: str
) -> Iterator[Notice]:
    """Budgets at their warning, beyond their limit or wrong, and that the last refresh began hours ago.

    `report` is the address of the cost report.
    """
    for status in statuses:
        if happened := "can't be looked at" if status.problem else BUDGETS.get(status.state):
            says = (status.headline, status.caveats, f"See {report}, and `sessions-pipeline budget`.")
            text = "\n".join(filter(None, says))
            cause = f"budget {status.budget.name} {status.budget.limit} {status.state}"
            again_from = now if status.problem else midnight(status.last)
            yield Notice(cause, f"Budget {status.budget.name!r} {happened}", text, again_from + A_DAY)
    # Where nobody looked for so long either, this was not running, and a refresh is on its way.
    if now - (last or memory.began) > FRESH_WITHIN >= now - memory.looked:
        read = f"The last one began at {last:%Y-%m-%d %H:%M} UTC" if last else "There was none yet"
        text = f"{read}. See the runs in the Dagster UI; `sessions-pipeline doctor` says whether the API can be read."
        yield Notice("stall", "No successful refresh for three hours", text, now + A_DAY)


def last_refresh(lake: Lake, settings: Settings, now: datetime) -> datetime | None:
    """When the latest reading of the days that the schedule refreshes began; None: there was none.

    Of several workspaces (those of the settings, else all that were read) the one that was left behind counts.
    """
    today, latest = utc_day(now), dict[str | None, datetime]()
    # Just after midnight nobody has read today yet.
    for day in days_between(today - timedelta(days=max(settings.lookback_days, 1)), today):
        for one in lake.last_readings(day):
            if one.asked in (settings.workspace_ids or (one.asked,)):
                latest[one.asked] = max(one.fetched_at, latest.get(one.asked, one.fetched_at))
    return min(latest.values(), default=None)


def require_apprise() -> None:
    """Refuse to start where nothing could be sent.

    Raises:
        SettingError: the extra is not installed.
    """
    if find_spec("apprise") is None:
        raise SettingError(NOTIFY, "needs Apprise; run `pip install 'sessions-pipeline[notify]'`")


def services_of(settings: Settings) -> tuple[Any, list[str]]:
    """Where notifications go, as an `Apprise`, and which addresses Apprise does not know, by their places.

    Raises:
        SettingError: there are no addresses that it knows.
    """
    require_apprise()
    from apprise import Apprise  # noqa: PLC0415 - half a second, for those who send alone

    # Its log may name addresses.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    services = Apprise()
    addresses = _NEXT.split(settings.notify.get_secret_value()) if settings.notify else []
    unknown = [place for place, address in enumerate(addresses, 1) if not services.add(address)]
    if len(unknown) == len(addresses):
        raise SettingError(NOTIFY, "should be addresses that Apprise knows, such as slack://..., separated by commas")
    return services, [f"address {place}, which Apprise does not know" for place in unknown]


def deliver(settings: Settings, title: str, text: str, seconds: float) -> tuple[list[str], list[str]]:
    """Send to every address within a time; the services that took it, and those that did not.

    Raises:
        SettingError: there are no addresses that Apprise knows.
    """
    services, unknown = services_of(settings)
    from apprise import NotifyFormat, NotifyType  # noqa: PLC0415

    results = services.notify(
        without_secrets(text),
        title=f"sessions-pipeline: {without_secrets(title)}",
        notify_type=NotifyType.WARNING,
        body_format=NotifyFormat.TEXT,
        timeout=seconds,
    )
    return [one.name for one in results if one], [one.name for one in results if not one] + unknown
