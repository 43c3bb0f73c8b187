"""Notifications, sent with Apprise: at most one a day for each cause.

What was sent is remembered until it may be sent again: a day later or, for a budget, in its next period.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple, Self

from sessions_pipeline.days import days_between, midnight, utc_day
from sessions_pipeline.errors import SessionsPipelineError, SettingError
from sessions_pipeline.lake import Lake
from sessions_pipeline.outputs import REPORT_FILE
from sessions_pipeline.outputs.budget_file import load_budgets
from sessions_pipeline.outputs.budgets import BudgetStatus, budget_statuses
from sessions_pipeline.settings import Settings, without_secrets
from sessions_pipeline.tables.raw_sessions import FRESH_WITHIN, why_stale
from sessions_pipeline.tables.readings import last_read

NOTIFY = "SESSIONS_PIPELINE_NOTIFY"
# Separates two addresses. An address may have commas, so the separator must be followed by a scheme.
_SEPARATOR = re.compile(r"[\s,;]+(?=[\w-]+://)")
A_DAY = timedelta(days=1)
REACHED = {"warning": "has reached its warning", "exceeded": "is beyond its limit"}


class Notice(NamedTuple):
    """A notification: what happened, what to do and where to look.

    After it was sent, no other with the same `cause` is sent before `again_from`.
    """

    cause: str
    title: str
    text: str
    again_from: datetime


@dataclass(frozen=True, slots=True)
class Memory:
    """What the sensor remembers from one tick to the next; Dagster stores it as text.

    `began` is the time of the first tick since Dagster was started, `looked` that of the last. Runs that ended after
    `runs_from` are still to be looked at. `sent` has the time from which each cause may be sent again.
    """

    began: datetime
    looked: datetime
    runs_from: datetime
    sent: Mapping[str, datetime] = field(default_factory=dict)

    @classmethod
    def resumed(cls, memory: Self | None, now: datetime) -> Self:
        """`memory` for a tick now; for None, or if the clock was ahead, a new one, which looks back one day first."""
        if memory is None or memory.looked - now > FRESH_WITHIN:
            return cls(now, now, now - A_DAY)
        # Without a tick for so long, Dagster was not running, or this machine was asleep.
        return replace(memory, began=now) if now - memory.looked > FRESH_WITHIN else memory

    def due(self, found: Iterable[Notice], now: datetime) -> list[Notice]:
        """The notices to send now: the first of each cause, without causes that may not be sent again yet."""
        first: dict[str, Notice] = {}
        for notice in found:
            if self.sent.get(notice.cause, now) <= now:
                first.setdefault(notice.cause, notice)
        return list(first.values())

    def after(self, sent: Iterable[Notice], now: datetime, runs_from: datetime) -> Self:
        """The memory after these notices were sent."""
        remaining = {cause: again_from for cause, again_from in self.sent.items() if again_from > now}
        new = {notice.cause: notice.again_from for notice in sent}
        return replace(self, looked=now, runs_from=runs_from, sent={**remaining, **new})


def data_root_notices(settings: Settings, memory: Memory, now: datetime) -> list[Notice]:
    """Notices about the lake's budgets and last refresh, or that they can't be checked.

    If the budgets are wrong, the last refresh is checked all the same.
    """
    statuses, found = list[BudgetStatus](), list[Notice]()
    try:
        lake = Lake.open(settings.data_root, query=settings.query, read_only=True)
        try:
            # The end of a period is read only after it. So for three hours, the budgets of both periods are checked.
            for at in {utc_day(at): at for at in (now - FRESH_WITHIN, now)}.values():
                statuses += budget_statuses(lake, load_budgets(settings), at)
        except SettingError as error:
            found.append(Notice("budgets", "Budgets can't be checked", str(error), now + A_DAY))
        report = f"{settings.absolute_data_root}/{REPORT_FILE}"
        found += lake_notices(statuses, last_refresh(lake, settings, now), memory, now, report)
    except SessionsPipelineError as error:
        found.append(Notice("data root", "The data root can't be read", str(error), now + A_DAY))
    return found


def lake_notices(
    statuses: Iterable[BudgetStatus], last: datetime | None, memory: Memory, now: datetime, report: str
) -> Iterator[Notice]:
    """Notices of budgets at their warning, beyond their limit or wrong, and of a last refresh that is too long ago.

    `last` is when the last refresh of the latest days began (see `last_refresh`), and `report` the address of the
    cost report.
    """
    for status in statuses:
        if happened := "can't be checked" if status.problem else REACHED.get(status.state):
            used = f"Period ending {status.last}: {status.headline}"
            text = "\n".join(filter(None, (used, status.notes, f"See {report}, and `sessions-pipeline budget`.")))
            cause = f"budget {status.budget.name} {status.budget.limit} {status.state} {status.problem or status.last}"
            again_from = now if status.problem else midnight(status.last) + FRESH_WITHIN
            yield Notice(cause, f"Budget {status.budget.name!r} {happened}", text, again_from + A_DAY)
    if now - memory.began > FRESH_WITHIN and (stale := why_stale(last, now)):
        text = f"Today and the days before it were {stale}. See the runs in the UI, and `sessions-pipeline doctor`."
        yield Notice("stall", "No successful refresh for three hours", text, now + A_DAY)


def last_refresh(lake: Lake, settings: Settings, now: datetime) -> datetime | None:
    """When the latest reading of the days that the schedule refreshes began, by the rules of `last_read`."""
    # Yesterday is always included, because just after midnight today was not read yet.
    days = days_between(utc_day(now - timedelta(days=max(settings.lookback_days, 1))), utc_day(now))
    return last_read(chain.from_iterable(lake.readings_of_days(days).values()), settings.workspace_ids)


def check_addresses(settings: Settings) -> None:
    """Refuse addresses for notifications that Apprise does not know.

    Raises:
        SettingError: there are some; the message names them by their position. Or Apprise is not installed.
    """
    if settings.notify and (unknown := services_of(settings)[1]):
        raise SettingError(NOTIFY, f"{', '.join(unknown)}; write addresses such as slack://..., separated by commas")


def services_of(settings: Settings) -> tuple[Any, list[str]]:
    """An `Apprise` with the addresses in the settings; and texts that name those it does not know, by their position.

    Raises:
        SettingError: Apprise is not installed; the message says how to install it.
    """
    try:
        from apprise import Apprise  # noqa: PLC0415 - the import takes a third of a second, and few need it
    except ImportError:
        raise SettingError(NOTIFY, "needs Apprise: `pip install 'sessions-pipeline[notify]'`") from None

    # Apprise may log addresses, which are secret.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    services = Apprise()
    addresses = _SEPARATOR.split(settings.notify.get_secret_value()) if settings.notify else []
    unknown = [place for place, address in enumerate(addresses, 1) if not services.add(address)]
    return services, [f"address {place}, which Apprise does not know" for place in unknown]


def deliver(settings: Settings, title: str, text: str, seconds: float) -> tuple[list[str], list[str]]:
    """Send a notification to every address, within a number of seconds, and without secrets.

    Returns the names of the services that accepted it, and of those that did not.

    Raises:
        SettingError: see `services_of`.
    """
    services, unknown = services_of(settings)
    results = services.notify(
        without_secrets(text),
        title=f"sessions-pipeline: {without_secrets(title)}",
        notify_type="warning",
        body_format="text",
        timeout=seconds,
    )
    return [result.name for result in results if result], [result.name for result in results if not result] + unknown
