"""Commands that show data: `list` from the API; `report`, `budget` and `export` from the lake."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from sessions_pipeline import errors
from sessions_pipeline.cli.terminal import DAY, FILE, MONTH, check_order, echo, load_settings, print_table, say
from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.outputs.formatting import SHORT_ID, count, json_line, money, plural, visible
from sessions_pipeline.settings import first_problem

if TYPE_CHECKING:
    from sessions_pipeline.langsmith.client import SessionsClient
    from sessions_pipeline.outputs.budgets import BudgetStatus

# `list` waits this long for dataset names, not for the run's whole deadline.
NAMES_SECONDS = 10.0
# Rows that `list` shows without --all or --limit.
ROWS = 20
DATASET = "reference_dataset_id"
SHOWN = {"name": "Name", "start_time": "Start (UTC)", DATASET: "Dataset"}
STATS = {"run_count": "Traces", "total_tokens": "Tokens", "total_cost": "Cost"}
# Cells of properties that the API may leave out or send as null.
UNKNOWN = dict.fromkeys(("start_time", *STATS), "unknown")
DROPPED = ("Tokens", "Traces", "Start (UTC)")


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = f"--{name.replace('_', '-')}"
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    is_repeatable = any(getattr(kind, "__origin__", None) is tuple for kind in kinds)
    members = [one for kind in (field.annotation, *kinds) if get_origin(kind) is Literal for one in get_args(kind)]
    default = f"  [default: {str(field.default).lower()}]" if field.default else ""
    choices = f": {', '.join(members)}" if members else ""
    text = f"{field.description}{choices}{'; repeatable' if is_repeatable else ''}.{default}"
    if kinds == [bool]:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=text)
    kind = click.Choice(members) if members else None
    return click.Option([flag, name], type=kind, multiple=is_repeatable, metavar="VALUE", help=text, default=None)


@click.command(
    "list",
    epilog="Example: sessions-pipeline list --name-contains nightly --include-stats",
    params=[_option(name, field) for name, field in SessionsQuery.model_fields.items()],
)
@click.option(
    "--format", "shape", type=click.Choice(["table", "json", "ndjson"]), default="table", help="How to print."
)
@click.option("--all", "show_all", is_flag=True, help=f"Show a whole page, not just {ROWS}; --offset 100 is the next.")
def list_sessions(shape: str, *, show_all: bool, **values: Any) -> None:
    """Show what the API returns now.

    Prints one page of sessions, in version 1's form whichever version of the API is read. Writes nothing.
    """
    query, settings = _query(values), load_settings()
    from sessions_pipeline.langsmith.client import SessionsClient

    with SessionsClient(settings) as client:
        workspaces = settings.workspace_ids or (None,)
        pages = [client.fetch(query, workspace=workspace) for workspace in workspaces]
        payloads = [record.payload for page in pages for record in page.records]
        rows = [_cells(payload) for payload in payloads] if shape == "table" else []
        rows = rows if show_all or values["limit"] is not None else rows[:ROWS]
        _name_datasets(client, rows, workspaces)
        for warning in client.warnings:
            say(warning, is_warning=True)
    if shape != "table":
        lines = [json_line(payload, sys.stdout.encoding or "ascii") for payload in payloads]
        click.echo("\n".join(lines) if shape == "ndjson" else f"[{','.join(lines)}]", nl=bool(lines) or shape == "json")
        return
    columns = SHOWN | (STATS if query.include_stats else {})
    if rows:
        print_table([*columns.values()], [[row.get(name, "") for name in columns] for row in rows], drop=DROPPED)
    more = f" of the page's {len(payloads)}; --all shows them all" if len(payloads) > len(rows) else ""
    click.echo(f"{plural(len(rows), 'session')}{more}")


def _query(values: dict[str, Any]) -> SessionsQuery:
    given = {name: value for name, value in values.items() if value not in (None, ())}
    try:
        return SessionsQuery.model_validate(given)
    except ValidationError as error:
        place, problem = first_problem(error)
        option = place.partition(".")[0].replace("_", "-")
        raise errors.UsageError(f"--{option}: {problem}") from None


def _name_datasets(client: "SessionsClient", rows: list[dict[str, str]], workspaces: Sequence[str | None]) -> None:
    """Replace the rows' dataset ids by names; by short ids where the API does not give a name to this key."""
    from sessions_pipeline.langsmith.lists import read_datasets
    from sessions_pipeline.validation.rules import IS_UUID

    client.throttle.end_within(NAMES_SECONDS)
    ids = sorted({row[DATASET].lower() for row in rows if IS_UUID.fullmatch(row.get(DATASET, ""))})
    names: dict[str, str] = {}
    with suppress(errors.ApiError):
        found = [_cells(one.payload) for asked in workspaces for one in read_datasets(client, workspace=asked, ids=ids)]
        names = {one["id"].lower(): one["name"] for one in found if "id" in one and one.get("name", "").strip()}
    for row in rows:
        dataset = row.get(DATASET, "")
        row[DATASET] = names.get(dataset.lower(), dataset[:SHORT_ID])


def _cells(payload: str) -> dict[str, str]:
    """A record's texts by property; a payload that is not a JSON object is shown whole as its `name`."""
    record = None
    with suppress(ValueError, RecursionError):
        record = json.loads(payload, parse_int=str, parse_float=str)
    if not isinstance(record, dict):
        return {"name": payload}
    cells = UNKNOWN | {name: _number(name, str(value)) for name, value in record.items() if value is not None}
    cells["start_time"] = cells["start_time"][: len("2026-01-31T12:00")].replace("T", " ")
    return cells


