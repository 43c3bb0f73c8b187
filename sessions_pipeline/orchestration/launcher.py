"""Runs in the code server, and whether they still live there.

Dagster's own `DefaultRunLauncher` starts a run as a process of the code server and never asks for it again: when the
container of the code server dies, its runs stay "started" for ever and hold the lake's pool. The code server can be
asked which runs it has, so run monitoring fails the ones it does not know, and run retries take them up again.
"""

from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.dagster_run import DagsterRun
from dagster._grpc.types import GetCurrentRunsResult
from dagster._serdes import deserialize_value


class WatchedRunLauncher(DefaultRunLauncher):
    """`DefaultRunLauncher` with a health check, for one code server at a fixed address."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Asks run monitoring to watch started runs."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the code server that took the run still has it.

        A server that does not answer proves nothing: the run counts as running until the server is back, or until
        `max_runtime_seconds` have passed.
        """
        server = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if server is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "the run has ended, or names no code server")
        try:
            answer = deserialize_value(server.get_current_runs(), GetCurrentRunsResult)
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "the code server does not answer")
        if run.run_id in answer.current_runs:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, "the code server does not have this run: it has been restarted since"
        )
