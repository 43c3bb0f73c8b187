"""The summary after a run, read from the Parquet files: what was written, and what each dataset cost."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain
from typing import Any, NamedTuple

import click

from sessions_pipeline import tables
from sessions_pipeline.cli.terminal import echo, print_table
from sessions_pipeline.days import period_of
from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.outputs import REPORT_FILE, judges_command
from sessions_pipeline.outputs.budget_file import Budget
from sessions_pipeline.outputs.budgets import BudgetStatus, budget_statuses
from sessions_pipeline.outputs.formatting import SHORT_ID, count, dataset_labels, exact, money, plural, visible
from sessions_pipeline.outputs.read import Key, dataset_names, judge_rows
from sessions_pipeline.outputs.spending import Row, Totals, by_key, totals_by
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables.aggregate import total
from sessions_pipeline.tables.day_metadata import incomplete_days

# Up to so many days, costs are listed by day, else by week: a terminal has some forty lines.
WEEK = 7
# So many datasets have lines of their own, the most expensive ones; and so many lines are by day or week.
MOST_DATASETS, MOST_LINES = 20, 100
# The days that a run wrote, by asset.
Made = Mapping[str, Sequence[date]]
# Columns by which wrapped lines are indented: a first word has up to eight letters.
INDENT = 9
IN_JSON = (
    *("first", "last", "used", "share", "forecast", "state", "is_known"),
    *("experiments", "unpriced", "unjudged", "unread", "read_at", "notes"),
)

# A record is in one of these tables.
RECORDS = (tables.SESSIONS, tables.REJECTED_SESSIONS)
OTHERS, ALL = ("", "other datasets"), ("", "all datasets")
"""The keys of lines that sum several datasets: no workspace, and a label."""


class Line(NamedTuple):
    """The cost of a dataset in a workspace, or of several, and a period.

    `days` counts the period's days that were read. `is_part`: some were not, or are incomplete (`incomplete_days`).
    """

    period: date
    key: Key
    days: int
    is_part: bool
    totals: Totals


def print_summary(
    settings: Settings, made: Made, first: date, last: date, *, budgets: Sequence[Budget] = (), as_json: bool = False
) -> None:
    """Print the costs of these days as a table or as JSON, of the assets in `made`; `LakeError` if a day is lost."""
    lake = Lake.open(settings.data_root, query=settings.query, read_only=True)
    _refuse_lost_days(lake, made.get(tables.SESSIONS.name, ()), settings.absolute_data_root)

    def days_of(table: tables.Table) -> list[date] | None:
        return [day for day in lake.days(table) if first <= day <= last] if table.name in made else None

    session_days, days = days_of(tables.SESSIONS), days_of(tables.DAILY_COST_BY_REFERENCE_DATASET) or []
    daily, files = lake.load_days(tables.DAILY_COST_BY_REFERENCE_DATASET, days)
    incomplete = incomplete_days(daily, files, lake.readings_of_days(days))
    rows = daily.to_pylist()
    judged, names = judge_rows(lake, days) if as_json else [], dataset_names(lake, rows, days)
    whole, by_week = Totals.of(rows, judged), len(days) > WEEK
    datasets = _lines(rows, judged, dict.fromkeys(days, min(days, default=first)), incomplete, len(days))
    periods = {day: period_of("week" if by_week else "day", day)[0] for day in days}
    lines = _lines(rows, judged, periods, incomplete, WEEK if by_week else 1, order=datasets)
    sums: dict[str, Any] = {
        "days": max((sum(first <= day <= last for day in of_asset) for of_asset in made.values()), default=0),
        "sessions": _row_count(lake, tables.SESSIONS, session_days),
        "experiments": whole.sessions if days else None,
        "unpriced": whole.unpriced if days else None,
        "rejected": _row_count(lake, tables.REJECTED_SESSIONS, days_of(tables.REJECTED_SESSIONS)),
        "undated": sum(_row_count(lake, table, [UNDATED]) or 0 for table in RECORDS),
        "total_cost": exact(whole.cost) or None,
    }
    if as_json:
        sums |= {**_judges(whole), "budgets": budget_statuses(lake, budgets, datetime.now(UTC))}
        both = {"lines": lines, "datasets": datasets}
        costs = {name: [_as_json(line, names) for line in found] for name, found in both.items()}
        print_json({**sums, "written": dict(sorted(made.items())), **costs})
        return
    if lines:
        _print_lines(lines, datasets if len(days) > 1 else (), whole, names, by_week=by_week)
    # One by one, so that a file of judges that can't be read is an error only after the costs are printed.
    for text in chain(_result_lines(lake, sums, made, rows, days), _budget_lines(lake, budgets)):
        echo(text, indent=INDENT)
    report = f"\nReport   {settings.absolute_data_root}/{REPORT_FILE}" if "cost_report" in made else ""
    click.echo(f"Parquet  {settings.absolute_data_root}{report}")


def _row_count(lake: Lake, table: tables.Table, days: Sequence[Day] | None) -> int | None:
    """The number of a table's rows on these days; None if the run did not make the table (`days` is None)."""
    files = lake.each(lambda day: lake.load(table, day, ()), days or ())
    return sum(file.parts.num_rows for _, file in files if file) if days is not None else None


