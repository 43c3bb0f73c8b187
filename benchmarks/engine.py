"""A wide backfill on Celery's workers: how long it takes with one, two and four, and how often the API was asked.

    .venv/bin/python benchmarks/engine.py [--rows 1:1000 2:1000 4:1000 4:32] [--write]

A row is so many workers and so large a budget, in requests a minute and workspace.

Real processes: Redis, Celery's workers (each with place for one run), Dagster's code server, webserver and daemon, with
the keys of `deploy/celery.yaml`. The API is the sandbox's server in this process, slow on purpose: each page takes
`--latency` seconds, so that waiting, not this machine's cores, is what more workers can share. A row's time runs from
the first run's start to the last one's end. `requests a minute` is the most in any 60 seconds, at the server, for one
workspace. The lake of every row is compared with that of one run in one process. Needs `redis-server`.
"""

import argparse
import hashlib
import json
import tempfile
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from generate import LAST_DAY, records

from sessions_pipeline.cli.run import run_days
from sessions_pipeline.sandbox.app import KEY
from sessions_pipeline.sandbox.parameters import DatasetsQuery, SessionsQuery
from sessions_pipeline_tests.end_to_end.engine import Engine
from sessions_pipeline_tests.faulty_server import Fault, FaultyApi, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import contents, settings_for

RESULT = Path(__file__).parent / "results" / "engine.json"
MONTH_STARTS = [LAST_DAY.replace(month=month, day=1) for month in range(12, 0, -1)]


class Company:
    """Each workspace's sessions, newest first."""

    def __init__(self, workspaces: int, days: int, per_day: int) -> None:
        self.texts: dict[str, list[str]] = {}
        for seed in range(workspaces):
            texts = [full for full, *_ in records(days * per_day, days, seed)]
            self.texts[json.loads(texts[0])["tenant_id"]] = texts[::-1]

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        texts = self.texts[workspace]
        return texts[asked.offset : asked.offset + asked.limit], len(texts)

    def datasets_page(self, asked: DatasetsQuery, workspace: str) -> tuple[list[str], int]:  # noqa: ARG002
        return [], 0


@dataclass(frozen=True, slots=True)
class Row:
    """One backfill."""

    workers: int
    budget: int
    seconds: float
    runs: int
    requests: int
    most_a_minute: int
    mean_a_minute: float
    lake: str
    same_lake: bool


def most_in_a_minute(times: Sequence[float]) -> int:
    """The most in any 60 seconds; `times` are sorted."""
    return max(bisect_left(times, time + 60) - number for number, time in enumerate(times))


def checksum(root: Path) -> str:
    """Of every row of every table, whatever their order, without the times of reading."""
    rows = sorted(f"{table} {day} {sorted(row.items())}" for (table, day), of in contents(root).items() for row in of)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


class Bench:
    """One company, the lake that one process makes of it, and the backfills that are compared with it."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.first = MONTH_STARTS[given.months - 1]
        self.company = Company(given.workspaces, (LAST_DAY - self.first).days + 1, given.sessions_a_day)
        self.variables = {
            "LANGSMITH_WORKSPACE_ID": ",".join(self.company.texts),
            "SESSIONS_PIPELINE_PAGE_SIZE": str(given.page_size),
            "SESSIONS_PIPELINE_CONCURRENCY": str(given.in_flight),
        }
        with self._sandbox() as sandbox:
            lake = folder / "one"
            started = time.perf_counter()
            run_days(settings_for(sandbox.url, lake, **self.variables), self.first, LAST_DAY)
            print(f"one process without latency: {time.perf_counter() - started:.1f} s", flush=True)
            self.lake = checksum(lake)

    def _sandbox(self) -> "Sandbox":
        api = FaultyApi(self.company, datetime.combine(LAST_DAY, datetime.max.time(), UTC) + timedelta(days=1))
        api.workspaces = tuple(self.company.texts)
        return running_sandbox(api)

    def row(self, workers: int, budget: int) -> Row:
        folder = self.folder / f"{workers}-{budget}"
        folder.mkdir()
        times: list[float] = []
        with self._sandbox() as sandbox:
            sandbox.api.before_answer = lambda _number: times.append(time.monotonic())
            sandbox.faults.add(Fault("latency", self.given.latency, times=None))
            settings = self.variables | {
                "LANGSMITH_API_KEY": KEY,
                "LANGSMITH_ENDPOINT": sandbox.url,
                "SESSIONS_PIPELINE_DATA_ROOT": str(folder / "lake"),
                "SESSIONS_PIPELINE_REQUESTS_PER_MINUTE": str(budget),
            }
            with Engine(folder, settings, workers=workers, per_workspace=workers) as engine:
                backfill = engine.backfill("--from", str(self.first), "--to", str(LAST_DAY))
                runs = engine.finish(backfill, patience_seconds=1800)
            asked: dict[str, list[float]] = {}
            for at, request in zip(times, sandbox.requests, strict=True):
                asked.setdefault(request["workspace"], []).append(at)
        seconds = max(run["endTime"] for run in runs) - min(run["startTime"] for run in runs)
        lake = checksum(folder / "lake")
        return Row(
            workers=workers,
            budget=budget,
            seconds=round(seconds, 1),
            runs=len(runs),
            requests=len(times),
            most_a_minute=max(map(most_in_a_minute, asked.values())),
            mean_a_minute=round(len(times) / len(asked) / seconds * 60, 1),
            lake=lake,
            same_lake=lake == self.lake,
        )


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown; speed-up is against the first row."""
    lines = [
        "| workers | budget | seconds | speed-up | requests | requests a minute, most | mean | same lake |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {row.workers} | {row.budget} | {row.seconds} | {rows[0].seconds / row.seconds:.2f} | {row.requests} "
        f"| {row.most_a_minute} | {row.mean_a_minute} | {'yes' if row.same_lake else 'NO'} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["1:1000", "2:1000", "4:1000", "4:32"], help="workers:budget")
    parser.add_argument("--workspaces", type=int, default=2)
    parser.add_argument("--months", type=int, default=4)
    parser.add_argument("--sessions-a-day", type=int, default=10)
    parser.add_argument("--page-size", type=int, default=20)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--latency", type=float, default=2.0, help="seconds")
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/engine.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        bench = Bench(given, Path(folder))
        rows = []
        for workers, budget in (map(int, row.split(":")) for row in given.rows):
            rows.append(bench.row(workers, budget))
            print(json.dumps(asdict(rows[-1])), flush=True)
        print(table(rows))
        if given.write:
            asked = {name: value for name, value in vars(given).items() if name != "write"}
            rows_and_how = {**asked, "lake_of_one_process": bench.lake, "rows": [asdict(row) for row in rows]}
            RESULT.write_text(json.dumps(rows_and_how, indent=2) + "\n")
        if not all(row.same_lake and row.most_a_minute <= row.budget for row in rows):
            raise SystemExit("a lake differs, or a budget was exceeded")


if __name__ == "__main__":
    main()
