"""`sessions-pipeline report`: the HTML cost report from what the data root holds."""

from datetime import datetime
from pathlib import Path

import click

from sessions_pipeline.cli.materialize import DAY
from sessions_pipeline.cli.terminal import load_settings
from sessions_pipeline.errors import UsageError


@click.command(
    short_help="Write the HTML cost report.",
    epilog="Example: sessions-pipeline report --from 2026-01-01 --to 2026-01-31 --output january.html",
)
@click.option("--from", "first", type=DAY, metavar="DAY", help="First UTC day; without it the last 30 days read.")
@click.option("--to", "last", type=DAY, metavar="DAY", help="Last UTC day, included.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead.")
def report(first: datetime | None, last: datetime | None, output: Path | None) -> None:
    """Write one page that works offline: total, trend, datasets, projects, the most expensive experiments."""
    settings = load_settings()
    from sessions_pipeline.lake.lake import Lake
    from sessions_pipeline.outputs.report import latest_days, write_report

    if (first is None) is not (last is None):
        raise UsageError("give both --from and --to, or neither")
    if first is not None and last is not None and first > last:
        raise UsageError(f"--from {first:%Y-%m-%d} is after --to {last:%Y-%m-%d}; swap them")
    lake = Lake.open(settings.data_root, query=settings.query)
    days = (first.date(), last.date()) if first and last else latest_days(lake)
    click.echo(write_report(lake, *days, output))
