"""The docs' shell commands run unchanged, in a workspace of the made-up company at the date that the docs assume."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sessions_pipeline.sandbox import serving
from sessions_pipeline_tests.end_to_end.deployment import OURS
from sessions_pipeline_tests.faulty_server import running_sandbox
from sessions_pipeline_tests.integration.s3_server import S3Server
from sessions_pipeline_tests.snippets import Snippet, each, script, snippets_of_heading, together

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
# Values for the placeholders in the docs.
DAYS = "--from 2026-11-25 --to 2026-11-25"
FILLED_IN = {"DAY": "2026-11-25", "MONTH": "2026-10", "FILE": "october.csv", "…": DAYS}

pytestmark = pytest.mark.xdist_group("shell")


@dataclass(frozen=True)
class Workspace:
    """A folder with an `.env`, and the environment in which a shell finds the command and the API."""

    folder: Path
    environment: dict[str, str]

    def run(self, lines: str, cwd: Path | None = None, **variables: str) -> str:
        """Run lines in bash. They must succeed; returns their output."""
        done = subprocess.run(
            ["bash", "-euc", lines],
            cwd=cwd or self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout


def readme() -> tuple[Snippet, Snippet]:
    """The README's contents of `.env`, and its commands to run."""
    settings, lines = (one for one in snippets_of_heading("README.md", "Your own workspace") if one.language)
    return settings, lines


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace that the README's lines have read, and October in addition."""
    folder, home = tmp_path_factory.mktemp("costs"), tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    settings, lines = readme()
    with running_sandbox(now=NOW) as sandbox:
        environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANGSMITH_ENDPOINT": sandbox.url,
        }
        (folder / ".env").write_text(settings.text.replace("lsv2_…", sandbox.key))
        workspace = Workspace(folder, environment)
        workspace.run(script(lines))
        october = "sessions-pipeline materialize --from 2026-10-01 --to 2026-10-31"
        workspace.run(october, SESSIONS_PIPELINE_START_DATE="2026-10-01")
        yield workspace


@together
def test_a_workspace_is_read_by_the_readmes_lines(snippets: list[Snippet], workspace: Workspace) -> None:
    assert snippets == list(readme())
    days = [path.name.removeprefix("start_date=") for path in (workspace.folder / "data" / "sessions").iterdir()]
    assert {f"2026-11-{day:02}" for day in range(1, 26)} <= set(days)
    assert "<html" in (workspace.folder / "data" / "reports" / "cost.html").read_text()


@each
def test_a_command_runs_in_that_workspace(snippet: Snippet, workspace: Workspace) -> None:
    words = [FILLED_IN.get(word, word) for word in script(snippet).split()]
    if words[0].startswith("--"):
        words.insert(0, "materialize")
    if words[0] != "sessions-pipeline":
        words.insert(0, "sessions-pipeline")
    if words[-1] == "--select":
        words.append("reference_datasets")
    line = " ".join(words)
    workspace.run(f"{line} {DAYS}" if " materialize " in line and "--from" not in line else line)


@each
def test_the_cron_line_reports_a_failure_only_when_nothing_is_fresh(
    snippet: Snippet, workspace: Workspace, tmp_path: Path
) -> None:
    *schedule, command = snippet.text.strip().split(maxsplit=5)
    dg.ScheduleDefinition(name="cron", job_name="any", cron_schedule=" ".join(schedule))
    requested: list[str] = []
    # The command has the real clock: only days that are recent today count as fresh.
    today = datetime.now(UTC).date()
    workspace.run(f"sessions-pipeline materialize --from {today - timedelta(days=3)} --to {today}")

    async def probe(request: Request) -> Response:
        requested.append(request.url.path)
        return Response()

    with serving(Starlette(routes=[Route("/{path:path}", probe)])) as url:
        command = command.replace("https://probe.example", url)
        workspace.run(command.replace("/srv/costs", shlex.quote(str(workspace.folder))))
        assert requested == []
        workspace.run(command.replace("/srv/costs", shlex.quote(str(tmp_path))))
        assert requested == ["/fail"]


@each
def test_the_docs_lines_check_a_bucket(snippet: Snippet, workspace: Workspace) -> None:
    with S3Server() as server:
        address = f"http://127.0.0.1:{server.port}"
        said = workspace.run(script(snippet), AWS_ENDPOINT_URL_S3=address)
        assert any("/bucket/prefix/" in path for path in server.requests)
    assert "s3://bucket/prefix" in said
