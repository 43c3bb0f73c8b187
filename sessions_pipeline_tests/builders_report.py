"""Builders of report data: a made-up month or year with everything a report can show, or a test's own rows."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from sessions_pipeline.outputs.budget_file import Budget
from sessions_pipeline.outputs.budgets import BudgetStatus
from sessions_pipeline.outputs.report import DOUBTFUL_COLUMNS
from sessions_pipeline.outputs.report.data import LATEST_FIRST, ReportData
from sessions_pipeline.outputs.report.page import build_report
from sessions_pipeline.outputs.spending import JudgeReading, JudgeReadings
from sessions_pipeline.tables import (
    DAILY_COST_BY_ATTRIBUTE,
    DAILY_COST_BY_PROJECT,
    DAILY_COST_BY_REFERENCE_DATASET,
    EXPERIMENT_SUMMARY,
    JUDGE_COST_BY_EXPERIMENT,
    SESSIONS,
    Table,
)
from sessions_pipeline_tests.builders import TENANT, dataset, uuid

FIRST, LAST = date(2025, 3, 1), date(2025, 3, 30)
SCRIPT = "<script>alert(1)</script>"
HOSTILE_NAMES = (
    SCRIPT,
    '"</script><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} \\g<1> \\u003cb>",
    "=HYPERLINK(1)",
    "a\x00b\u202ec\u2028",
    "]]>&amp;<!--",
    "long" * 60,
)

BRANCHES = ("main", None, SCRIPT, "fix-42")


def daily(day: date | None, number: int, cost: str | None, **columns: Any) -> dict[str, Any]:
    """A row of `daily_cost_by_reference_dataset` for one experiment, which is unpriced if `cost` is None."""
    known = None if cost is None else Decimal(cost)
    return {
        **dict.fromkeys(DAILY_COST_BY_REFERENCE_DATASET.schema.names),
        "start_date": day,
        "tenant_id": TENANT,
        "reference_dataset_id": dataset(number),
        "session_count": 1,
        "priced_session_count": int(known is not None),
        "unpriced_session_count": int(known is None),
        "zero_cost_with_tokens_count": 0,
        "is_day_over": True,
        "total_cost": known,
        **columns,
    }


def by_attribute(day: date, number: int, value: str | None, cost: str | None, **columns: Any) -> dict[str, Any]:
    """A row of `daily_cost_by_attribute`; the attribute defaults to `git.branch`."""
    row = daily(day, number, cost)
    measures = {name: row.get(name) for name in ("start_date", *DAILY_COST_BY_ATTRIBUTE.schema.names)}
    return {**measures, "attribute": "git.branch", "value": value, **columns}


def judged(day: date, number: int, cost: str | None) -> dict[str, Any]:
    """A row of `judge_cost_by_experiment`: an experiment on `dataset(number)` and the cost of its judges."""
    known = None if cost is None else Decimal(cost)
    keys = {"tenant_id": TENANT, "reference_dataset_id": dataset(number), "id": uuid(number)}
    return {"start_date": day, **keys, "total_cost": known}


def judge_reading(total: str | None, attributed: str, **changes: Any) -> JudgeReadings:
    """A reading of one judge project: its total cost, and the part that is attributed to experiments."""
    cost = None if total is None else Decimal(total)
    left = None if cost is None else cost - Decimal(attributed)
    read_at = datetime(2025, 4, 2, tzinfo=UTC)
    known = {"is_exact": True, "read_at": read_at, "skipped": {}, **changes}
    return JudgeReadings({TENANT: JudgeReading("evaluators", cost, Decimal(attributed), left, **known)})


def budget(name: str, limit: str, used: str | None, unpriced: int = 0) -> BudgetStatus:
    """The status of a budget for a month."""
    known = None if used is None else Decimal(used)
    of_month = Budget(name=name, limit=Decimal(limit), period="month")
    days = date(2025, 3, 1), date(2025, 3, 31)
    read_at = datetime(2025, 4, 2, tzinfo=UTC)
    return BudgetStatus(of_month, *days, read_at, False, used=known, experiments=9, unpriced=unpriced)


def summary(number: int, cost: str | None, score: float | None = None, **columns: Any) -> dict[str, Any]:
    """A row of `experiment_summary`, with its `start_date`."""
    day = columns.pop("day", FIRST)
    scores = [] if score is None else [{"feedback_key": "correctness", "scope": "run", "average": score, "count": 9}]
    return {
        **dict.fromkeys(EXPERIMENT_SUMMARY.schema.names),
        "start_date": day,
        "id": uuid(number),
        "tenant_id": TENANT,
        "reference_dataset_id": dataset(1),
        "name": f"experiment {number}",
        "start_time": datetime.combine(day, time(12), UTC),
        "total_cost": None if cost is None else Decimal(cost),
        "scores": scores,
        **columns,
    }


def project(day: date, number: int, cost: str | None, **columns: Any) -> dict[str, Any]:
    """A row of `daily_cost_by_project`, with its `usage_date`."""
    return {
        **dict.fromkeys(DAILY_COST_BY_PROJECT.schema.names),
        "usage_date": day,
        "id": uuid(number, "9e"),
        "tenant_id": TENANT,
        "name": f"project {number}",
        "total_cost": None if cost is None else Decimal(cost),
        "is_exact": True,
        "read_at": datetime(2025, 4, 1, tzinfo=UTC),
        **columns,
    }


def report_of(
    *rows: Mapping[str, Any],
    first: date = FIRST,
    last: date = LAST,
    experiments: Sequence[Mapping[str, Any]] = (),
    projects: Sequence[Mapping[str, Any]] | None = None,
    judges: Sequence[Mapping[str, Any]] = (),
    rejected: Sequence[date | None] = (),
    sessions: Sequence[Mapping[str, Any]] = (),
    attributes: Sequence[Mapping[str, Any]] = (),
    unread: Sequence[date] = (),
    unfinished: Sequence[date] = (),
    read_at: datetime = datetime(2025, 4, 2, 9, 30, tzinfo=UTC),
    names: Mapping[str, str] | None = None,
    **options: Any,
) -> ReportData:
    """A report on these daily costs. All days of the period, the one before and the month before were read, but for
    those in `unread`.
    """
    asked = max(62, 2 * ((last - first).days + 1))
    read = frozenset({last - timedelta(days=back) for back in range(asked)} - set(unread))
    columns = pa.schema([SESSIONS.schema.field(name) for name in DOUBTFUL_COLUMNS])
    measured = {"measured_days": len({row["usage_date"] for row in projects})} if projects is not None else {}
    return ReportData(
        first=first,
        last=last,
        daily=_of_days(DAILY_COST_BY_REFERENCE_DATASET, rows).sort_by(LATEST_FIRST),
        attributes=_of_days(DAILY_COST_BY_ATTRIBUTE, attributes),
        attribute_days=dict.fromkeys((row["attribute"] for row in attributes), read),
        experiments=_of_days(EXPERIMENT_SUMMARY, experiments),
        judges=_of_days(JUDGE_COST_BY_EXPERIMENT, judges),
        rejected=Counter(rejected),
        sessions=pa.Table.from_pylist(list(sessions), columns),
        days_read=read,
        unfinished=frozenset(unfinished),
        projects=_of_days(DAILY_COST_BY_PROJECT, projects or ()),
        names=names or {},
        readings={day: read_at for day in read if first <= day <= last},
        **{**measured, **options},
    )


def nothing_read() -> ReportData:
    """A report of a lake without any day."""
    return replace(report_of(), days_read=frozenset(), readings={})


def html_of(data: ReportData) -> str:
    """The page as text."""
    return build_report(data).decode()


def _of_days(table: Table, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows of several days, as `Lake.read_days` returns them."""
    assert table.partition_column is not None
    return pa.Table.from_pylist(list(rows), pa.schema([*table.schema, pa.field(table.partition_column, pa.date32())]))


