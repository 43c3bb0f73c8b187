"""`make demo`: the sandbox, two months of it as one Dagster run over real HTTP, and what came out."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click

from sessions_pipeline.cli.group import heavy_imports
from sessions_pipeline.settings import DEMO, Settings

DAYS, SHOWN = 60, 30
ROOT = Path("data/demo")


@click.command(short_help="See daily costs of a made-up company.", epilog="Example: sessions-pipeline demo")
@click.option("--days", type=click.IntRange(1, DAYS), default=DAYS, help="How many days to read.")
def demo(days: int) -> None:
    """Materialise the last days of a made-up company from the embedded API, under data/demo. No account needed."""
    with heavy_imports():
        from sessions_pipeline.cli.run import run_days
        from sessions_pipeline.cli.summary import print_summary
        from sessions_pipeline.sandbox.server import running_sandbox

    today = datetime.now(UTC).date()
    first = today - timedelta(days=days - 1)
    with running_sandbox() as sandbox:
        click.echo(f"Sandbox API on {sandbox.url}: reading {days} days, {first} to {today}")
        settings = demo_settings(sandbox.url, sandbox.key, first)
        made = run_days(settings, first, today, select="*")
    print_summary(settings, made, max(first, today - timedelta(days=SHOWN - 1)), today)
    click.echo(_where_next(settings))


def demo_settings(url: str, key: str, first: date) -> Settings:
    """Settings for the sandbox alone, and an instance of its own: nothing of the environment is used."""
    from sessions_pipeline.orchestration.home import STORAGE

    home = ROOT.resolve() / "_dagster"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").write_text(f"{STORAGE}telemetry:\n  enabled: false\n")
    return Settings.model_validate(
        {
            "LANGSMITH_API_KEY": key,
            "LANGSMITH_ENDPOINT": url,
            "SESSIONS_PIPELINE_DATA_ROOT": str(ROOT),
            "SESSIONS_PIPELINE_START_DATE": first,
            "DAGSTER_HOME": str(home),
        }
    )


def _where_next(settings: Settings) -> str:
    table = f"'{ROOT}/daily_cost_by_reference_dataset/*/*.parquet'"
    # Printed for a person to try, never run here.
    recipes = (f"FROM {table} ORDER BY start_date LIMIT 5", f"SELECT sum(total_cost) FROM {table}")  # noqa: S608
    is_checkout = DEMO.startswith("make")
    python = ".venv/bin/python" if is_checkout else "python"
    first, second = (f'{python} -c "import duckdb; duckdb.sql(\\"{sql}\\").show()"' for sql in recipes)
    variables = f"SESSIONS_PIPELINE_DATA_ROOT={settings.absolute_data_root} DAGSTER_HOME={settings.dagster_home}"
    ui = "make dev SANDBOX=1" if is_checkout else f"{variables} dagster dev -m sessions_pipeline.definitions"
    return f"DuckDB   {first}\n         {second}\nDagster  {ui}    # the same data, its graph, checks and schedules"
