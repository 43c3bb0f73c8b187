"""Commands that run Dagster (`materialize`, `ui`), the API of a made-up company (`sandbox`), or both (`demo`)."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from sessions_pipeline import errors
from sessions_pipeline.cli import terminal
from sessions_pipeline.cli.doctor import SETUP_CHECKS
from sessions_pipeline.days import days_between
from sessions_pipeline.outputs.budget_file import load_budgets
from sessions_pipeline.outputs.formatting import plural
from sessions_pipeline.settings import DEMO, Settings, program_variables

DEMO_DAYS, DEMO_SHOWN = 60, 30
DEMO_ROOT = Path("data/demo")
HOST = "127.0.0.1"
# Dagster recommends `dg dev` instead of `dagster dev`, but that is another package.
QUIET = "ignore:Function `dev_command` is superseded:FutureWarning"


@click.command(epilog="Example: sessions-pipeline materialize --from 2026-01-01 --to 2026-01-31")
@click.option("--from", "first", type=terminal.DAY, required=True, metavar="DAY", help="First UTC day, YYYY-MM-DD.")
@click.option("--to", "last", type=terminal.DAY, required=True, metavar="DAY", help="Last UTC day, included.")
@click.option(
    "--select", multiple=True, metavar="SELECTION", help="Dagster selection, repeatable; default: the hourly assets."
)
@click.option(
    "--as-of",
    type=terminal.past_time,
    metavar="TIME",
    help="Rebuild tables as they were known at this time, from stored readings, without the network.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def materialize(first: date, last: date, select: tuple[str, ...], as_of: datetime | None, *, as_json: bool) -> None:
    """Read days, and write all tables for them.

    Fetches, validates and writes the sessions of these UTC days and the tables derived from them. Uses the Dagster
    instance in DAGSTER_HOME, so that the UI shows the run; without it, a temporary instance.
    """
    settings = terminal.load_settings()
    _check_days(first, last, settings)
    # Before the first request, which is sent while Dagster is still being imported.
    SETUP_CHECKS["Dagster"](settings)
    if as_of and (kept := settings.keep_readings_days) and datetime.now(UTC) - as_of > timedelta(days=kept):
        text = f"--as-of {as_of:%Y-%m-%d}: readings that were replaced over {plural(kept, 'day')} ago were deleted"
        terminal.say(f"{text}, so these tables may differ from those of that time", is_warning=True)
    # Before the run: if the file breaks meanwhile, the summary is still printed.
    budgets = load_budgets(settings)
    made = run_days(settings, first, last, select=select, as_of=as_of)
    from sessions_pipeline.cli.summary import print_summary

    print_summary(settings, made, first, last, budgets=budgets, as_json=as_json)
    if not (settings.dagster_home or as_json):
        click.echo("Dagster  not in the UI; next time:\n         mkdir -p .dagster; export DAGSTER_HOME=$PWD/.dagster")


def _check_days(first: date, last: date, settings: Settings) -> None:
    """Refuse days in the wrong order, before the first partition or in the future."""
    today = datetime.now(UTC).date()
    terminal.check_order(first, last)
    if first < settings.start_date:
        advice = "set SESSIONS_PIPELINE_START_DATE to an earlier day"
        raise errors.UsageError(f"--from {first} is before the first partition {settings.start_date}; {advice}")
    if last > today:
        raise errors.UsageError(f"--to {last} is in the future; today is {today} (UTC)")


def run_days(
    settings: Settings, first: date, last: date, *, select: tuple[str, ...] = (), **values: Any
) -> dict[str, list[date]]:
    """Materialize these days, both included; returns the days written, by asset, with every asset of the run.

    `select` are selections in Dagster's syntax, and `values` further fields of `Pipeline`, such as `as_of`.

    Raises:
        SessionsPipelineError: what went wrong, in one line.
    """
    from sessions_pipeline.workers import prepare, processes_for

    # First: it sets Arrow's memory pool, which Arrow reads when loaded, and worker processes can import meanwhile.
    prepare(processes_for((last - first).days + 1))
    finished, warnings = list[date](), list[str]()
    with terminal.reported(finished, warnings), ExitStack() as stack:
        with terminal.heavy_imports():
            from sessions_pipeline.outputs.notifications import check_addresses
            from sessions_pipeline.pipeline import Pipeline

            check_addresses(settings)
            pipeline = Pipeline(settings, on_warning=warnings.append, **values)
            if {*select} <= {"*"} and pipeline.as_of is None:
                stack.enter_context(pipeline.start_fetching(days_between(first, last)))
            from sessions_pipeline.definitions import build_definitions
            from sessions_pipeline.orchestration.run import days_made, execute, open_instance
        instance = stack.enter_context(open_instance(settings.dagster_home))
        on_day = stack.enter_context(terminal.progress_bar((last - first).days + 1, finished))
        definitions = build_definitions(replace(pipeline, on_day=on_day))
        return days_made(execute(definitions, first, last, instance=instance, select=select))


@click.command(epilog="Example: sessions-pipeline demo")
@click.option(
    "--days", type=click.IntRange(1, DEMO_DAYS), default=DEMO_DAYS, metavar="N", help="How many days to read."
)
def demo(days: int) -> None:
    """See daily costs of a made-up company.

    Reads its last days from an embedded API, writes all tables to data/demo, and shows what the last 30 days cost. No
    account needed.
    """
    from sessions_pipeline.orchestration import own_yaml
    from sessions_pipeline.sandbox import running_sandbox

    today = datetime.now(UTC).date()
    first = today - timedelta(days=days - 1)
    with running_sandbox() as url:
        click.echo(f"Sandbox API on {url}: reading {plural(days, 'day')}, {first} to {today}")
        variables = demo_variables(url, first)
        home = variables["DAGSTER_HOME"]
        Path(home).mkdir(parents=True, exist_ok=True)
        Path(home, "dagster.yaml").write_text(own_yaml(home), "utf-8")
        settings = Settings.model_validate(variables)
        # Measure judges of all days shown, since this API keeps traces forever: one request of 5 ms each.
        made = run_days(settings, first, today, select=("*",), judge_reach=timedelta(days=DEMO_SHOWN))
    from sessions_pipeline.cli.summary import print_summary

    if days > DEMO_SHOWN:
        click.echo(f"The last {DEMO_SHOWN} of the {days} days:")
    shown = max(first, today - timedelta(days=DEMO_SHOWN - 1))
    print_summary(settings, made, shown, today, budgets=load_budgets(settings))
    ui = "make dev SANDBOX=1" if DEMO.startswith("make") else "sessions-pipeline ui --demo"
    click.echo(f"Dagster  {ui}    # the same data, its graph, checks and schedules")


def demo_variables(url: str, first: date) -> dict[str, str]:
    """Variables that lead to the sandbox at `url`, the demo's data root and its own Dagster instance."""
    from sessions_pipeline.sandbox import KEY

    root = DEMO_ROOT.resolve()
    return {
        "LANGSMITH_API_KEY": KEY,
        "LANGSMITH_ENDPOINT": url,
        "SESSIONS_PIPELINE_DATA_ROOT": str(root),
        "SESSIONS_PIPELINE_START_DATE": str(first),
        "SESSIONS_PIPELINE_BUDGETS": str(Path(__file__).with_name("demo_budgets.toml")),
        "DAGSTER_HOME": str(root / "_dagster"),
    }


