"""`sessions-pipeline report`: the HTML cost report from what the data root holds."""

from datetime import date, datetime
from pathlib import Path

import click

from sessions_pipeline.errors import LakeError, UsageError
from sessions_pipeline.settings import Settings

DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.command(epilog="Example: sessions-pipeline report --from 2026-01-01 --to 2026-01-31 --output january.html")
@click.option("--from", "first", type=DAY, metavar="DAY", help="First UTC day; without it the last 30 days read.")
@click.option("--to", "last", type=DAY, metavar="DAY", help="Last UTC day, included.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write instead.")
def report(first: datetime | None, last: datetime | None, output: Path | None) -> None:
    """Write one self-contained page that works offline: total, trend, datasets, projects, dearest experiments."""
    settings = Settings.load()
    if (first is None) is not (last is None):
        raise UsageError("give both --from and --to, or neither")
    if first is not None and last is not None:
        if first > last:
            raise UsageError(f"--from {first:%Y-%m-%d} is after --to {last:%Y-%m-%d}; swap them")
        click.echo(write_report(settings, first.date(), last.date(), output))
    else:
        click.echo(write_report(settings, output=output))


def write_report(
    settings: Settings, first: date | None = None, last: date | None = None, output: Path | None = None
) -> str:
    """Write the report and tell where; under the data root unless `output` names a file.

    Raises:
        LakeError: the data root can't be read, or the file can't be written.
    """
    from sessions_pipeline.orchestration.pipeline import Pipeline
    from sessions_pipeline.orchestration.report import REPORT_FILE, latest_days, render_report

    lake = Pipeline(settings).open_lake()
    if first is None or last is None:
        first, last = latest_days(lake)
    page = render_report(lake, first, last).encode()
    if output is None:
        return lake.write_file(REPORT_FILE, page)
    try:
        output.write_bytes(page)
    except OSError as error:
        raise LakeError(f"{output}: {error.strerror}; choose another file with --output") from None
    return str(output.resolve())