def _refuse_lost_days(lake: Lake, written: Sequence[date], root: str) -> None:
    if lost := [day for day, version in lake.versions(tables.SESSIONS, written).items() if version is None]:
        days = f"{plural(len(lost), 'day')} that this run wrote, {lost[0]} among them"
        raise LakeError(f"{root}: lost {days}; see whether it was moved or unmounted, and run this again")


def _budget_lines(lake: Lake, budgets: Sequence[Budget]) -> Iterator[str]:
    for status in budget_statuses(lake, budgets, datetime.now(UTC)):
        state = "" if status.state == "ok" else f" - {status.state}"
        yield f"Budget   {visible(status.budget.label)}: {status.headline}{state}"
        if status.notes:
            yield f"{'':{INDENT}}{status.notes}"


def print_json(value: Any) -> None:
    """Print a value, in which there may be budgets' statuses, as JSON."""
    click.echo(json.dumps(value, indent=2, default=_plain))


def _plain(value: BudgetStatus | Decimal | date) -> Any:
    if isinstance(value, BudgetStatus):
        return value.budget.model_dump(exclude_none=True) | {name: getattr(value, name) for name in IN_JSON}
    # Not `str`: a quotient may have 80 digits.
    return f"{value:.18f}" if isinstance(value, Decimal) else value.isoformat()


def _lines(
    rows: Sequence[Row],
    judged: Sequence[Row],
    periods: Mapping[date, date],
    incomplete: Collection[date | None],
    length: int,
    order: Sequence[Line] = (),
) -> list[Line]:
    """One line for each period of `length` days and dataset, in the order of `order`, else the most expensive first.

    `periods` maps each day that was read to the first day of its period; for `incomplete`, see `incomplete_days`.
    """

    def group(row: Row) -> tuple[date, Key]:
        return periods[row["start_date"]], (row["tenant_id"], row["reference_dataset_id"])

    days_read, ranks = Counter(periods.values()), {line.key: number for number, line in enumerate(order)}
    complete = Counter(period for day, period in periods.items() if day not in incomplete)
    lines = [
        Line(period, key, days_read[period], complete[period] < length, totals)
        for (period, key), totals in totals_by(rows, judged, group).items()
    ]
    return sorted(lines, key=lambda line: (line.period, ranks.get(line.key, 0), -(line.totals.cost or 0), line.key))


def _fold(lines: Sequence[Line], shown: Collection[Key], others: Key) -> list[Line]:
    """The lines, those of datasets that are not shown summed into one for each period, which comes last."""
    groups = by_key(lines, lambda line: (line.period, line.key if line.key in shown else others))
    return [
        group[0]._replace(key=key, totals=Totals._make(map(total, zip(*(one.totals for one in group), strict=True))))
        for (_, key), group in groups.items()
    ]


def _as_json(line: Line, names: Mapping[Key, str]) -> dict[str, Any]:
    return {
        "period": line.period,
        "tenant_id": line.key[0],
        "reference_dataset_id": line.key[1],
        "dataset": names.get(line.key, line.key[1]),
        "days": line.days,
        "is_part": line.is_part,
        **line.totals._asdict(),
        "cost": exact(line.totals.cost) or None,
        **_judges(line.totals),
    }


def _judges(totals: Totals) -> dict[str, Any]:
    counts = {name: getattr(totals, name) for name in ("judges_measured", "judges_unknown", "judges_not_measured")}
    return {"judge_cost": exact(totals.judge_cost) or None, **counts}


