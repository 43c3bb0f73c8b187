"""`sessions-pipeline backfill`: a wide range as many runs on a Dagster that runs elsewhere."""

from datetime import datetime
from uuid import UUID, uuid4

import click

from sessions_pipeline.cli.materialize import DAY, check_days
from sessions_pipeline.settings import Settings


@click.command(
    epilog="Example: sessions-pipeline backfill --from 2025-01-01 --to 2025-12-31 --url http://127.0.0.1:3000"
)
@click.option("--from", "first", type=DAY, required=True, metavar="DAY", help="First UTC day, YYYY-MM-DD.")
@click.option("--to", "last", type=DAY, required=True, metavar="DAY", help="Last UTC day, included.")
@click.option(
    "--workspace",
    "workspaces",
    type=click.UUID,
    multiple=True,
    metavar="ID",
    help="A workspace to read; repeatable. Without it all of LANGSMITH_WORKSPACE_ID.",
)
@click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Address of the Dagster webserver.")
@click.option("--location", default="sessions_pipeline", show_default=True, help="Its code location to run in.")
@click.option("--dry-run", is_flag=True, help="Say which runs it would be, and queue none.")
def backfill(
    first: datetime, last: datetime, workspaces: tuple[UUID, ...], url: str, location: str, *, dry_run: bool
) -> None:
    """Queue one run for each month of each workspace.

    They run where that Dagster runs them, as many at a time as its limits allow, and together keep to
    SESSIONS_PIPELINE_REQUESTS_PER_MINUTE. Returns when they are queued.
    """
    settings = Settings.load()
    window = first.date(), last.date()
    check_days(*window, settings)
    from sessions_pipeline.orchestration.pipeline import Pipeline
    from sessions_pipeline.orchestration.wide import BACKFILL, Part, parts, queue

    named = list(dict.fromkeys(map(str, workspaces)))
    for workspace in named:
        Pipeline(settings).only(workspace)
    wanted = parts(*window, named or settings.workspace_ids)
    name = uuid4().hex[:8]

    def say(part: Part) -> None:
        click.echo(f"{part.first} to {part.last}  {part.workspace or 'all workspaces'}")

    if dry_run:
        for part in wanted:
            say(part)
        return
    queue(url, wanted, backfill=name, on_queued=say, location=location)
    click.echo(
        f"{len(wanted)} runs are queued; the UI shows them under {url.rstrip('/')}/runs by the tag {BACKFILL}={name}"
    )
