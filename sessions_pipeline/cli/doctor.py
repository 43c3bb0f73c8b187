"""`sessions-pipeline doctor`: a line for each thing that can be wrong, and what to do about it."""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import click

from sessions_pipeline.errors import ApiError, SessionsPipelineError
from sessions_pipeline.settings import Settings

# Signed requests and daily partitions bear a minute; more moves sessions to another day.
CLOCK_TOLERANCE_SECONDS = 60


@click.command(epilog="Example: sessions-pipeline doctor")
@click.option("--quick", is_flag=True, help="Only what needs no network; says nothing when all is well.")
def doctor(*, quick: bool) -> None:
    """Check settings, key, reachability, clock, one one-record request and that the data root can be written."""
    settings = Settings.load()
    if quick:
        _settings(settings)
        _credentials(settings)
        return
    checks: list[tuple[str, Callable[[Settings], str]]] = [
        ("settings", _settings),
        ("credentials", _credentials),
        ("API", _api),
        ("data root", _data_root),
    ]
    failed = 0
    for name, check in checks:
        try:
            found = check(settings)
        except SessionsPipelineError as error:
            failed += 1
            click.echo(f"FAIL  {name:<12} {error}")
        else:
            for line in found.splitlines():
                click.echo(f"ok    {name:<12} {line}")
    if failed:
        raise SessionsPipelineError(f"{failed} of {len(checks)} checks failed; the lines above say what to do")


def _settings(settings: Settings) -> str:
    from sessions_pipeline.langsmith.query import parse_narrowing

    parse_narrowing(settings.query)
    narrowed = f", narrowed by {', '.join(sorted(settings.query))}" if settings.query else ""
    return f"partitions from {settings.start_date}, lookback {settings.lookback_days} days{narrowed}"


def _credentials(settings: Settings) -> str:
    from sessions_pipeline.langsmith.client import SessionsClient

    with SessionsClient.from_settings(settings):
        pass
    kind = "bearer token" if settings.bearer_token else "API key"
    count = len(settings.workspace_ids)
    insecure = urlsplit(settings.endpoint)
    if insecure.scheme == "http" and insecure.hostname not in ("127.0.0.1", "localhost", "::1"):
        kind += " (sent unencrypted: LANGSMITH_ENDPOINT is http)"
    return f"{kind} set, {f'{count} workspaces' if count else 'the workspace that it belongs to'}"


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

    lake = Lake.open(settings.data_root, query=settings.query)
    lake.check_writable()
    return f"{settings.data_root} can be written"
