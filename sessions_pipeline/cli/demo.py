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
    variables = f"SESSIONS_PIPELINE_DATA_ROOT={settings.absolute_data_root} DAGSTER_HOME={settings.dagster_home}"
    from_a_wheel = f"{variables} dagster dev -m sessions_pipeline.definitions"
    ui = "make dev SANDBOX=1" if DEMO.startswith("make") else from_a_wheel
    return f"Dagster  {ui}    # the same data, its graph, checks and schedules"
