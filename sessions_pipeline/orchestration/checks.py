"""Promises as asset checks, examined on the files of the run's days (or of all days, when run alone)."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import dagster as dg
import pyarrow as pa

from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.orchestration.partitions import rows_by_day, tagged_range
from sessions_pipeline.orchestration.pipeline import Pipeline, now
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    RAW_SESSIONS,
    REJECTED_SESSIONS,
    SESSION_FEEDBACK,
    SESSIONS,
    Table,
    quality,
)
from sessions_pipeline.tables.quality import Finding
from sessions_pipeline.tables.readings import READINGS, last_read, load_readings

# Rejected records below this share are everyday noise; the fuse in the settings guards against more.
REJECTED_SHARE = 0.05
# The schedule runs hourly: two missed hours are a hiccup, three a fault.
FRESH_WITHIN = timedelta(hours=3)


class Examined:
    """The files of some days; sessions are read a day at a time, so that memory does not grow with their number."""

    def __init__(self, lake: Lake, days: Sequence[date], settings: Settings) -> None:
        self.lake = lake
        self.settings = settings
        self.days = [day for day in days if lake.has(SESSIONS, day)]

    def sessions(self, *columns: str) -> Iterator[pa.Table]:
        """Columns of `sessions`, with `start_date`, day by day."""
        return (self.lake.read_days(SESSIONS, [day], columns) for day in self.days)

    @cached_property
    def count(self) -> int:
        """How many sessions there are."""
        return sum(part.num_rows for part in self.sessions("missing_since"))

    @cached_property
    def rejected(self) -> pa.Table:
        """Reasons and reading times of `rejected_sessions`, with `start_date`."""
        return self.lake.read_days(REJECTED_SESSIONS, self.days, ("reasons", "fetched_at"))

    @cached_property
    def daily(self) -> pa.Table:
        """`daily_cost_by_reference_dataset`, with `start_date`."""
        days = [day for day in self.days if self.lake.has(DAILY_COST_BY_REFERENCE_DATASET, day)]
        return self.lake.read_days(DAILY_COST_BY_REFERENCE_DATASET, days)

    @cached_property
    def metadata(self) -> Mapping[date, Mapping[str, str]]:
        """What was stored with each day of `sessions`."""
        return {day: self.lake.metadata(SESSIONS, day) for day in self.days}


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise: what it is called, which table makes it, what it says, and how bad it is when broken."""

    asset: Table
    says: str
    examine: Callable[[Examined], Finding]
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


def _accounted(days: Examined) -> Finding:
    broken, totals = [], Counter[str]()
    rejected_by_day = rows_by_day(days.rejected)
    for day, sessions in zip(days.days, days.sessions("fetched_at", "missing_since"), strict=True):
        rejected = rejected_by_day.get(day, days.rejected.slice(0, 0))
        readings = load_readings(days.metadata[day])
        received, valid, refused, repeated = quality.every_record_is_accounted_for(readings, sessions, rejected)
        totals.update(received=received, valid=valid, rejected=refused, repeated=repeated)
        if received != valid + refused + repeated:
            broken.append(f"{day}: received {received}, valid {valid}, rejected {refused}, repeated {repeated}")
    return Finding.of(broken, **totals)


def _agree(days: Examined) -> Finding:
    broken = []
    for day in days.days:
        for table in (
            RAW_SESSIONS,
            REJECTED_SESSIONS,
            DAILY_COST_BY_REFERENCE_DATASET,
            SESSION_FEEDBACK,
            EXPERIMENT_SUMMARY,
        ):
            known = days.lake.has(table, day)
            if known and days.lake.metadata(table, day).get(READINGS) != days.metadata[day].get(READINGS):
                broken.append(f"{table.name} of {day}")
    return Finding.of(broken, days=len(days.days))


def _shrunk(days: Examined) -> Finding:
    shrunk = [name for day in days.days for name in json.loads(days.metadata[day].get("shrunk", "[]"))]
    return Finding.of(shrunk, sessions=days.count)


def _drift(days: Examined) -> Finding:
    seen: dict[str, tuple[int, date]] = {}
    for day in sorted(days.days):
        for name, count in json.loads(days.metadata[day].get("drift", "{}")).items():
            before, first = seen.get(name, (0, day))
            seen[name] = before + count, first
    return quality.schema_has_not_drifted(seen)


