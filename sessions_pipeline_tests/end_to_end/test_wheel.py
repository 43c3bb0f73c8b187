"""The package as people install it: a wheel with only `requirements.lock`, outside the checkout."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
NAMED_BY_US = ("LANGSMITH_", "LANGCHAIN_", "SESSIONS_PIPELINE_", "DAGSTER_", "PYTHON")

pytestmark = pytest.mark.xdist_group("wheel")


def _run(*command: str | Path, cwd: Path, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NAMED_BY_US)}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs in an environment with the locked packages and the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=REPOSITORY)
    uv = Path(sys.executable).with_name("uv")
    environment = folder / "environment"
    _run(uv, "venv", "--quiet", "--python", sys.executable, environment, cwd=folder)
    install = (uv, "pip", "install", "--quiet", "--python", environment / "bin" / "python")
    _run(*install, "--require-hashes", "-r", REPOSITORY / "requirements.lock", cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    _run(*install, "--no-deps", wheel, cwd=folder)
    return environment / "bin"


@pytest.fixture(scope="module")
def sandbox(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings for the sandbox that the installed command serves."""
    with subprocess.Popen(
        [str(installed / "sessions-pipeline"), "sandbox", "--port", "0"],
        cwd=tmp_path_factory.mktemp("sandbox"),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "LANGSMITH_ENDPOINT=" in line:
                words = line.split()[1:]
                break
        yield dict(word.split("=", 1) for word in words)
        process.terminate()


def test_the_wheel_reads_a_workspace_and_reports_on_it(
    installed: Path, sandbox: dict[str, str], tmp_path: Path
) -> None:
    command = installed / "sessions-pipeline"
    today = datetime.now(UTC).date()
    first = today - timedelta(days=2)
    summary = json.loads(
        _run(command, "materialize", "--from", str(first), "--to", str(today), "--json", cwd=tmp_path, **sandbox)
    )
    assert summary["days"] == 3
    assert float(summary["total_cost"]) > 0
    report = Path(_run(command, "report", cwd=tmp_path, **sandbox).strip().splitlines()[-1].split()[-1])
    assert "<html" in report.read_text()
    script = "import sessions_pipeline as s; print(s.read('daily_cost_by_reference_dataset').num_rows)"
    assert int(_run(installed / "python", "-c", script, cwd=tmp_path)) > 0
    assert report.is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("command", "status"), [(("doctor",), 1), (("report",), 1), (("demo", "--days", "2"), 0), (("--help",), 0)]
)
def test_no_advice_of_an_installed_command_needs_a_checkout(
    installed: Path, tmp_path: Path, command: tuple[str, ...], status: int
) -> None:
    done = subprocess.run(
        [str(installed / "sessions-pipeline"), *command],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert ("\nDagster  sessions-pipeline ui --demo  " in done.stdout) == (command[0] == "demo")
    assert re.search(r"\bmake (check|demo|dev|report|setup|test)", done.stdout + done.stderr) is None
