"""What a run costs before its first session and per day: Python, Dagster, and our command line."""

import json
import os
import statistics
import subprocess
import time

from contenders import OURS, Task, available
from environment import HERE, PRODUCT, RESULTS
from generate import ensure
from trial import clean_folder, run, serving

SESSIONS = 1_000


def measure(*, full: bool) -> dict[str, object]:
    """Medians in seconds, as what goes into the JSON of `overhead`."""
    rounds, spans = (5, (1, 90, 365)) if full else (3, (1, 30, 90))
    python = str(PRODUCT / "python")
    starts = {
        "python alone": [python, "-c", "pass"],
        "import dagster": [python, "-c", "import dagster"],
    }
    if available((OURS,)):
        starts["import sessions_pipeline.definitions"] = [python, "-c", "import sessions_pipeline.definitions"]
        starts["sessions-pipeline --help"] = [str(PRODUCT / "sessions-pipeline"), "--help"]
    return {
        "name": "overhead",
        "title": "Dagster's own share",
        "rounds": rounds,
        "starts": {name: _median(command, rounds) for name, command in starts.items()},
        "empty_run": {days: _empty_run(python, days, rounds) for days in spans},
        "whole_run": {days: _whole_run(days, rounds) for days in spans} if available((OURS,)) else {},
    }


def _output(command: list[str]) -> str:
    with clean_folder() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "DO_NOT_TRACK": "1"}
        return subprocess.run(command, check=True, cwd=home, env=environment, capture_output=True, text=True).stdout


def _median(command: list[str], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        _output(command)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _empty_run(python: str, days: int, rounds: int) -> dict[str, float]:
    command = [python, str(HERE / "noop_run.py"), str(days)]
    runs = [json.loads(_output(command).splitlines()[-1]) for _ in range(rounds)]
    return {phase: statistics.median(run[phase] for run in runs) for phase in runs[0]}


def _whole_run(days: int, rounds: int) -> float:
    """Our command line over so few sessions that what is left is start and days."""
    folder, manifest = ensure(RESULTS / "data", SESSIONS, days)
    [ours] = available((OURS,))
    taken = []
    with serving(folder, latency=0) as endpoint:
        for number in range(rounds):
            with clean_folder() as place:
                task = Task(endpoint, place, manifest.first_day, manifest.last_day)
                taken.append(run(ours, task, manifest, number).wall_seconds)
    return statistics.median(taken)