def _number(name: str, text: str) -> str:
    """A stat formatted for reading; other properties, and numbers that can't be formatted, as they were sent."""
    try:
        return money(Decimal(text)) if name == "total_cost" else count(int(text)) if name in STATS else text
    except (ValueError, ArithmeticError):
        return text


@click.command(epilog="Example: sessions-pipeline report --output costs.html")
@click.option("--from", "first", type=DAY, metavar="DAY", help="First UTC day; default: 29 days before the last.")
@click.option("--to", "last", type=DAY, metavar="DAY", help="Last UTC day, included; default: the last day read.")
@click.option("--output", type=FILE, help="File to write, - for standard output; default: reports/cost.html.")
def report(first: date | None, last: date | None, output: Path | None) -> None:
    """Write the HTML cost report.

    It is one page that works offline: total, trend, datasets, projects and the most expensive experiments.
    """
    settings = load_settings()
    from sessions_pipeline.lake import Lake
    from sessions_pipeline.outputs.report import budgets_or_problem, latest_days, write_report

    lake = Lake.open(settings.data_root, query=settings.query)
    if bool(first) != bool(last):
        raise errors.UsageError("give both --from and --to, or neither")
    days = (first, last) if first and last else latest_days(lake)
    check_order(*days)
    if not lake.is_there:
        advice = "materialize days, or set SESSIONS_PIPELINE_DATA_ROOT (the demo's is data/demo)"
        raise errors.NotReadError(f"{settings.absolute_data_root}: there is no data here; {advice}")
    budgets = budgets_or_problem(lake, settings, datetime.now(UTC))
    if isinstance(budgets, str):
        say(budgets, is_warning=True)
    click.echo(write_report(lake, *days, output, budgets=budgets), nl=str(output) != "-")


@click.command(epilog="Example: sessions-pipeline budget --check || echo look")
@click.option("--check", is_flag=True, help="Exit 3 if a budget is exceeded, 1 if that can't be known.")
@click.option("--json", "as_json", is_flag=True, help="Print the budgets as JSON.")
def budget(*, check: bool, as_json: bool) -> None:
    """Show how much of each budget is used.

    The budgets are in the file that SESSIONS_PIPELINE_BUDGETS names. Only days that were read count.
    """
    settings = load_settings()
    from sessions_pipeline.cli.summary import print_json
    from sessions_pipeline.lake import Lake
    from sessions_pipeline.outputs.budget_file import BUDGETS, load_budgets
    from sessions_pipeline.outputs.budgets import budget_statuses

    if not (budgets := load_budgets(settings)):
        lines = 'the lines [[budget]], name = "all experiments", limit = 400.00 and period = "month"'
        raise errors.SettingError(BUDGETS, f"is not set, or names no budget; set it to a TOML file with {lines}")
    lake = Lake.open(settings.data_root, query=settings.query, read_only=True)
    statuses = budget_statuses(lake, budgets, datetime.now(UTC))
    (print_json if as_json else print_budgets)(statuses)
    if check and (exceeded := [status.budget.name for status in statuses if status.state == "exceeded"]):
        raise errors.BudgetExceededError(f"beyond the limit: {'; '.join(exceeded)}")
    if check and (unknown := [status.budget.name for status in statuses if not status.is_known]):
        raise errors.SessionsPipelineError(f"can't be known, for the reasons above: {'; '.join(unknown)}")


def print_budgets(statuses: "Sequence[BudgetStatus]") -> None:
    """Print the budgets as a table with notes below it."""
    rows = [(one.budget.name, one.budget.period, *one.amounts, one.state) for one in statuses]
    columns = ("Budget", "Period", "Used", "Limit", "Share", "Forecast", "State")
    print_table(columns, rows, drop=("Period", "Forecast", "Share"))
    for one in statuses:
        if one.notes:
            echo(f"{visible(one.budget.name)}: {one.notes}", indent=2)


FOCUS = "Example: sessions-pipeline export focus --month 2026-01 --output jan.parquet"


@click.group(epilog=FOCUS)
def export() -> None:
    """Write costs for other programs."""


@export.command("focus", epilog=FOCUS)
@click.option("--month", type=MONTH, required=True, metavar="MONTH", help="UTC month, YYYY-MM.")
@click.option("--output", type=FILE, required=True, help="A .parquet or .csv file.")
@click.option("--partial", is_flag=True, help="Write it even if days of the month were not read, or are not over.")
def export_focus(month: date, output: Path, *, partial: bool) -> None:
    """Write a month for finance tools.

    Writes the month's experiments in FOCUS 1.2. They are estimates: never add them to a provider's own data.
    """
    if output.suffix not in (".parquet", ".csv"):
        raise errors.UsageError(f"--output {output}: end its name in .parquet or .csv")
    settings = load_settings()
    from sessions_pipeline.lake import Lake
    from sessions_pipeline.outputs.focus import focus_costs, write_focus

    lake = Lake.open(settings.data_root, query=settings.query, read_only=True)
    found = focus_costs(lake, month, datetime.now(UTC).date())
    if found.missing and not partial:
        raise errors.NotReadError(f"{found.missing}; or write what is there with --partial")
    place = write_focus(found.rows, output)
    if found.missing:
        say(found.missing, is_warning=True)
    if found.unknown:
        say(f"{plural(found.unknown, 'experiment')} left out: the cost is unknown, FOCUS requires one", is_warning=True)
    click.echo(f"{place}: {plural(found.rows.num_rows, 'experiment')}")