def made_up(first: date = FIRST, last: date = LAST, *, datasets: int = 9, experiments: int = 120) -> ReportData:
    """Everything that a report can show, with unknown costs, unread days and hostile names; the same on every call."""
    chance = random.Random(20250301)
    days = [first + timedelta(days=count) for count in range((last - first).days + 1)]
    rows = [
        daily(
            day,
            number,
            None if chance.random() < 0.05 else _money(chance, number),
            run_count=chance.randint(1, 10**4),
            total_tokens=None if chance.random() < 0.05 else chance.randint(1, 10**9),
            prompt_cost=Decimal("0.1"),
            is_day_over=day != last,
        )
        for day in (*(day - timedelta(days=len(days)) for day in days), *days)
        for number in range(datasets)
        if chance.random() < 0.9 and day != first + timedelta(days=8)
    ]
    return report_of(
        *rows,
        first=first,
        last=last,
        experiments=[_experiment(chance, number, chance.choice(days), datasets) for number in range(experiments)],
        projects=[
            project(day, number, _money(chance, number), name=HOSTILE_NAMES[number % 7], is_exact=number != 2)
            for day in days[-20:]
            for number in range(12)
        ],
        rejected=[first, first, None],
        sessions=[
            {
                "reference_dataset_id": dataset(1),
                "total_cost": Decimal("2.5"),
                "fetched_at": datetime(2025, 4, 2, tzinfo=UTC),
                "stats_as_of": datetime(2025, 3, 2, tzinfo=UTC),
            }
        ],
        unread=[first + timedelta(days=8)],
        unfinished=[last],
        judges=[judged(day, number % datasets, _money(chance, number)) for number, day in enumerate(days)],
        judge_readings=judge_reading("99.5", "99", is_exact=False),
        budgets=[
            budget(SCRIPT, "400", "330"),
            budget("exceeded", "1", "2.5", unpriced=3),
            budget("unknown", "0.001", None),
        ],
        attributes=[
            by_attribute(day, number, value, _money(chance, number), attribute=key, run_count=chance.randint(1, 99))
            for day in (*(day - timedelta(days=len(days)) for day in days), *days)
            for number in range(datasets)
            for key, value in (("models", f"model-{chance.randrange(20)}"), ("git.branch", chance.choice(BRANCHES)))
            if chance.random() < 0.2
        ],
        names={dataset(number): name for number, name in enumerate(HOSTILE_NAMES, 1)},
    )


def _experiment(chance: random.Random, number: int, day: date, datasets: int) -> dict[str, Any]:
    return summary(
        number,
        None if number % 11 == 0 else _money(chance, 1),
        None if number % 7 == 0 else round(chance.random(), 4),
        day=day,
        name=HOSTILE_NAMES[number % 7] if number % 5 == 0 else f"prompt v{number} with few-shot examples",
        reference_dataset_id=dataset(chance.randrange(datasets)),
        run_count=40,
        cost_per_run=Decimal("0.123456789012345678"),
    )


def _money(chance: random.Random, number: int) -> str:
    """A random cost, of a very different size each time and with many digits."""
    size = Decimal(10) ** chance.choice((-9, -4, -2, 0, 1, 2))
    return f"{(Decimal(chance.randint(1, 10**9)) / 10**9 * size * (10 - number % 10)).quantize(Decimal(10) ** -18):f}"
