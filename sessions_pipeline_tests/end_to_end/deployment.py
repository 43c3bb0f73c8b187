"""The processes of a deployment, separated like containers: each has its own process group and DAGSTER_HOME."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from sessions_pipeline_tests.ctrl_c import accepting_ctrl_c
from sessions_pipeline_tests.end_to_end import postgres_server
from sessions_pipeline_tests.end_to_end.dagster_processes import end
from sessions_pipeline_tests.end_to_end.postgres_server import PostgresServer
from sessions_pipeline_tests.integration.s3_server import S3Server

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 300
# A run that died with its code server counts as started for this long (three hours in production). The code server
# must be back by then, because Dagster starts the retry at that moment or never; and the daemon looks at a backfill
# only twice a minute, so this can't be much shorter.
MAX_RUNTIME_SECONDS = 90
OURS = ("LANGSMITH_", "LANGCHAIN_", "SESSIONS_PIPELINE_", "DAGSTER_", "AWS_", "PG")


def wait_until(condition: Callable[[], bool], description: str, logs: Callable[[], str] = str) -> None:
    """Check the condition four times a second until it holds. Show `logs` if that takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{description}: not within {PATIENCE_SECONDS} s\n{logs()}"
        time.sleep(0.25)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Deployment:
    """A context manager that runs PostgreSQL, S3, code server and webserver with the files of `deploy/`.

    The test starts the daemon, which at once takes up what was launched before.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._settings = settings
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            database = stack.enter_context(PostgresServer())
            self.logs = stack.enter_context(S3Server())
            self._code_port, web_port = free_port(), free_port()
            self._environment = self._variables(database.port)
            stack.callback(self._stop)
            self.start_code_server()
            self._start("dagster-webserver", "-h", "127.0.0.1", "-p", str(web_port), "-w", self._workspace)
            self._client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{web_port}", timeout=60))
            wait_until(self._is_up, "the webserver is up", self.output)
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def _workspace(self) -> str:
        return str(REPOSITORY / "deploy" / "workspace.yaml")

    def _variables(self, database_port: int) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | {
            **self._settings,
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(database_port),
            "DAGSTER_POSTGRES_DB": postgres_server.DATABASE,
            "DAGSTER_POSTGRES_USER": postgres_server.USER,
            "DAGSTER_POSTGRES_PASSWORD": postgres_server.PASSWORD,
            "DAGSTER_CODE_SERVER_HOST": "127.0.0.1",
            "DAGSTER_CODE_SERVER_PORT": str(self._code_port),
            "DAGSTER_LOGS_BUCKET": "bucket",
            # The Dockerfile sets this one.
            "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.logs.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start_code_server(self) -> None:
        """Start `dagster api grpc`. Runs are its child processes."""
        self._start(
            *("dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(self._code_port)),
            *("-m", "sessions_pipeline.definitions"),
        )
        wait_until(self._listens, "the code server listens", self.output)

    def start_daemon(self) -> None:
        """Start the daemon for schedules, sensors, the queue, backfills, monitoring and retries."""
        self._start("dagster-daemon", "run", "-w", self._workspace)

    def kill_code_server(self) -> None:
        """`kill -9` the code server and its runs, as if their container were gone."""
        process = self._running.pop("dagster")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The webserver's answer to a GraphQL query."""
        answer = self._client.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def daemon_logged(self, words: str) -> bool:
        """Whether the daemon's log contains these words."""
        return words in (self._folder / "dagster-daemon.log").read_text()

    def output(self) -> str:
        """The last 3,000 characters of each process's output."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in self._folder.glob("*.log"))

    def _start(self, program: str, *arguments: str) -> None:
        home = self._folder / program
        home.mkdir(exist_ok=True)
        shipped = (REPOSITORY / "deploy" / "dagster.yaml").read_text()
        shortened = shipped.replace("max_runtime_seconds: 10800", f"max_runtime_seconds: {MAX_RUNTIME_SECONDS}")
        assert shortened != shipped
        (home / "dagster.yaml").write_text(shortened)
        with (self._folder / f"{program}.log").open("a") as log:
            self._running[program] = subprocess.Popen(
                accepting_ctrl_c(str(Path(sys.executable).with_name(program)), *arguments),
                cwd=home,
                env=self._environment | {"DAGSTER_HOME": str(home)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _listens(self) -> bool:
        assert self._running["dagster"].poll() is None, self.output()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._code_port)) == 0

    def _is_up(self) -> bool:
        assert self._running["dagster-webserver"].poll() is None, self.output()
        try:
            return self._client.get("/server_info").status_code == 200
        except httpx.TransportError:
            return False

    def _stop(self) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        for process in self._running.values():
            end(process, patience_seconds=20)