def _rejected_share(days: Examined) -> Finding:
    reasons = Counter(reason for row in days.rejected.column("reasons").to_pylist() for reason in row)
    return quality.rejected_share_is_low(days.count, days.rejected.num_rows, reasons, REJECTED_SHARE)


def _fresh(days: Examined) -> Finding:
    time = now()
    recent = [time.date() - timedelta(days=back) for back in range(days.settings.lookback_days + 1)]
    latest = {
        day: last_read(days.lake.metadata(SESSIONS, day)) if days.lake.has(SESSIONS, day) else None
        for day in recent
        if day >= days.settings.start_date
    }
    return quality.recent_days_are_fresh(latest, time, FRESH_WITHIN)


PROMISES = {
    "every_record_is_accounted_for": Promise(
        RAW_SESSIONS, "What the latest reading received is valid, rejected or repeated: nothing is lost.", _accounted
    ),
    "recent_days_are_fresh": Promise(
        RAW_SESSIONS,
        "Today and the lookback days were read within three hours.",
        _fresh,
        dg.AssetCheckSeverity.WARN,
    ),
    "session_ids_are_unique": Promise(
        SESSIONS,
        "Every session is in the lake once.",
        lambda days: quality.session_ids_are_unique(days.lake.read_days(SESSIONS, days.days, ("id",))),
    ),
    "sessions_start_on_their_day": Promise(
        SESSIONS,
        "Every session lies under the UTC day it started.",
        lambda days: Finding.joined(
            [quality.sessions_start_on_their_day(part) for part in days.sessions("id", "start_time")]
        ),
    ),
    "tables_of_a_day_agree": Promise(SESSIONS, "All tables of a day come from the same readings.", _agree),
    "no_reading_shrinks": Promise(
        SESSIONS,
        "No session's newest reading says less than an earlier one without retention to explain it.",
        _shrunk,
        dg.AssetCheckSeverity.WARN,
    ),
    "schema_has_not_drifted": Promise(
        SESSIONS,
        "The API sends no property or value that its schema does not name.",
        _drift,
        dg.AssetCheckSeverity.WARN,
    ),
    "rejected_share_is_low": Promise(
        REJECTED_SESSIONS,
        "At most one record in twenty is rejected.",
        _rejected_share,
        dg.AssetCheckSeverity.WARN,
    ),
    "costs_add_up": Promise(
        DAILY_COST_BY_REFERENCE_DATASET,
        "The daily sums equal sums made again from the sessions.",
        lambda days: quality.costs_add_up(days.daily, days.sessions("tenant_id", "reference_dataset_id", "total_cost")),
    ),
    "no_cost_is_invented": Promise(
        DAILY_COST_BY_REFERENCE_DATASET,
        "A sum is unknown exactly where no session has a cost; unknown is never zero.",
        lambda days: quality.no_cost_is_invented(days.daily),
    ),
}


def asset_checks() -> list[dg.AssetChecksDefinition]:
    """The promises of the sessions' tables, and of the costs."""
    sessions = [name for name, promise in PROMISES.items() if promise.asset is not DAILY_COST_BY_REFERENCE_DATASET]
    return [
        _checks("check_sessions", sessions),
        _checks("check_daily_costs", [name for name in PROMISES if name not in sessions]),
    ]


def _checks(name: str, promises: list[str]) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=name,
        specs=[
            dg.AssetCheckSpec(promise, asset=PROMISES[promise].asset.name, description=PROMISES[promise].says)
            for promise in promises
        ],
        can_subset=True,
    )
    def check(
        context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.AssetCheckResult]:
        lake = pipeline.open_lake(read_only=True)
        examined = Examined(lake, _days(context, lake), pipeline.settings)
        for key in sorted(context.selected_asset_check_keys):
            promise = PROMISES[key.name]
            finding = promise.examine(examined)
            yield dg.AssetCheckResult(
                passed=finding.passed,
                asset_key=key.asset_key,
                check_name=key.name,
                severity=promise.severity,
                metadata={**finding.numbers, "days": len(examined.days)},
            )

    return check


def _days(context: dg.AssetCheckExecutionContext, lake: Lake) -> list[date]:
    span = tagged_range(context.run.tags)
    return [day for day in lake.days(SESSIONS) if span is None or span[0] <= day <= span[1]]
