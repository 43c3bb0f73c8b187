"""`make demo`: the sandbox, thirty days of it as one Dagster run over real HTTP, and what came out."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from sessions_pipeline.cli.lazy import heavy_imports
from sessions_pipeline.settings import Settings

DAYS = 30
ROOT = Path("data/demo")


@click.command(epilog="Example: sessions-pipeline demo")
@click.option("--days", type=click.IntRange(1, 45), default=DAYS, show_default=True, help="How many days to read.")
def demo(days: int) -> None:
    """Materialise the last days of a made-up company from the embedded API, under data/demo. No account needed."""
    with heavy_imports():
        from sessions_pipeline.cli.report import write_report
        from sessions_pipeline.cli.run import run_days
        from sessions_pipeline.cli.summary import print_summary
        from sessions_pipeline.sandbox.server import running_sandbox

    today = datetime.now(UTC).date()
    first = today - timedelta(days=days - 1)
    with running_sandbox() as sandbox:
        click.echo(f"Sandbox API on {sandbox.url}: reading {days} days, {first} to {today}")
        settings = demo_settings(sandbox.url, sandbox.key)
        run_days(settings, first, today)
    print_summary(settings, first, today)
    report = write_report(settings, first, today)
    click.echo(_where_next(report))


def demo_settings(url: str, key: str) -> Settings:
    """Settings for the sandbox alone: nothing of the environment's own key, endpoint or data root is used."""
    return Settings(
        _env_file=None,
        LANGSMITH_API_KEY=key,
        LANGSMITH_ENDPOINT=url,
        LANGSMITH_WORKSPACE_ID="",
        LANGSMITH_BEARER_TOKEN=None,
        SESSIONS_PIPELINE_DATA_ROOT=str(ROOT),
        SESSIONS_PIPELINE_QUERY={},
    )


def _where_next(report: str) -> str:
    table = f"'{ROOT}/daily_cost_by_reference_dataset/*/*.parquet'"
    # Printed for a person to try, never run here.
    recipes = (f"FROM {table} ORDER BY start_date LIMIT 5", f"SELECT sum(total_cost) FROM {table}")  # noqa: S608
    first, second = (f'.venv/bin/python -c "import duckdb; duckdb.sql(\\"{sql}\\").show()"' for sql in recipes)
    return "\n".join(
        (
            "",
            f"Parquet   {ROOT.resolve()}",
            f"Report    {report}",
            f"DuckDB    {first}",
            f"          {second}",
            "Dagster   make dev SANDBOX=1    the same data in the UI, with its graph, checks and schedule",
        )
    )
