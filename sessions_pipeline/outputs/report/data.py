"""What the report is made from: plain tables with fixed schemas, cut to the days that it is about."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.outputs.formatting import total
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT, DAILY_COST_BY_REFERENCE_DATASET, EXPERIMENT_SUMMARY
from sessions_pipeline.validation.arrays import text_array
from sessions_pipeline.validation.types import MONEY, TIMESTAMP

DAY = pa.field("start_date", pa.date32())
DAILY = pa.schema([DAY, *DAILY_COST_BY_REFERENCE_DATASET.schema])
EXPERIMENTS = pa.schema([DAY, *EXPERIMENT_SUMMARY.schema])
PROJECTS = pa.schema([pa.field("usage_date", pa.date32()), *DAILY_COST_BY_PROJECT.schema])
REJECTED = pa.schema([DAY, pa.field("rejected", pa.int64())])
"""How many records of a day were rejected; null for those whose day cannot be known."""
SESSIONS = pa.schema(
    [
        DAY,
        pa.field("reference_dataset_id", pa.string()),
        pa.field("total_cost", MONEY),
        pa.field("fetched_at", TIMESTAMP),
        pa.field("stats_as_of", TIMESTAMP),
        pa.field("missing_since", TIMESTAMP),
    ]
)
"""The columns of `sessions` that tell which readings were kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Experiments whose numbers the API no longer gives, so that an earlier reading stands for them.

    `cost` is what they cost, US dollars, exact; None when none of it is known.
    """

    count: int = 0
    cost: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ReportData:
    """What the report says, before any layout.

    `daily` (schema `DAILY`) reaches back over the period before, too, which has as many days and ends where this one
    begins, and may hold rows without a day. `experiments` (`EXPERIMENTS`), `projects` (`PROJECTS`) and `rejected`
    (`REJECTED`) hold rows of the period only, `rejected` also those without a day. `projects` is None where usage by
    project was never measured. `days_read` are the days of both periods that were read. `names` gives datasets' names
    by id. `read_at` is the time of the latest reading.
    """

    first: date
    last: date
    daily: pa.Table = field(default_factory=DAILY.empty_table)
    experiments: pa.Table = field(default_factory=EXPERIMENTS.empty_table)
    projects: pa.Table | None = None
    rejected: pa.Table = field(default_factory=REJECTED.empty_table)
    kept: Kept = Kept()
    days_read: frozenset[date] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    read_at: datetime | None = None

    @property
    def days(self) -> tuple[date, ...]:
        """The days that were asked for."""
        return tuple(self.first + timedelta(days=count) for count in range((self.last - self.first).days + 1))

    @property
    def before(self) -> tuple[date, ...]:
        """The days of the period before."""
        asked = self.days
        return tuple(day - timedelta(days=len(asked)) for day in asked)


def report_data(
    *,
    first: date,
    last: date,
    daily: pa.Table,
    experiments: pa.Table,
    rejected: pa.Table,
    sessions: pa.Table,
    days_read: Collection[date],
    projects: pa.Table | None = None,
    names: Mapping[str, str] | None = None,
    read_at: datetime | None = None,
) -> ReportData:
    """Cut the lake's tables to what the report needs, `first` and `last` included.

    Each table may hold more days and columns than needed: `daily`, `experiments` and `sessions` (columns `SESSIONS`)
    have `start_date` in front, `projects` has `usage_date`, `rejected` is `rejected_sessions` with `start_date` (its
    other columns are not looked at). `read_at` defaults to the latest `fetched_at`.

    Raises:
        KeyError: a column is missing.
        pyarrow.ArrowInvalid: a column does not fit its type.
    """
    earliest = first - (last - first) - timedelta(days=1)
    counted = rejected.select([DAY.name]).cast(pa.schema([DAY]))
    counted = _within(counted, DAY.name, first, last, undated=True).group_by(DAY.name).aggregate([([], "count_all")])
    used = _within(_fit(sessions, SESSIONS), DAY.name, first, last)
    return ReportData(
        first=first,
        last=last,
        daily=_within(_fit(daily, DAILY), DAY.name, earliest, last, undated=True),
        experiments=_within(_fit(experiments, EXPERIMENTS), DAY.name, first, last),
        projects=None if projects is None else _within(_fit(projects, PROJECTS), "usage_date", first, last),
        rejected=counted.rename_columns(REJECTED.names).cast(REJECTED).sort_by(DAY.name),
        kept=_kept(used),
        days_read=frozenset(day for day in days_read if earliest <= day <= last),
        names=dict(names or {}),
        read_at=read_at or pc.max(used.column("fetched_at")).as_py(),
    )


def _fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    return table.select(schema.names).cast(schema)


def _within(table: pa.Table, name: str, first: date, last: date, *, undated: bool = False) -> pa.Table:
    column = table.column(name)
    # Cast from text, because a scalar from a Python value imports pandas.
    lowest, highest = text_array([first.isoformat(), last.isoformat()]).cast(pa.date32())
    inside = pc.and_(pc.greater_equal(column, lowest), pc.less_equal(column, highest))
    return table.filter(pc.or_kleene(inside, pc.is_null(column)) if undated else inside)


def _kept(sessions: pa.Table) -> Kept:
    experiments = sessions.filter(pc.is_valid(sessions.column("reference_dataset_id")))
    older = pc.less(experiments.column("stats_as_of"), experiments.column("fetched_at"))
    kept = experiments.filter(pc.or_kleene(older, pc.is_valid(experiments.column("missing_since"))))
    return Kept(kept.num_rows, total(kept.column("total_cost").to_pylist()))
