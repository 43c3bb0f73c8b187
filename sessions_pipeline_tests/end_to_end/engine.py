"""The processes of a deployment for wide backfills: Redis, Celery workers, and Dagster's servers and daemon."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from sessions_pipeline.orchestration import SHIPPED
from sessions_pipeline_tests.end_to_end.dagster_processes import end, launch_backfill
from sessions_pipeline_tests.end_to_end.deployment import OURS, REPOSITORY, free_port, wait_until

ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
RUNS = """
query Runs($tag: ExecutionTag!) {
  runsOrError(filter: {tags: [$tag]}) {
    ... on Runs { results { runId status startTime endTime tags { key value } } }
  }
}
"""


class CeleryDeployment:
    """A context manager that runs all processes, each in its own group. They share a `DAGSTER_HOME` with SQLite.

    `workers` is the number of Celery workers, each of which executes one run at a time.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *, workers: int) -> None:
        self.home = folder / "dagster"
        self.folder = folder
        self.workers = workers
        self._settings = settings
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True)
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(self._instance()))
        redis, code, web = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{web}"
        self.broker = f"redis://127.0.0.1:{redis}/0"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | {
            "SESSIONS_PIPELINE_RATE_STORE": f"redis://127.0.0.1:{redis}/1",
            **self._settings,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_CELERY_BROKER": self.broker,
            "DAGSTER_CODE_SERVER_HOST": "127.0.0.1",
            "DAGSTER_CODE_SERVER_PORT": str(code),
        }
        workspace = str(REPOSITORY / "deploy" / "workspace.yaml")
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            quiet = ("--save", "", "--appendonly", "no", "--dir", str(self.home))
            self._start("redis-server", "--bind", "127.0.0.1", "--port", str(redis), *quiet)
            module = ("-m", "sessions_pipeline.definitions")
            self._start("dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(code), *module)
            wait_until(lambda: _listens(code), "the code server listens", self.output)
            self._start("dagster-webserver", "-h", "127.0.0.1", "-p", str(web), "-w", workspace)
            self._client = stack.enter_context(httpx.Client(base_url=self.url, timeout=60))
            # Started at the same time, webserver and daemon would race to create the tables of SQLite.
            wait_until(self._is_up, "the webserver is up", self.output)
            self._start("dagster-daemon", "run", "-w", workspace)
            for number in range(self.workers):
                self._start_worker(number)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _instance(self) -> dict[str, Any]:
        """The package's `dagster.yaml` with the keys of `deploy/celery.yaml`, and as many runs as there are workers."""
        celery = yaml.safe_load((REPOSITORY / "deploy" / "celery.yaml").read_text())
        celery["concurrency"]["runs"]["max_concurrent_runs"] = self.workers
        return {**yaml.safe_load(SHIPPED.read_text()), **celery}

    def _start_worker(self, number: int) -> None:
        broker = ("-b", self.broker, "--result-backend", self.broker)
        worker = ("worker", "-Q", "dagster", "--disable-prefetch", "--concurrency", "1", "-n", f"worker{number}@%h")
        self._start("celery", "-A", "dagster_celery.app", *broker, *worker)

    def backfill(self, tables: Sequence[str], days: Sequence[str]) -> str:
        """Launch a backfill of these tables and days as the UI does, and return its id."""
        return launch_backfill(self._ask, tables, days)

    def runs(self, backfill: str) -> list[dict[str, Any]]:
        """All runs of a backfill, oldest first."""
        tag = {"key": "dagster/backfill", "value": backfill}
        found: list[dict[str, Any]] = self._ask(RUNS, tag=tag)["runsOrError"]["results"]
        return found[::-1]

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = self._client.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def finish(self, backfill: str) -> list[dict[str, Any]]:
        """Wait until all runs of a backfill have succeeded, and return them."""
        wait_until(lambda: self._has_ended(backfill), "the backfill has ended", self.output)
        return self.runs(backfill)

    def _has_ended(self, backfill: str) -> bool:
        """Whether the backfill has runs and all have ended. Fails the test if one of them failed."""
        runs = self.runs(backfill)
        failed = [run for run in runs if run["status"] in ENDED - {"SUCCESS"}]
        assert not failed, (failed, self.output())
        return bool(runs) and all(run["status"] in ENDED for run in runs)

    def output(self) -> str:
        """The last 3,000 characters of each process's output."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))

    def _start(self, program: str, *arguments: str) -> None:
        beside_python = Path(sys.executable).with_name(program)
        found = str(beside_python) if beside_python.exists() else shutil.which(program)
        assert found is not None, f"{program} is not installed"
        with (self.folder / f"{program}-{len(self._running)}.log").open("w") as log:
            self._running.append(
                subprocess.Popen(
                    [found, *arguments],
                    cwd=self.home,
                    env=self.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _is_up(self) -> bool:
        assert all(process.poll() is None for process in self._running), self.output()
        try:
            return self._client.get("/server_info").status_code == 200
        except httpx.TransportError:
            return False

    def _stop(self) -> None:
        """Stop the processes in reverse order, so that Redis and the code server outlast those that need them."""
        for process in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            end(process, patience_seconds=10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
