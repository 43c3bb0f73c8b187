"""`materialize`: the assets of some days, as one Dagster run; `report`, `budget`, `export`: what is there."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click

from sessions_pipeline.cli.terminal import heavy_imports, load_settings, say
from sessions_pipeline.errors import (
    BudgetExceededError,
    NotReadError,
    SessionsPipelineError,
    SettingError,
    UsageError,
)
from sessions_pipeline.settings import Settings


class _Date(click.DateTime):
    """A day or a month; what is none is said with an example, where click shows Python's format."""

    def __init__(self, form: str, kind: str, example: str) -> None:
        super().__init__([form])
        self.expected = f"{kind} such as {example}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            raise click.BadParameter(f"{value} is no {self.expected}", ctx, param) from None


DAY, MONTH = _Date("%Y-%m-%d", "day YYYY-MM-DD", "2026-01-31"), _Date("%Y-%m", "month YYYY-MM", "2026-01")


def past(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """A time in ISO 8601; without an offset it is UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value} is no time such as 2026-01-31 or 2026-01-31T12:00:00+01:00") from None
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > datetime.now(UTC):
        raise click.BadParameter(f"{value} is in the future")
    return moment


@click.command(
    short_help="Read days, and make every table of them.",
    epilog="Example: sessions-pipeline materialize --from 2026-01-01 --to 2026-01-31",
)
@click.option("--from", "first", type=DAY, required=True, metavar="DAY", help="First UTC day, YYYY-MM-DD.")
@click.option("--to", "last", type=DAY, required=True, metavar="DAY", help="Last UTC day, included.")
@click.option(
    "--select", metavar="SELECTION", help="Dagster asset selection; without it the assets of refresh_sessions."
)
@click.option(
    "--as-of",
    callback=past,
    metavar="TIME",
    help="Make tables again from the stored readings as they were known at this time, without the network.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def materialize(first: datetime, last: datetime, select: str | None, as_of: datetime | None, *, as_json: bool) -> None:
    """Fetch, validate and write the sessions of these UTC days, and what is derived from them.

    Uses the Dagster instance in DAGSTER_HOME, so that the UI shows the run; without one a temporary instance.
    """
    settings = load_settings()
    window = first.date(), last.date()
    _check_days(*window, settings)
    from sessions_pipeline.orchestration.workers import prepare, processes_for

    # Before Arrow is loaded, and so that processes load what they need while Dagster is imported.
    prepare(processes_for((window[1] - window[0]).days + 1))
    with heavy_imports():
        from sessions_pipeline.cli.run import run_days
        from sessions_pipeline.cli.summary import print_summary
        from sessions_pipeline.outputs.budget_file import load_budgets

    load_budgets(settings)
    made = run_days(settings, *window, select=select, as_of=as_of)
    print_summary(settings, made, *window, as_json=as_json)


def _check_days(first: date, last: date, settings: Settings) -> None:
    """Refuse days in the wrong order, before the first partition or in the future."""
    today = datetime.now(UTC).date()
    _check_order(first, last)
    if first < settings.start_date:
        raise UsageError(
            f"--from {first} is before the first partition {settings.start_date}; "
            "set SESSIONS_PIPELINE_START_DATE to an earlier day"
        )
    if last > today:
        raise UsageError(f"--to {last} is in the future; today is {today} (UTC)")


def _check_order(first: date, last: date) -> None:
    if first > last:
        raise UsageError(f"--from {first} is after --to {last}; swap them")


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
    from sessions_pipeline.outputs.report import budgets_or_problem, latest_days, write_report

    lake = Lake.open(settings.data_root, query=settings.query)
    if first and last:
        days = first.date(), last.date()
        _check_order(*days)
    elif first or last:
        raise UsageError("give both --from and --to, or neither")
    else:
        days = latest_days(lake)
    if not lake.is_there:
        place = settings.absolute_data_root
        raise NotReadError(f"{place}: no lake is here; materialize days, or set SESSIONS_PIPELINE_DATA_ROOT")
    budgets = budgets_or_problem(lake, settings, datetime.now(UTC))
    if isinstance(budgets, str):
        say(budgets)
    click.echo(write_report(lake, *days, output, budgets=budgets))


@click.command(
    short_help="Show how much of each budget is used.", epilog="Example: sessions-pipeline budget --check || echo look"
)
@click.option("--check", is_flag=True, help="Exit 3 if a budget is exceeded, 1 if that can't be known.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def budget(*, check: bool, as_json: bool) -> None:
    """Show what is used of each budget in the file that SESSIONS_PIPELINE_BUDGETS names, from what was read."""
    settings = load_settings()
    from sessions_pipeline.cli.summary import print_budgets
    from sessions_pipeline.lake.lake import Lake
    from sessions_pipeline.outputs.budget_file import VARIABLE, load_budgets
    from sessions_pipeline.outputs.budgets import budget_statuses

    if not (budgets := load_budgets(settings)):
        lines = 'the lines [[budget]], name = "all experiments", limit = 400.00 and period = "month"'
        raise SettingError(VARIABLE, f"is not set, or names no budget; set it to a TOML file with {lines}")
    lake = Lake.open(settings.data_root, query=settings.query, read_only=True)
    statuses = budget_statuses(lake, budgets, datetime.now(UTC))
    print_budgets(statuses, as_json=as_json)
    exceeded = [status.budget.name for status in statuses if status.state == "exceeded"]
    unknown = [status.budget.name for status in statuses if not status.is_known]
    if check and exceeded:
        raise BudgetExceededError(f"beyond the limit: {', '.join(exceeded)}")
    if check and unknown:
        raise SessionsPipelineError(f"can't be known, for the reasons above: {', '.join(unknown)}")


FOCUS = "Example: sessions-pipeline export focus --month 2026-01 --output january.parquet"


@click.group(short_help="Write the costs for other programs.", epilog=FOCUS)
def export() -> None:
    """Write the costs as a file that other programs read."""


@export.command("focus", short_help="Write a month for finance tools.", epilog=FOCUS)
@click.option("--month", type=MONTH, required=True, metavar="MONTH", help="UTC month, YYYY-MM.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="A .parquet or .csv file."
)
@click.option("--partial", is_flag=True, help="Write it even if days of the month were not read, or are not over.")
def export_focus(month: datetime, output: Path, *, partial: bool) -> None:
    """Write a month's experiments as a FOCUS 1.2 dataset: estimates, never to be added to a provider's own data."""
    if output.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--output {output}: end its name in .parquet or .csv")
    settings = load_settings()
    from sessions_pipeline.lake.lake import Lake
    from sessions_pipeline.outputs.focus import focus_costs, write_focus
    from sessions_pipeline.outputs.formatting import plural

    lake = Lake.open(settings.data_root, query=settings.query, read_only=True)
    found = focus_costs(lake, month.date(), datetime.now(UTC).date())
    if found.lacks and not partial:
        raise NotReadError(f"{found.lacks}; or take what is there with --partial")
    write_focus(found.rows, output)
    if found.lacks:
        say(found.lacks)
    if found.unknown:
        say(f"{plural(found.unknown, 'experiment')} left out: the cost is unknown, and FOCUS has no word for that")
    click.echo(f"{output.resolve()}: {plural(found.rows.num_rows, 'experiment')}")
