"""`sessions-pipeline list`: what the API says now; every query parameter of the schema is an option."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from sessions_pipeline.cli.terminal import load_settings, print_table, say
from sessions_pipeline.errors import ApiError, UsageError
from sessions_pipeline.langsmith.query import SessionsQuery, is_uuid
from sessions_pipeline.outputs.formatting import SHORT_ID, json_line, plural
from sessions_pipeline.settings import first_problem

if TYPE_CHECKING:
    from sessions_pipeline.langsmith.client import SessionsClient

Rows: TypeAlias = list[dict[str, str]]

# Names are worth some patience, not the run's whole deadline.
NAMES_SECONDS = 10.0
# Rows of a table, unless more are asked for.
ROWS = 20
DATASET = "reference_dataset_id"
SHOWN = ("name", "start_time", DATASET)
STATS = ("run_count", "total_tokens", "total_cost")
HEADERS = ("Name", "Start (UTC)", "Dataset", "Runs", "Tokens", "Cost")
DROPPED = ("Tokens", "Runs")
MINUTES = len("2026-01-31T12:00")


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = f"--{name.replace('_', '-')}"
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    is_repeatable = any(getattr(kind, "__origin__", None) is tuple for kind in kinds)
    members = [one for kind in (field.annotation, *kinds) if get_origin(kind) is Literal for one in get_args(kind)]
    default = f"  [default: {str(field.default).lower()}]" if field.default else ""
    choices = f": {', '.join(members)}" if members else ""
    said = f"{field.description}{choices}{'; repeatable' if is_repeatable else ''}.{default}"
    if kinds == [bool]:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=said)
    kind = click.Choice(members) if members else None
    return click.Option([flag, name], type=kind, multiple=is_repeatable, metavar="VALUE", help=said, default=None)


@click.command(
    "list",
    short_help="Show what the API says now.",
    epilog="Example: sessions-pipeline list --name-contains nightly --include-stats --limit 20",
    params=[_option(name, field) for name, field in SessionsQuery.model_fields.items()],
)
@click.option(
    "--format", "shape", type=click.Choice(["table", "json", "ndjson"]), default="table", help="How to print."
)
@click.option("--all", "show_all", is_flag=True, help=f"Show all rows of the page, not only {ROWS}, as a table.")
def list_sessions(shape: str, *, show_all: bool, **values: Any) -> None:
    """Show one page of sessions as the API gives it now, version 2 in the first's spelling; nothing is written."""
    query = _query(values)
    settings = load_settings()
    from sessions_pipeline.langsmith.client import SessionsClient

    with SessionsClient.from_settings(settings) as client:
        workspaces = settings.workspace_ids or (None,)
        payloads = [
            record.payload for workspace in workspaces for record in client.fetch(query, workspace=workspace).records
        ]
        most = None if show_all or values["limit"] is not None else ROWS
        rows = [_cells(payload) for payload in payloads[:most]] if shape == "table" else []
        names = _dataset_names(client, rows, workspaces)
        for warning in client.warnings:
            say(warning)
    if shape == "table":
        _print_sessions(rows, names, len(payloads), STATS if query.include_stats else ())
        return
    lines = [json_line(payload, sys.stdout.encoding or "ascii") for payload in payloads]
    click.echo("\n".join(lines) if shape == "ndjson" else f"[{','.join(lines)}]", nl=bool(lines) or shape == "json")


def _query(values: dict[str, Any]) -> SessionsQuery:
    given = {name: value for name, value in values.items() if value not in (None, ())}
    try:
        return SessionsQuery.model_validate(given)
    except ValidationError as error:
        place, problem = first_problem(error)
        option = place.partition(".")[0].replace("_", "-")
        if "valid UUID" in problem:
            problem = f"give the {'session' if option == 'id' else 'dataset'}'s id (a UUID)"
        raise UsageError(f"--{option}: {problem}") from None


def _dataset_names(client: "SessionsClient", rows: Rows, workspaces: Sequence[str | None]) -> dict[str, str]:
    """What the API calls the rows' datasets, by id; none where it lets this key read no datasets."""
    from sessions_pipeline.langsmith.lists import read_datasets

    client.throttle.end_within(NAMES_SECONDS)
    ids = sorted({row[DATASET].lower() for row in rows if is_uuid(row.get(DATASET, ""))})
    try:
        found = [_cells(one.payload) for asked in workspaces for one in read_datasets(client, workspace=asked, ids=ids)]
    except ApiError:
        return {}
    return {one["id"].lower(): one["name"] for one in found if "id" in one and one.get("name", "").strip()}


def _print_sessions(rows: Rows, names: Mapping[str, str], page: int, stats: tuple[str, ...]) -> None:
    columns = (*SHOWN, *stats)
    for row in rows:
        dataset = row.get(DATASET, "")
        row[DATASET] = names.get(dataset.lower(), dataset[:SHORT_ID])
    print_table(HEADERS[: len(columns)], [[row.get(name, "") for name in columns] for row in rows], drop=DROPPED)
    more = f" of the page's {page}; --all shows them all" if page > len(rows) else ""
    click.echo(f"{plural(len(rows), 'session')}{more}")


def _cells(payload: str) -> dict[str, str]:
    """A record's texts by property, numbers as sent; what is no object, or can't be read, is all in `name`."""
    try:
        record = json.loads(payload, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return {"name": payload}
    cells = {name: str(value) for name, value in record.items() if value is not None}
    cells["start_time"] = cells.get("start_time", "")[:MINUTES].replace("T", " ")
    return cells
