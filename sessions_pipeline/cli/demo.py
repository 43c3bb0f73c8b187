"""The made-up company: `sessions-pipeline demo` reads two months of it, `sessions-pipeline sandbox` serves it alone."""

import signal
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click

from sessions_pipeline.cli.terminal import heavy_imports
from sessions_pipeline.errors import SessionsPipelineError
from sessions_pipeline.settings import DEMO, Settings

DAYS, SHOWN = 60, 30
# A request for each experiment's judges takes 5 ms: those of the days shown, which are some 25 a day.
JUDGE_REQUESTS = 780
ROOT = Path("data/demo")
# The company never spends more than these, so that nothing is red at the first look.
BUDGETS = """\
[[budget]]
name = "everything"
limit = 350.00
period = "month"

[[budget]]
name = "long-context"
limit = 35.00
period = "week"
warn_at = 0.5
attribute = "git.branch"
value = "long-context"
"""


@click.command(short_help="See daily costs of a made-up company.", epilog="Example: sessions-pipeline demo")
@click.option("--days", type=click.IntRange(1, DAYS), default=DAYS, help="How many days to read.")
def demo(days: int) -> None:
    """Materialise the last days of a made-up company from the embedded API, under data/demo. No account needed."""
    with heavy_imports():
        from sessions_pipeline.cli.run import run_days
        from sessions_pipeline.cli.summary import print_summary
        from sessions_pipeline.sandbox import KEY, running_sandbox

    today = datetime.now(UTC).date()
    first = today - timedelta(days=days - 1)
    with running_sandbox() as url:
        click.echo(f"Sandbox API on {url}: reading {days} days, {first} to {today}")
        settings = demo_settings(url, KEY, first)
        # Judges of older experiments are asked for, too: this API keeps its traces for ever.
        made = run_days(settings, first, today, select="*", judge_reach=timedelta(days=SHOWN))
    print_summary(settings, made, max(first, today - timedelta(days=SHOWN - 1)), today)
    places = {"DATA_ROOT": settings.absolute_data_root, "BUDGETS": settings.budgets}
    variables = " ".join(f"SESSIONS_PIPELINE_{name}={place}" for name, place in places.items())
    from_a_wheel = f"{variables} DAGSTER_HOME={settings.dagster_home} dagster dev -m sessions_pipeline.definitions"
    ui = "make dev SANDBOX=1" if DEMO.startswith("make") else from_a_wheel
    click.echo(f"Dagster  {ui}    # the same data, its graph, checks and schedules")


def demo_settings(url: str, key: str, first: date) -> Settings:
    """Settings for the sandbox alone, and a Dagster instance of its own: nothing of the environment is used."""
    from sessions_pipeline.orchestration import storage_in

    home = ROOT.resolve() / "_dagster"
    home.mkdir(parents=True, exist_ok=True)
    off = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"
    (home / "dagster.yaml").write_text(f"{storage_in(str(home))}{off}", "utf-8")
    budgets = ROOT.resolve() / "budgets.toml"
    budgets.write_text(BUDGETS, "utf-8")
    return Settings.model_validate(
        {
            "LANGSMITH_API_KEY": key,
            "LANGSMITH_ENDPOINT": url,
            "SESSIONS_PIPELINE_DATA_ROOT": str(ROOT),
            "SESSIONS_PIPELINE_START_DATE": first,
            "SESSIONS_PIPELINE_BUDGETS": str(budgets),
            "SESSIONS_PIPELINE_JUDGE_REQUESTS": JUDGE_REQUESTS,
            "DAGSTER_HOME": str(home),
        }
    )


@click.command(
    short_help="Serve the API of a made-up company.", epilog="Example: sessions-pipeline sandbox --port 8123"
)
@click.option("--port", type=click.IntRange(0, 65535), default=8123, help="Port; 0 takes a free one.")
@click.option("--seed", default=7, help="Other seeds make other data.")
def sandbox(port: int, seed: int) -> None:
    """Serve a made-up company's sessions on 127.0.0.1, in the shape of the LangSmith API, until Ctrl-C."""
    from sessions_pipeline.sandbox import KEY, running_sandbox

    stopped = threading.Event()
    try:
        with running_sandbox(port, seed) as url:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stopped.set())
            click.echo(f"Sandbox API on {url} - point the pipeline at it in another terminal:")
            click.echo(f"  export LANGSMITH_ENDPOINT={url} LANGSMITH_API_KEY={KEY}")
            click.echo("Ctrl-C stops it.")
            stopped.wait()
    except OSError as error:
        raise SessionsPipelineError(f"port {port}: {error.strerror}; --port 0 takes a free one") from None
