"""The README's command for a container runs, with a substitute for Docker that executes the Dockerfile."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessions_pipeline_tests.end_to_end import docker_stand_in, postgres_server
from sessions_pipeline_tests.end_to_end.docker_stand_in import instructions
from sessions_pipeline_tests.end_to_end.postgres_server import PostgresServer
from sessions_pipeline_tests.snippets import ROOT, Snippet, each, snippets_of_heading

IMAGE = "sessions-pipeline"
NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc")

pytestmark = [
    pytest.mark.xdist_group("container"),
    pytest.mark.skipif(
        subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode != 0,
        reason="needs root, and permission to create namespaces",
    ),
]


class Docker:
    """A shell in the checkout whose `docker` is `docker_stand_in.py`."""

    def __init__(self, folder: Path) -> None:
        program = folder / "docker"
        command = shlex.join([sys.executable, docker_stand_in.__file__])
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "IMAGES": str(folder)}

    def run(self, line: str, *within: str) -> str:
        """Run a line in bash, started by the command `within`. It must succeed; returns its output."""
        done = subprocess.run(
            [*within, "bash", "-euc", line],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    folder = tmp_path_factory.mktemp("docker")
    # The image's own account must be able to enter the folder.
    for path in (folder, *list(folder.parents)[:-2]):
        path.chmod(path.stat().st_mode | 0o011)
    yield Docker(folder)
    # All mounts must have ended with their processes, or `rmtree` would delete this machine's own files.
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def demo(docker: Docker) -> str:
    """The output of the README's line."""
    (line,) = [one.text for one in snippets_of_heading("README.md", "Install") if one.text.startswith("docker")]
    return docker.run(line)


@each
def test_the_image_is_built_and_shows_the_demo(snippet: Snippet, demo: str) -> None:
    assert snippet.text.endswith(" demo")
    assert "US dollars" in demo
    assert "Parquet  /opt/dagster/dagster_home/data/demo" in demo


def test_the_images_own_command_starts_a_code_server_that_passes_its_health_check(docker: Docker, demo: str) -> None:
    assert demo
    (check,) = [rest for word, rest in instructions(ROOT / "deploy" / "Dockerfile") if word == "HEALTHCHECK"]
    health = shlex.join(json.loads(check.partition("CMD ")[2]))
    # A separate network namespace, so that the port is free. All processes end with the shell.
    server = f"""
        ip link set lo up
        docker run --rm {IMAGE} >&2 &
        until docker run --rm {IMAGE} {health}; do kill -0 $!; sleep 1; done
    """
    assert "successful" in docker.run(server, *NAMESPACES)


@pytest.mark.skipif(
    postgres_server.binaries() is None and not os.environ.get("CI"),
    reason="PostgreSQL is not installed: apt-get install postgresql",
)
@each
def test_a_command_for_an_upgrade_runs_in_the_image(snippet: Snippet, docker: Docker, demo: str) -> None:
    assert demo
    with PostgresServer() as database:
        variables = {
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(database.port),
            "DAGSTER_POSTGRES_DB": postgres_server.DATABASE,
            "DAGSTER_POSTGRES_USER": postgres_server.USER,
            "DAGSTER_POSTGRES_PASSWORD": postgres_server.PASSWORD,
            "DAGSTER_LOGS_BUCKET": "logs",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        given = shlex.join(word for item in variables.items() for word in ("--env", "=".join(item)))
        docker.run(f"docker run --rm {given} {IMAGE} {snippet.text}")
