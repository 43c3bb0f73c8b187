"""Runs a scenario: for each trial a server, an empty folder and a whole process; then checks the output."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
from bench import HERE, PRODUCT, RESULTS
from generate import Manifest, digest, ensure
from scenarios import IN_THE_UI, OURS, Point, Scenario, command

Result = dict[str, Any]


def run(scenario: Scenario, rounds: int, without: list[str]) -> tuple[Result, int]:
    """Run all rounds, contenders in turn, after an untimed warm-up; returns the result and how many trials failed."""
    result: Result = {
        "name": scenario.name,
        "title": scenario.title,
        "rounds": rounds,
        "machine": describe(),
        "points": [{"label": point.label, "in": point_facts(point), "trials": []} for point in scenario.points],
    }
    if not scenario.points:
        shares = (("stock", "1", "30"), ("ours", "1", "90", "365"))  # with stock storage, more days would take minutes
        result["dagster"] = [json.loads(_share(*words)) for _ in range(rounds) for words in shares]
        return result, 0
    names = dict.fromkeys(who for point in scenario.points for who in point.who if who not in without)
    for who in names:
        _trial(Point(500, 5), who)
    failed = 0
    for number in range(rounds):
        for place, point in enumerate(scenario.points):
            for who in point.who:
                if who in without:
                    continue
                trial = _trial(point, who)
                failed += trial["failed"] is not None
                print(f"  {number + 1} {who:20} {point.label}: {_line(trial)}", file=sys.stderr)
                result["points"][place]["trials"].append(trial)
    return result, failed


def point_facts(point: Point) -> Result:
    return {"sessions": point.sessions, "days": point.days, "latency": point.latency, "read_days": point.read_days}


def describe() -> dict[str, str]:
    """Describes the machine for comparison, without host name or paths."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "processor": f"{len(os.sched_getaffinity(0))} cores of {(names or [platform.machine()])[0]}",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("dlt", "langsmith", "pandas", "pyarrow", "duckdb")},
    }


def _line(trial: Result) -> str:
    if trial["failed"]:
        return f"FAILED: {trial['failed']}"
    return f"{trial['wall']:.2f} s, {trial['cpu']:.2f} s CPU, {trial['megabytes']:.0f} MB, {trial['requests']} requests"


def _trial(point: Point, who: str) -> Result:
    """Run a contender once; `failed` says what was wrong with the run or its output, None if nothing."""
    records, manifest = ensure(RESULTS / "data", point.sessions, point.days)
    with _serving(records, point.latency) as endpoint, _folder() as folder:
        try:
            if point.before:
                _measured(who, endpoint, folder, point.before)
            _counters(endpoint)
            measured, output = _measured(who, endpoint, folder, point.read_days or point.days)
        except RuntimeError as error:
            return {"who": who, "failed": str(error)}
        served = _counters(endpoint)
        walls = json.loads(output) if who == IN_THE_UI else [measured["wall_seconds"]]  # in the UI, from each click
        found = _lake(folder / "lake") if who in (OURS, IN_THE_UI) else _peers(folder, output)
    return {
        "who": who,
        "failed": _wrong(found, manifest),
        "wall": statistics.median(walls),
        "walls": walls,
        "cpu": measured["cpu_seconds"],
        "megabytes": measured["peak_megabytes"],
        "first_request": served["first_request_at"] - measured["started_at"],
        "requests": served["requests"],
        "server_busy": served["cpu_seconds"] / measured["wall_seconds"],
        "tables": found["tables"],
    }


@contextmanager
def _serving(records: Path, latency: float) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, HERE / "server.py", records, "--latency", str(latency)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary home for one contender, with the `dagster.yaml` that we ship."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=RESULTS))
    (folder / "dagster").mkdir()
    shutil.copy(HERE.parent / "sessions_pipeline" / "orchestration" / "dagster.yaml", folder / "dagster")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _counters(endpoint: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{endpoint}/counters") as answer:
        return dict(json.load(answer))


def _measured(who: str, endpoint: str, folder: Path, days: int) -> tuple[dict[str, float], str]:
    """Run a contender without this machine's settings; returns the figures of `measure.py` and standard output.

    Raises:
        RuntimeError: it failed.
    """
    words, variables = command(who, endpoint, folder, days)
    everyone = {"LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder), "DO_NOT_TRACK": "1"}
    result, errors = folder / "measured.json", folder / "errors"
    with errors.open("w") as stderr:
        output = subprocess.run(
            [sys.executable, "-S", HERE / "measure.py", result, *words],
            cwd=folder,
            env={"PATH": os.environ["PATH"], **everyone, **variables},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=True,
        ).stdout
    measured = json.loads(result.read_text())
    if measured["status"] != 0:
        raise RuntimeError(f"status {measured['status']}: {errors.read_text()[-600:]}")
    return measured, output


def _share(*arguments: str) -> str:
    with _folder() as folder:
        words = [PRODUCT / "bin" / "python", HERE / "dagster_share.py", *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "DAGSTER_HOME": str(folder / "dagster")}
        return subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _lake(lake: Path) -> Result:
    """Our output: number of sessions, sums of `daily_cost_by_reference_dataset`, and names of the tables."""
    [(rows,)] = duckdb.sql(f"SELECT count(*) FROM read_parquet('{lake}/sessions/*/*.parquet')").fetchall()
    daily = f"read_parquet('{lake}/daily_cost_by_reference_dataset/*/*.parquet', hive_partitioning = true)"
    sums = duckdb.sql(f"SELECT start_date, reference_dataset_id, total_cost FROM {daily}").fetchall()
    return {"rows": rows, "sums": sums, "tables": sorted(path.name for path in lake.glob("[a-z]*"))}


def _peers(folder: Path, output: str) -> Result:
    """A peer's output: the number of rows in its last line, and the sums in `daily_cost.parquet`."""
    sums = duckdb.sql(f"SELECT day, reference_dataset_id, total_cost FROM '{folder / 'daily_cost.parquet'}'").fetchall()
    return {"rows": json.loads(output.strip().splitlines()[-1])["rows"], "sums": sums, "tables": []}


def _wrong(found: Result, manifest: Manifest) -> str | None:
    costs = {(str(day), dataset): Decimal(str(cost)) for day, dataset, cost in found["sums"] if cost}
    if found["rows"] != manifest.sessions:
        return f"{found['rows']} rows instead of {manifest.sessions}"
    if digest({group: format(cost.normalize(), "f") for group, cost in costs.items()}) != manifest.daily_digest:
        return "its sums differ from those of the records"
    return None
