"""The closing summary of a run, read from the Parquet: what it made, and what each dataset cost."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import click

from sessions_pipeline.cli.terminal import is_utf8, print_table
from sessions_pipeline.days import week_start
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.outputs.dataset_names import Key, dataset_names
from sessions_pipeline.outputs.formatting import SHORT_ID, count, dataset_labels, exact, known_sum, money, plural, total
from sessions_pipeline.outputs.report import REPORT_FILE
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, REJECTED_SESSIONS, SESSIONS, Table

# Days are listed up to a week, weeks from then on: a terminal has some forty lines.
WEEK = 7
BAR = 12
COLUMNS = ("Dataset", "Workspace", "Experiments", "No cost", "Tokens", "Cost", "Bar")


class Line(NamedTuple):
    """What a dataset cost in a workspace and a period, of which so many days were read."""

    period: date
    tenant_id: str
    reference_dataset_id: str
    days: int
    sessions: int
    unpriced: int
    tokens: int | None
    cost: Decimal | None


def print_summary(
    settings: Settings, made: Mapping[str, Sequence[date]], first: date, last: date, *, as_json: bool = False
) -> None:
    """Print what the days came to, as a table or as JSON: of the assets of `made`, with the days that each wrote."""
    lake = Lake.open(settings.data_root, query=settings.query, read_only=True)

    def days_of(table: Table) -> list[date]:
        return [day for day in lake.days(table) if first <= day <= last] if table.name in made else []

    days = days_of(DAILY_COST_BY_REFERENCE_DATASET)
    lines = _lines(lake, days)
    names = dataset_names(lake, {line[1:3] for line in lines}, days)
    sums: dict[str, Any] = {
        "days": max(len(days_of(SESSIONS)), len(days)),
        # Day by day, in the column that is smallest, so that memory does not grow with the days.
        "sessions": sum(lake.read(SESSIONS, day, ("trace_tier",)).num_rows for day in days_of(SESSIONS)),
        "experiments": sum(line.sessions for line in lines),
        "unpriced": sum(line.unpriced for line in lines),
        "rejected": sum(
            lake.read(REJECTED_SESSIONS, day, ("fetched_at",)).num_rows for day in days_of(REJECTED_SESSIONS)
        ),
        "total_cost": exact(total(line.cost for line in lines)) or None,
    }
    if as_json:
        written = {name: [day.isoformat() for day in found] for name, found in sorted(made.items())}
        shown = [_as_json(line, names) for line in lines]
        click.echo(json.dumps({**sums, "written": written, "lines": shown}, indent=2))
        return
    if lines:
        _print_lines(lines, names, by_week=len(days) > WEEK)
    click.echo(_closing(sums) if sums["days"] else _written(made))
    click.echo(f"Parquet  {settings.absolute_data_root}")
    if "cost_report" in made:
        click.echo(f"Report   {settings.absolute_data_root}/{REPORT_FILE}")


def _lines(lake: Lake, days: Sequence[date]) -> list[Line]:
    periods = {day: week_start(day) if len(days) > WEEK else day for day in days}
    days_read = Counter(periods.values())
    groups: dict[tuple[date, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in lake.read_days(DAILY_COST_BY_REFERENCE_DATASET, days).to_pylist():
        groups[periods[row["start_date"]], row["tenant_id"], row["reference_dataset_id"]].append(row)
    lines = []
    for key, rows in groups.items():
        tokens = known_sum(row["total_tokens"] for row in rows)
        sessions, unpriced = (sum(row[f"{name}session_count"] for row in rows) for name in ("", "unpriced_"))
        cost = total(row["total_cost"] for row in rows)
        lines.append(Line(*key, days_read[key[0]], sessions, unpriced, tokens, cost))
    spent: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for line in lines:
        spent[line[1:3]] += line.cost or 0
    return sorted(lines, key=lambda line: (line.period, -spent[line[1:3]], line[1:3]))


def _as_json(line: Line, names: Mapping[Key, str]) -> dict[str, Any]:
    name = names.get(line[1:3])
    return {**line._asdict(), "period": line.period.isoformat(), "dataset": name, "cost": exact(line.cost) or None}


def _closing(sums: Mapping[str, Any]) -> str:
    return (
        f"{plural(sums['days'], 'day')}, {plural(sums['sessions'], 'session')} "
        f"({plural(sums['experiments'], 'experiment')}, {sums['unpriced']:,d} without a cost), "
        f"{plural(sums['rejected'], 'rejected record')}\n"
        f"Known cost, exactly: {sums['total_cost'] or 'none'} US dollars"
    )


def _written(made: Mapping[str, Sequence[date]]) -> str:
    return "\n".join(f"{name}: {plural(len(days), 'day') if days else 'made'}" for name, days in sorted(made.items()))


def _print_lines(lines: Sequence[Line], names: Mapping[Key, str], *, by_week: bool) -> None:
    labels = dataset_labels(
        [line.reference_dataset_id for line in lines], {dataset: name for (_, dataset), name in names.items()}
    )
    largest = max((line.cost for line in lines if line.cost is not None), default=Decimal(0))
    sums = [sum(getattr(line, name) or 0 for line in lines) for name in ("sessions", "unpriced", "tokens")]
    rows, before = [], None
    for line in lines:
        part = "*" if by_week and line.days < WEEK else ""
        bar = round(BAR * float(line.cost / largest)) if line.cost and largest else 0
        rows.append(
            (
                f"{line.period}{part}" if line.period != before else "",
                labels[line.reference_dataset_id],
                line.tenant_id[:SHORT_ID],
                count(line.sessions),
                count(line.unpriced),
                count(line.tokens),
                money(line.cost),
                ("█" if is_utf8() else "#") * bar,
            )
        )
        before = line.period
    columns = ("Week from" if by_week else "Day (UTC)", *COLUMNS)
    footer = ("Total", "", "", *map(count, sums), money(total(line.cost for line in lines)), "")
    one = len({line.tenant_id for line in lines}) == 1
    print_table(columns, rows, footer=footer, drop=("Bar", "Tokens", "No cost"), hide="Workspace" if one else None)
    if by_week and any(line.days < WEEK for line in lines):
        click.echo("* not the whole week")