def _result_lines(
    lake: Lake, sums: Mapping[str, Any], made: Made, rows: Sequence[Row], days: Sequence[date]
) -> Iterator[str]:
    """Lines with counts and costs. What only tables say that this run did not write is left out."""
    if None in (sums["sessions"], sums["experiments"], sums["rejected"]):
        yield from (f"{name}: {plural(len(days), 'day') if days else 'made'}" for name, days in sorted(made.items()))
    else:
        experiments = f"{plural(sums['experiments'], 'experiment')}, {sums['unpriced']:,d} without a cost"
        sessions = f"{plural(sums['days'], 'day')}, {plural(sums['sessions'], 'session')} ({experiments})"
        yield f"{sessions}, {plural(sums['rejected'], 'rejected record')}"
        if sums["undated"]:
            yield f"Not counted here: {plural(sums['undated'], 'record')} without a day; see the report"
    if sums["experiments"] is None:
        if tables.JUDGE_COST_BY_EXPERIMENT.name in made:
            so_far = Totals.of((), judge_rows(lake, lake.days(tables.JUDGE_COST_BY_EXPERIMENT)))
            judged = f"{plural(so_far.judges_measured, 'experiment')} so far ({so_far.judges_unknown:,d} unknown)"
            yield f"Judges of {judged}, exactly: {exact(so_far.judge_cost) or 'unknown'} US dollars"
        return
    whole = Totals.of(rows, judge_rows(lake, days))
    cost = f"Known cost, exactly: {sums['total_cost']} US dollars" if sums["total_cost"] else "Known cost: none"
    if not whole.judges_measured:
        yield f"{cost}; judge calls not counted"
        # On two lines, to fit into 80 columns.
        command, _, options = judges_command(datetime.now(UTC).date()).partition(" --")
        yield f"Judges   to count them: {command} \\\n{'':{INDENT}}  --{options}"
        return
    yield cost
    of_others = f"; those of {plural(whole.unjudged, 'experiment')} not counted" if whole.unjudged else ""
    yield f"Judges, exactly: {exact(whole.judge_cost) or 'unknown'} US dollars{of_others}"


def _print_lines(
    lines: Sequence[Line], datasets: Sequence[Line], whole: Totals, names: Mapping[Key, str], *, by_week: bool
) -> None:
    labels = dataset_labels([line.key[1] for line in lines], {dataset: name for (_, dataset), name in names.items()})
    has_workspaces, ranked = len({line.key[0] for line in lines}) > 1, [line.key for line in datasets or lines]
    # The sum of a single dataset would only hide its name.
    shown = ranked if len(ranked) == MOST_DATASETS + 1 else ranked[:MOST_DATASETS]
    lines, datasets = _fold(lines, shown, OTHERS), _fold(datasets, shown, OTHERS)
    if len(lines) > MOST_LINES and len(ranked) > 1:
        lines = _fold(lines, (), ALL)

    def cells(period: str, key: Key, totals: Totals) -> tuple[str, ...]:
        workspace = (key[0][:SHORT_ID],) if has_workspaces else ()
        measures = count(totals.sessions), count(totals.unpriced), count(totals.tokens), money(totals.cost)
        return period, labels.get(key[1], key[1]), *workspace, *measures

    periods = [f"{line.period}{'*' if line.is_part else ''}" for line in lines] + ["All days"] * len(datasets)
    rows = [
        cells(period if period != before else "", line.key, line.totals)
        for before, period, line in zip(["", *periods], periods, [*lines, *datasets], strict=False)
    ]
    workspace = ("Workspace",) if has_workspaces else ()
    columns = "Week from" if by_week else "Day (UTC)", "Dataset", *workspace, "Experiments", "No cost", "Tokens", "Cost"
    print_table(columns, rows, footer=cells("Total", ("", ""), whole), drop=("Tokens", "No cost"))
    if any(line.key in (OTHERS, ALL) for line in [*lines, *datasets]):
        click.echo("Some datasets are summed together; with --json, each has its own lines")
    if any(line.is_part for line in lines):
        start = "has days not asked for, not over" if by_week else "not over"
        click.echo(f"* {start}, rebuilt by --as-of, or unread in a workspace")
