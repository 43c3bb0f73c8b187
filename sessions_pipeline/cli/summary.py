"""The closing summary of a run: what each dataset cost, and how far to trust it. Read back from the Parquet."""

import json
import sys
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import click

from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.outputs.dataset_names import dataset_names
from sessions_pipeline.outputs.formatting import count, dataset_name, exact, money, total
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, REJECTED_SESSIONS, SESSIONS

# Days are listed up to a week, weeks from then on: a terminal has some forty lines.
MOST_DAYS = 7
BAR = 12


class Line(NamedTuple):
    """One line of the table: a period and a dataset."""

    period: str
    dataset: str
    sessions: int
    unpriced: int
    tokens: int | None
    cost: Decimal | None


def print_summary(settings: Settings, first: date, last: date, *, as_json: bool = False) -> None:
    """Print what the days came to, as a table or as JSON."""
    lake = Pipeline(settings).open_lake(read_only=True)
    days = [day for day in lake.days(DAILY_COST_BY_REFERENCE_DATASET) if first <= day <= last]
    lines = _lines(lake, days, _by_week if len(days) > MOST_DAYS else date.isoformat)
    told = _told(lake, days, lines)
    if as_json:
        click.echo(json.dumps({**told, "lines": [_as_json(line) for line in lines]}, indent=2))
    else:
        _print_table(lines, by_week=len(days) > MOST_DAYS)
        click.echo(
            f"{told['days']} days, {told['sessions']:,} sessions ({told['experiments']:,} experiments), "
            f"{told['unpriced']:,} experiments without a cost, {told['rejected']:,} rejected records"
        )
        click.echo(f"Known cost, exactly: {told['total_cost'] or 'none'} US dollars")


def _by_week(day: date) -> str:
    return (day - timedelta(days=day.weekday())).isoformat()


def _lines(lake: Lake, days: list[date], period_of: Callable[[date], str]) -> list[Line]:
    names = dataset_names(lake, days)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in lake.read_days(DAILY_COST_BY_REFERENCE_DATASET, days).to_pylist():
        key = period_of(row["start_date"]), dataset_name(row["reference_dataset_id"], names)
        groups.setdefault(key, []).append(row)
    return [_line(*key, rows) for key, rows in sorted(groups.items())]


def _line(period: str, dataset: str, rows: Iterable[dict[str, Any]]) -> Line:
    rows = list(rows)
    tokens = [row["total_tokens"] for row in rows if row["total_tokens"] is not None]
    return Line(
        period,
        dataset,
        sum(row["session_count"] for row in rows),
        sum(row["unpriced_session_count"] for row in rows),
        sum(tokens) if tokens else None,
        total(row["total_cost"] for row in rows),
    )


def _told(lake: Lake, days: list[date], lines: list[Line]) -> dict[str, Any]:
    return {
        "days": len(days),
        # Day by day, in the column that is smallest, so that memory does not grow with the days.
        "sessions": sum(lake.read(SESSIONS, day, ("trace_tier",)).num_rows for day in days),
        "experiments": sum(line.sessions for line in lines),
        "unpriced": sum(line.unpriced for line in lines),
        "rejected": sum(lake.read(REJECTED_SESSIONS, day, ("fetched_at",)).num_rows for day in days),
        "total_cost": exact(total(line.cost for line in lines)) or None,
    }


def _as_json(line: Line) -> dict[str, Any]:
    return {**line._asdict(), "cost": exact(line.cost) or None}


def _print_table(lines: list[Line], *, by_week: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    shape = box.SIMPLE_HEAD if utf8 else box.ASCII2
    table = Table(box=shape, show_footer=True, pad_edge=False)
    costs = [line.cost for line in lines if line.cost is not None]
    largest = max(costs, default=Decimal(0))
    table.add_column("Week from" if by_week else "Day (UTC)", "Total", no_wrap=True)
    table.add_column("Dataset", overflow="fold")
    for name, footer in (
        ("Experiments", count(sum(line.sessions for line in lines))),
        ("No cost", count(sum(line.unpriced for line in lines))),
        ("Tokens", count(sum(line.tokens or 0 for line in lines))),
        ("Cost", money(total(line.cost for line in lines))),
    ):
        table.add_column(name, footer, justify="right", no_wrap=True)
    table.add_column("", "", no_wrap=True)
    before = None
    for line in lines:
        bar = round(BAR * float(line.cost / largest)) if line.cost and largest else 0
        cells = (count(line.sessions), count(line.unpriced), count(line.tokens), money(line.cost))
        period = line.period if line.period != before else ""
        table.add_row(period, Text(line.dataset), *cells, ("█" if utf8 else "#") * bar)
        before = line.period
    # As wide as it needs to be where the output is not a terminal, such as a log.
    Console(width=None if sys.stdout.isatty() else 120).print(table)
