"""`sessions-pipeline materialize`: the assets of some days, as one Dagster run in this process."""

from datetime import UTC, date, datetime

import click

from sessions_pipeline.cli.lazy import heavy_imports
from sessions_pipeline.errors import UsageError
from sessions_pipeline.settings import Settings

DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.command(epilog="Example: sessions-pipeline materialize --from 2026-01-01 --to 2026-01-31")
@click.option("--from", "first", type=DAY, required=True, metavar="DAY", help="First UTC day, YYYY-MM-DD.")
@click.option("--to", "last", type=DAY, required=True, metavar="DAY", help="Last UTC day, included.")
@click.option(
    "--select", metavar="SELECTION", help="Dagster asset selection; without it the assets of refresh_sessions."
)
@click.option(
    "--as-of",
    type=click.DateTime(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    metavar="TIME",
    help="Rebuild from the stored readings as they were known at this UTC time, without the network.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def materialize(first: datetime, last: datetime, select: str | None, as_of: datetime | None, *, as_json: bool) -> None:
    """Fetch, validate and write the sessions of these UTC days, and what is derived from them.

    Uses the Dagster instance in DAGSTER_HOME, so that the UI shows the run; without one a temporary instance.
    """
    settings = Settings.load()
    window = first.date(), last.date()
    check_days(*window, settings)
    from sessions_pipeline.orchestration.workers import prepare

    # Before Arrow is loaded, and so that workers load what they need while Dagster is imported.
    prepare((window[1] - window[0]).days + 1)
    with heavy_imports():
        from sessions_pipeline.cli.run import run_days
        from sessions_pipeline.cli.summary import print_summary

    run_days(settings, *window, select=select, as_of=as_of.replace(tzinfo=UTC) if as_of else None)
    print_summary(settings, *window, as_json=as_json)


def check_days(first: date, last: date, settings: Settings) -> None:
    """Refuse days that make no sense.

    Raises:
        UsageError: the days are in the wrong order, before the first partition or in the future.
    """
    today = datetime.now(UTC).date()
    if first > last:
        raise UsageError(f"--from {first} is after --to {last}; swap them")
    if first < settings.start_date:
        raise UsageError(
            f"--from {first} is before the first partition {settings.start_date}; "
            "set SESSIONS_PIPELINE_START_DATE to an earlier day"
        )
    if last > today:
        raise UsageError(f"--to {last} is in the future; today is {today} (UTC)")
