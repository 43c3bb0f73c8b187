"""`sessions-pipeline list`: what the API says now; every query parameter of the schema is an option."""

import json
from collections.abc import Callable
from typing import Any, get_args

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from sessions_pipeline.errors import UsageError
from sessions_pipeline.langsmith.query import SessionsQuery
from sessions_pipeline.settings import Settings

SHOWN = ("name", "start_time", "run_count", "total_tokens", "total_cost", "reference_dataset_id")


def _query_options(command: Callable[..., None]) -> Callable[..., None]:
    for name, field in reversed(SessionsQuery.model_fields.items()):
        command = _option(name, field)(command)
    return command


def _option(name: str, field: FieldInfo) -> Callable[[Callable[..., None]], Callable[..., None]]:
    flag = f"--{name.replace('_', '-')}"
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    kwargs: dict[str, Any] = {"help": f"{field.description}.", "default": None}
    if kinds == [bool]:
        return click.option(f"{flag}/--no-{flag[2:]}", name, **kwargs)
    repeatable = any(getattr(kind, "__origin__", None) is tuple for kind in kinds)
    if repeatable:
        kwargs["help"] = f"{field.description}; repeatable."
    return click.option(flag, name, multiple=repeatable, metavar="VALUE", **kwargs)


@click.command(
    "list",
    epilog="Example: sessions-pipeline list --name-contains nightly --include-stats --limit 20",
)
@_query_options
@click.option("--format", "shape", type=click.Choice(["table", "json", "ndjson"]), default="table", show_default=True)
def list_sessions(shape: str, **values: Any) -> None:
    """Show one page of sessions as the API gives it now, version 2 in the first's spelling; nothing is written."""
    query = _query(values)
    settings = Settings.load()
    from sessions_pipeline.langsmith.client import SessionsClient

    with SessionsClient.from_settings(settings) as client:
        workspaces = settings.workspace_ids or (None,)
        payloads = [
            record.payload for workspace in workspaces for record in client.fetch(query, workspace=workspace).records
        ]
        for warning in client.warnings:
            click.echo(f"sessions-pipeline: {warning}", err=True)
    if shape == "ndjson":
        for payload in payloads:
            click.echo(" ".join(payload.splitlines()))
    elif shape == "json":
        click.echo(f"[{','.join(payloads)}]")
    else:
        _print_table([json.loads(payload) for payload in payloads])


def _query(values: dict[str, Any]) -> SessionsQuery:
    given = {name: value for name, value in values.items() if value not in (None, ())}
    try:
        return SessionsQuery.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{option}: {first['msg']}") from None


def _print_table(rows: list[Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in SHOWN:
        table.add_column(name, overflow="fold", justify="right" if name in SHOWN[2:5] else "left")
    for row in rows:
        cells = row if isinstance(row, dict) else {"name": json.dumps(row)}
        table.add_row(*("" if cells.get(name) is None else escape(str(cells[name])) for name in SHOWN))
    Console().print(table)
    click.echo(f"{len(rows)} session{'' if len(rows) == 1 else 's'}")
