"""Who runs: our command line, the peers and the floor, each as one whole process with a folder of its own."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from environment import HERE, PRODUCT, PYTHON

PEERS = HERE / "peers"
OURS = "ours"
FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Task:
    """What one run is asked for. Days are UTC, both included; `in_flight` is the most page requests at a time."""

    endpoint: str
    folder: Path
    first_day: str
    last_day: str
    in_flight: int = 8


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    label: str
    command: Callable[[Task], list[str]]
    environment: Callable[[Task], dict[str, str]] = lambda _: {}


def _ours(task: Task) -> list[str]:
    return [str(PRODUCT / "sessions-pipeline"), "materialize", "--from", task.first_day, "--to", task.last_day]


def _our_environment(task: Task) -> dict[str, str]:
    return {
        "LANGSMITH_ENDPOINT": task.endpoint,
        "LANGSMITH_API_KEY": "benchmark",
        "SESSIONS_PIPELINE_DATA_ROOT": str(task.folder / "lake"),
        "SESSIONS_PIPELINE_START_DATE": "2020-01-01",
        "SESSIONS_PIPELINE_CONCURRENCY": str(task.in_flight),
    }


def _peer(name: str, label: str, *arguments: str) -> Contender:
    def command(task: Task) -> list[str]:
        return [str(PYTHON), str(PEERS / f"{name}.py"), task.endpoint, str(task.folder), *arguments]

    return Contender(name, label, command)


def _floor(*arguments: str) -> Callable[[Task], list[str]]:
    script = str(PEERS / "floor.py")
    return lambda task: [str(PYTHON), script, task.endpoint, str(task.folder), str(task.in_flight), *arguments]


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(OURS, "sessions-pipeline", _ours, _our_environment),
        _peer("dlt_default", "dlt, default"),
        _peer("dlt_tuned", "dlt, tuned"),
        _peer("dlt_arrow", "dlt, own Arrow conversion"),
        _peer("sdk_pandas", "langsmith SDK + pandas"),
        _peer("naive", "httpx + pydantic + pandas"),
        Contender(FLOOR, "floor: download and decode", _floor()),
        Contender("drain", "download alone", _floor("--no-decode")),
    )
}


def available(names: tuple[str, ...]) -> list[Contender]:
    """The contenders of these names; ours is left out, with a word on standard error, where it is not installed."""
    chosen = [CONTENDERS[name] for name in names]
    if any(one.name == OURS for one in chosen) and not (PRODUCT / "sessions-pipeline").exists():
        print("benchmarks: sessions-pipeline is not installed, so it does not run", file=sys.stderr)
        chosen = [one for one in chosen if one.name != OURS]
    return chosen
