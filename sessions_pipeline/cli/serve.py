"""Commands that run until Ctrl-C: `ui`, the Dagster UI with its daemon; `sandbox`, the API of a made-up company."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from sessions_pipeline.cli.doctor import CHECKS
from sessions_pipeline.cli.runs import DEMO_ROOT, demo_variables
from sessions_pipeline.cli.terminal import load_settings
from sessions_pipeline.errors import NotReadError, SessionsPipelineError
from sessions_pipeline.settings import DEMO, program_variables

HOST = "127.0.0.1"
# Dagster recommends `dg dev` instead of `dagster dev`, but that is another package.
QUIET = "ignore:Function `dev_command` is superseded:FutureWarning"


@click.command(epilog="Example: sessions-pipeline ui --demo")
@click.option("--demo", "on_demo", is_flag=True, help="Show the data of `demo`, and serve its API.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, metavar="PORT", help="Port of the UI.")
def ui(*, on_demo: bool, port: int) -> int:
    """Run the Dagster UI, with its schedules and sensors.

    It runs on 127.0.0.1 until Ctrl-C. Dagster's folder is DAGSTER_HOME; without it, .dagster is created here.
    """
    if on_demo:
        return _show_demo(port)
    settings = load_settings()
    for name in ("settings", "key and host"):
        CHECKS[name](settings)
    from sessions_pipeline.orchestration import ensure_dagster_yaml

    home = Path(settings.dagster_home or ".dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    ensure_dagster_yaml(str(home))
    return _run_dagster(port, Path(), program_variables({"DAGSTER_HOME": str(home)}))


def _show_demo(port: int) -> int:
    from sessions_pipeline.lake.lake import Lake
    from sessions_pipeline.sandbox import running_sandbox
    from sessions_pipeline.tables import RAW_SESSIONS

    if not (days := Lake.open(str(DEMO_ROOT), query={}, read_only=True).days(RAW_SESSIONS)):
        raise NotReadError(f"{DEMO_ROOT.resolve()}: nothing is here; run `{DEMO}` first")
    with running_sandbox() as url:
        variables = demo_variables(url, days[0])
        # In a folder without `.env`, so that no settings lead to another workspace and mix its data into the demo's.
        return _run_dagster(port, Path(variables["DAGSTER_HOME"]), program_variables(variables, alone=True))


def _run_dagster(port: int, folder: Path, variables: Mapping[str, str]) -> int:
    """Run `dagster dev` until it ends or is stopped; returns its exit status, 0 if it was stopped."""
    from sessions_pipeline.orchestration import SHIPPED

    with _free(port), socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind((HOST, port))
    click.echo(f"Dagster UI: http://{HOST}:{port}")
    loaded = SHIPPED.with_name("workspace.yaml")
    command = [sys.executable, "-W", QUIET, "-m", "dagster", "dev", "-w", str(loaded), "-h", HOST, "-p", str(port)]
    # On a terminal, Dagster gets Ctrl-C, too; the sandbox keeps serving until Dagster has ended.
    signal.signal(signal.SIGINT, lambda *_: None)
    with subprocess.Popen(command, cwd=folder, env=variables) as dagster:  # noqa: S603 - the command is fixed
        signal.signal(signal.SIGTERM, lambda *_: dagster.terminate())
        return dagster.wait()


@click.command(epilog="Example: sessions-pipeline sandbox --port 8123")
@click.option("--port", type=click.IntRange(0, 65535), default=8123, metavar="PORT", help="Port; 0 takes a free one.")
def sandbox(port: int) -> None:
    """Serve the API of a made-up company.

    It has the form of the LangSmith API, and runs on 127.0.0.1 until Ctrl-C.
    """
    from sessions_pipeline.sandbox import KEY, running_sandbox

    stopped = threading.Event()
    with _free(port), running_sandbox(port) as url:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        click.echo(f"Sandbox API on {url} - point the pipeline at it in another terminal:")
        click.echo(f"  export LANGSMITH_ENDPOINT={url} LANGSMITH_API_KEY={KEY}")
        click.echo("Ctrl-C stops it.")
        stopped.wait()


@contextmanager
def _free(port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SessionsPipelineError(f"port {port}: {error.strerror}; choose another with --port") from None
