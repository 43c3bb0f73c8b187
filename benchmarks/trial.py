"""One measured run: a fresh server, a clean folder, one whole process, and what it left."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from contenders import OURS, Contender, Task
from environment import HERE, PYTHON, RESULTS
from generate import Manifest
from verify import Outcome, read_lake, read_peer


@dataclass(frozen=True, slots=True)
class Trial:
    """What one run took and gave. `server_cpu_seconds` is the server's share of the same two cores."""

    contender: str
    round: int
    wall_seconds: float
    cpu_seconds: float
    peak_megabytes: float
    requests: int
    megabytes_received: float
    most_in_flight: int
    server_cpu_seconds: float
    rows: int | None
    total_cost: str | None
    exact: bool | None


class RunFailedError(RuntimeError):
    """A contender ended with another status than 0; the text is the end of what it said."""


@contextmanager
def serving(folder: Path, latency: float) -> Iterator[str]:
    """A server process for these records; its address."""
    command = [PYTHON, HERE / "server.py", folder, "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def counters(endpoint: str) -> dict[str, float]:
    """What the server counted since it was last asked."""
    with urllib.request.urlopen(f"{endpoint}/counters") as answer:
        return dict(json.load(answer))


@contextmanager
def clean_folder() -> Iterator[Path]:
    """A folder that nothing has seen before and that is gone afterwards."""
    RESULTS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=RESULTS))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(contender: Contender, task: Task, manifest: Manifest, number: int) -> Trial:
    """Run once and judge.

    Raises:
        RunFailedError: the process failed.
    """
    counters(task.endpoint)
    measured, output = _measured(contender, task)
    served = counters(task.endpoint)
    outcome = read_lake(task.folder / "lake") if contender.name == OURS else read_peer(task.folder, output)
    return Trial(
        contender=contender.name,
        round=number,
        wall_seconds=measured["wall_seconds"],
        cpu_seconds=measured["cpu_seconds"],
        peak_megabytes=measured["peak_megabytes"],
        requests=int(served["requests"]),
        megabytes_received=served["bytes_sent"] / 1e6,
        most_in_flight=int(served["most_in_flight"]),
        server_cpu_seconds=served["cpu_seconds"],
        rows=outcome.rows,
        total_cost=outcome.total_cost,
        exact=_is_exact(outcome, manifest, task),
    )


def _is_exact(outcome: Outcome, manifest: Manifest, task: Task) -> bool | None:
    whole = (task.first_day, task.last_day) == (manifest.first_day, manifest.last_day)
    return outcome.daily_digest == manifest.daily_digest if outcome.daily_digest and whole else None


def _measured(contender: Contender, task: Task) -> tuple[dict[str, float], str]:
    """The figures of `measure.py` and the standard output, with nothing of this machine's settings let in."""
    home = task.folder / "home"
    home.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "DO_NOT_TRACK": "1",
        **contender.environment(task),
    }
    result, output, errors = (home / name for name in ("measured.json", "output", "errors"))
    with output.open("w") as out, errors.open("w") as err:
        subprocess.run(
            [sys.executable, "-S", HERE / "measure.py", result, *contender.command(task)],
            cwd=home,
            env=environment,
            stdout=out,
            stderr=err,
            check=True,
        )
    measured = json.loads(result.read_text())
    if measured["status"] != 0:
        raise RunFailedError(f"{contender.label} ended with {measured['status']}: {errors.read_text()[-800:]}")
    return measured, output.read_text()


def as_json(trials: list[Trial]) -> list[dict[str, object]]:
    return [asdict(trial) for trial in trials]