@click.command(epilog="Example: sessions-pipeline ui --demo")
@click.option("--demo", "on_demo", is_flag=True, help="Show the data of `demo`, and serve its API.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, metavar="PORT", help="Port of the UI.")
def ui(*, on_demo: bool, port: int) -> int:
    """Run the Dagster UI, with its schedules and sensors.

    It runs on 127.0.0.1 until Ctrl-C. Dagster's folder is DAGSTER_HOME; without it, .dagster is created here.
    """
    if on_demo:
        return _show_demo(port)
    settings = terminal.load_settings()
    for name in ("settings", "key and host"):
        SETUP_CHECKS[name](settings)
    from sessions_pipeline.orchestration import ensure_dagster_yaml

    home = Path(settings.dagster_home or ".dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    ensure_dagster_yaml(str(home))
    return _run_dagster(port, Path(), program_variables({"DAGSTER_HOME": str(home)}))


def _show_demo(port: int) -> int:
    from sessions_pipeline.lake import Lake
    from sessions_pipeline.sandbox import running_sandbox
    from sessions_pipeline.tables import RAW_SESSIONS

    if not (days := Lake.open(str(DEMO_ROOT), query={}, read_only=True).days(RAW_SESSIONS)):
        raise errors.NotReadError(f"{DEMO_ROOT.resolve()}: nothing is here; run `{DEMO}` first")
    with running_sandbox() as url:
        variables = demo_variables(url, days[0])
        # In a folder without `.env`, so that no settings lead to another workspace and mix its data into the demo's.
        return _run_dagster(port, Path(variables["DAGSTER_HOME"]), program_variables(variables, alone=True))


def _run_dagster(port: int, folder: Path, variables: Mapping[str, str]) -> int:
    """Run `dagster dev` until it ends or is stopped; returns its exit status.

    That is 0 if it was stopped, but 1 if it was stopped twice, or while Dagster starts its processes.
    """
    from sessions_pipeline.orchestration import SHIPPED

    _refuse_taken(port)
    click.echo(f"Dagster UI: http://{HOST}:{port}")
    loaded = SHIPPED.with_name("workspace.yaml")
    command = [sys.executable, "-W", QUIET, "-m", "dagster", "dev", "-w", str(loaded), "-h", HOST, "-p", str(port)]
    # Ctrl-\ included, which Dagster would outlive. What is ignored stays ignored, as `nohup` wants it.
    stopping = [one for one in (*terminal.stop_signals(), signal.SIGQUIT) if signal.getsignal(one) != signal.SIG_IGN]
    # In the background of a script, Ctrl-C is ignored. Dagster would inherit that, but not a handler, and would then
    # ignore SIGTERM, too.
    signal.signal(signal.SIGINT, lambda *_: None)
    # In a process group of its own, where we tell Dagster alone to stop. If Ctrl-C reached its code servers, too, they
    # would be taken for crashed and started again, and would outlive Dagster by 45 s or keep it waiting.
    with subprocess.Popen(command, cwd=folder, env=variables, process_group=0) as dagster:  # noqa: S603 - it is fixed
        try:
            for number in stopping:
                signal.signal(number, lambda *_: dagster.terminate())
            # Dagster may be stopped before it handles that itself.
            return 0 if (status := dagster.wait()) == -signal.SIGTERM else status
        finally:
            with suppress(ProcessLookupError):
                os.killpg(dagster.pid, signal.SIGTERM)  # runs in progress, which Dagster would let go on


@click.command(epilog="Example: sessions-pipeline sandbox --port 8123")
@click.option("--port", type=click.IntRange(0, 65535), default=8123, metavar="PORT", help="Port; 0 takes a free one.")
def sandbox(port: int) -> None:
    """Serve the API of a made-up company.

    It has the form of the LangSmith API, and runs on 127.0.0.1 until Ctrl-C.
    """
    from sessions_pipeline.sandbox import KEY, running_sandbox

    _refuse_taken(port)
    # What stops any other command by an error, such as Ctrl-C, is the ordinary end of this one.
    with running_sandbox(port) as url, suppress(KeyboardInterrupt):
        click.echo(f"Sandbox API on {url} - point the pipeline at it in another terminal:")
        click.echo(f"  export LANGSMITH_ENDPOINT={url} LANGSMITH_API_KEY={KEY}")
        click.echo("Ctrl-C stops it.")
        signal.pause()


def _refuse_taken(port: int) -> None:
    """Refuse a port on which this program can't listen, before anything is started."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        # The error's own text may end with the address.
        reason = os.strerror(error.errno or 0)
        raise errors.SessionsPipelineError(f"port {port}: {reason}; choose another with --port") from None
