"""`sessions-pipeline doctor`: a line for each thing that can be wrong, and what to do about it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import click

from sessions_pipeline.cli.terminal import load_settings
from sessions_pipeline.errors import ApiError, InstanceError, SessionsPipelineError, SettingError
from sessions_pipeline.outputs.formatting import plural, visible
from sessions_pipeline.settings import Settings, without_secrets

# Signed requests and daily partitions bear a minute; more moves sessions to another day.
CLOCK_TOLERANCE_SECONDS = 60


@click.command(short_help="Check what can be wrong, line by line.", epilog="Example: sessions-pipeline doctor")
@click.option("--quick", is_flag=True, help="Only what needs no network; says nothing when all is well.")
def doctor(*, quick: bool) -> None:
    """Check settings, key, reachability, clock, one one-record request, the data root and Dagster's storage."""
    settings = load_settings()
    if quick:
        _settings(settings)
        _credentials(settings)
        return
    checks: list[tuple[str, Callable[[Settings], str]]] = [
        ("settings", _settings),
        ("credentials", _credentials),
        ("API", _api),
        ("data root", _data_root),
        ("Dagster", _dagster),
    ]
    failed = 0
    for name, check in checks:
        try:
            found, mark = check(settings), "ok"
        except SessionsPipelineError as error:
            failed += 1
            found, mark = " ".join(str(error).split()), "FAIL"
        for line in found.splitlines():
            click.echo(f"{mark:<4}  {name:<12} {visible(without_secrets(line))}")
    if failed:
        raise SessionsPipelineError(f"{failed} of {len(checks)} checks failed; the lines above say what to do")


def _settings(settings: Settings) -> str:
    from sessions_pipeline.langsmith.query import parse_narrowing

    parse_narrowing(settings.query)
    narrowed = f", narrowed by {', '.join(sorted(settings.query))}" if settings.query else ""
    lookback = plural(settings.lookback_days, "day")
    file = Path(".env").resolve()
    source = f"{file} and the environment" if file.exists() else "the environment"
    return f"from {source}: partitions from {settings.start_date}, lookback {lookback}{narrowed}"


def _credentials(settings: Settings) -> str:
    from sessions_pipeline.langsmith.client import SessionsClient

    with SessionsClient.from_settings(settings):
        pass
    kind = "bearer token" if settings.bearer_token else "API key"
    endpoint = urlsplit(settings.endpoint)
    if endpoint.scheme == "http" and endpoint.hostname not in ("127.0.0.1", "localhost", "::1"):
        kind += " (sent unencrypted: LANGSMITH_ENDPOINT is http)"
    number = len(settings.workspace_ids)
    return f"{kind} set, {plural(number, 'workspace') if number else 'the workspace that it belongs to'}"


def _api(settings: Settings) -> str:
    from sessions_pipeline.langsmith.client import SessionsClient
    from sessions_pipeline.langsmith.query import SessionsQuery

    lines = []
    with SessionsClient.from_settings(settings) as client:
        for workspace in settings.workspace_ids or (None,):
            answer = client.fetch(SessionsQuery(limit=1), workspace=workspace)
            skew = abs((answer.server_time - datetime.now(UTC)).total_seconds()) if answer.server_time else 0.0
            if skew > CLOCK_TOLERANCE_SECONDS:
                raise ApiError(f"this machine's clock is {skew:.0f} s off the server's; set it, days depend on it")
            lines.append(f"answered for {workspace or 'the default workspace'}, clock within {skew:.0f} s")
        lines += client.warnings
    return "\n".join(lines)


def _data_root(settings: Settings) -> str:
    from sessions_pipeline.lake.lake import Lake

    Lake.open(settings.data_root, query=settings.query).check_writable()
    return f"{settings.absolute_data_root} can be written"


def _dagster(settings: Settings) -> str:
    from sessions_pipeline.orchestration import slow_storage

    home = settings.dagster_home
    if not home:
        return "DAGSTER_HOME is not set: `materialize` keeps no history"
    if not Path(home).is_dir():
        raise SettingError("DAGSTER_HOME", f"{home} must be the absolute path of a folder that exists")
    try:
        slow = slow_storage(home)
    except Exception as error:  # noqa: BLE001 - whatever YAML, or what stands in it, gives
        raise InstanceError(str(Path(home) / "dagster.yaml"), error) from None
    return f"{home}: {slow or 'its storage is not the slow default'}"
