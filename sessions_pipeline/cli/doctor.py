"""`sessions-pipeline doctor`: checks the setup, and says how to fix what is wrong."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import click

from sessions_pipeline.cli.terminal import echo, load_settings
from sessions_pipeline.errors import ApiError, LakeError, SessionsPipelineError, SettingError
from sessions_pipeline.langsmith import SessionsQuery, parse_narrowing
from sessions_pipeline.outputs.budget_file import load_budgets
from sessions_pipeline.outputs.formatting import plural, visible
from sessions_pipeline.settings import Settings, without_secrets


@click.command(epilog="Example: sessions-pipeline doctor")
@click.option("--fresh", is_flag=True, help="Only check that the last refresh began within three hours, for cron.")
@click.option("--notify", is_flag=True, help="Only send a test to SESSIONS_PIPELINE_NOTIFY.")
@click.option("--probe", "is_probe", is_flag=True, help="Only test the assumptions about the API; prints no data.")
def doctor(*, fresh: bool, notify: bool, is_probe: bool) -> None:
    """Check the setup, line by line.

    Checks settings, key, network, clock, a request for one record, the data root and Dagster's storage.
    """
    settings = load_settings()
    chosen = [check for is_chosen, check in ((fresh, _fresh), (notify, _notify), (is_probe, _probe)) if is_chosen]
    if chosen:
        click.echo("\n".join(check(settings) for check in chosen))
        return
    failed, advice, last_error = 0, "", ""
    for name, check in SETUP_CHECKS.items():
        try:
            found, _, more = check(settings).partition("\n\n")
            advice, mark = advice + more, "warn" if more else "ok"
        except SessionsPipelineError as error:
            failed += 1
            found, mark = str(error), "FAIL"
            found, last_error = "for the same reason" if found == last_error else found, found
        for line in found.splitlines():
            echo(f"{mark:<4}  {name:<12} {visible(without_secrets(line))}", indent=19)
    click.echo("\n" * bool(advice) + advice, nl=False)
    if failed:
        raise SessionsPipelineError(f"{failed} of {len(SETUP_CHECKS)} checks failed; the lines above say what to do")


def _fresh(settings: Settings) -> str:
    from sessions_pipeline.lake import Lake
    from sessions_pipeline.outputs.notifications import last_refresh
    from sessions_pipeline.tables.raw_sessions import why_stale

    now = datetime.now(UTC)
    last = last_refresh(Lake.open(settings.data_root, query=settings.query, read_only=True), settings, now)
    if stale := why_stale(last, now):
        days = f"{settings.absolute_data_root}: today and the {plural(max(settings.lookback_days, 1), 'day')} before it"
        raise SessionsPipelineError(f"{days} were {stale}; check that `dagster-daemon` is running, and see its runs")
    return f"ok    last refresh {last:%Y-%m-%d %H:%M} UTC"


def _notify(settings: Settings) -> str:
    from sessions_pipeline.outputs.notifications import NOTIFY, deliver

    if not settings.notify:
        raise SettingError(NOTIFY, "not set; set it to Apprise addresses, such as slack://..., separated by commas")
    took, failed = deliver(settings, "a test", "Notifications arrive.", seconds=30)
    if failed:
        raise SessionsPipelineError(f"not delivered by {', '.join(failed)}; check its address in {NOTIFY}")
    return f"ok    delivered by {', '.join(took)}"


def _probe(settings: Settings) -> str:
    """A Markdown table, 80 columns wide, without names, ids, costs or addresses."""
    from sessions_pipeline.langsmith.client import SessionsClient
    from sessions_pipeline.langsmith.probe import probe

    words = {True: "holds", False: "does not hold", None: "not testable"}
    workspace = next(iter(settings.workspace_ids), None)
    with SessionsClient(settings) as client:
        client.fetch(SessionsQuery(limit=1), workspace=workspace)
        found = probe(client, workspace=workspace, project=settings.judge_project)
        lines = [(f"{version} {assumption}", words[holds], seen) for version, assumption, holds, seen in found]
    cells = [("assumption", "in your API", "seen"), ("-" * 38, "-" * 13, "-" * 17), *lines]
    table = "\n".join(f"| {what:<38} | {answer:<13} | {seen:<17} |" for what, answer, seen in cells)
    return f"{table}\n\n{client.requests} requests, of one workspace. Paste the table into an issue: it holds no data."


def _settings(settings: Settings) -> str:
    from sessions_pipeline.outputs.notifications import check_addresses
    from sessions_pipeline.tables import REFERENCE_DATASETS, SESSIONS

    parse_narrowing(settings.query)
    load_budgets(settings)
    check_addresses(settings)
    narrowed = f", narrowed by {', '.join(sorted(settings.query))}" if settings.query else ""
    lookback = plural(settings.lookback_days, "day")
    file = Path(".env").resolve()
    source = f"{file} and the environment" if file.exists() else "the environment"
    known = {"*", *SESSIONS.schema.names, *REFERENCE_DATASETS.schema.names}
    unknown = ", ".join(path for path in settings.redact if path.removeprefix("$.").partition(".")[0] not in known)
    advice = f"\n\nSESSIONS_PIPELINE_REDACT: {unknown} begins with no known property; correct it\n" if unknown else ""
    return f"from {source}: partitions from {settings.start_date}, lookback {lookback}{narrowed}{advice}"


def _credentials(settings: Settings) -> str:
    from sessions_pipeline.langsmith.auth import Auth
    from sessions_pipeline.langsmith.client import SessionsClient

    with SessionsClient(settings):
        auth = Auth(settings)
    kind = "bearer token" if settings.bearer_token else "API key"
    if auth.base.startswith("http:") and not auth.is_loopback:
        kind += " (sent unencrypted: LANGSMITH_ENDPOINT is http)"
    number = len(settings.workspace_ids)
    return f"{kind} set, for {plural(number, 'workspace') if number else 'its own workspace'}"


def _api(settings: Settings) -> str:
    from sessions_pipeline.langsmith.client import OWN_WORKSPACE, SessionsClient

    lines = []
    with SessionsClient(settings) as client:
        for workspace in settings.workspace_ids or (None,):
            client.fetch(SessionsQuery(limit=1), workspace=workspace)
            if off := abs(client.ahead.total_seconds()):
                raise ApiError(f"this machine's clock is {off:.0f} s off the server's; set it, days depend on it")
            lines.append(f"answered for {workspace or f'{OWN_WORKSPACE} workspace'}, clock within a minute")
        lines += client.warnings
    return "\n".join(lines)


def _data_root(settings: Settings) -> str:
    from sessions_pipeline.lake import Lake
    from sessions_pipeline.outputs.read import broken_files
    from sessions_pipeline.tables import RAW_SESSIONS

    lake = Lake.open(settings.data_root, query=settings.query)
    lake.check_writable()
    with suppress(OSError):
        # Remove the empty folders that this check has created; in a bucket there are none.
        for folder in () if lake.is_there else (f"{settings.absolute_data_root}/_tmp", settings.absolute_data_root):
            Path(folder).rmdir()
    if broken := broken_files(lake):
        raise LakeError("\n".join(broken))
    return f"{settings.absolute_data_root} can be written{'' if lake.days(RAW_SESSIONS) else ', holds no sessions yet'}"


def _dagster(settings: Settings) -> str:
    """What was found, and after an empty line the lines to copy."""
    from sessions_pipeline.orchestration import instance_file, slow_storage

    if not (home := settings.dagster_home):
        return "DAGSTER_HOME is not set: `materialize` keeps no history, and `ui` creates .dagster here"
    state = "its storage is not the slow default" if instance_file(home).exists() else "new; it gets our dagster.yaml"
    return f"{home}: {slow_storage(home) or state}"


SETUP_CHECKS: Mapping[str, Callable[[Settings], str]] = {
    "settings": _settings,
    "key and host": _credentials,
    "API": _api,
    "data root": _data_root,
    "Dagster": _dagster,
}
