"""The reading side: what DuckDB does to answer from the lake, by its own EXPLAIN ANALYZE.

    python benchmarks/run.py --only reading

Fills a lake with three years by our command line, then asks each question on a new connection each time.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import duckdb
from contenders import OURS, Task, available
from environment import RESULTS
from generate import ensure
from trial import clean_folder, run, serving

ASKED = 5
DAILY = "read_parquet('{lake}/daily_cost_by_reference_dataset/*/*.parquet', hive_partitioning = true)"
MONTHLY = "read_parquet('{lake}/monthly_cost_by_reference_dataset/*.parquet')"
SESSIONS = "read_parquet('{lake}/sessions/*/*.parquet', hive_partitioning = true)"
QUESTIONS = {
    "cost by dataset over three years, from the daily aggregate": (
        f"SELECT reference_dataset_id, sum(total_cost) FROM {DAILY} GROUP BY ALL"
    ),
    "the same, from the monthly aggregate": (
        f"SELECT reference_dataset_id, sum(total_cost) FROM {MONTHLY} GROUP BY ALL"
    ),
    "the same, from every session": f"SELECT reference_dataset_id, sum(total_cost) FROM {SESSIONS} GROUP BY ALL",
    "the dearest sessions of one day": (
        f"SELECT id, name, total_cost FROM {SESSIONS} WHERE start_date = DATE '{{day}}' "
        "ORDER BY total_cost DESC LIMIT 10"
    ),
    "one session of a known day": (
        f"SELECT * FROM {SESSIONS} WHERE start_date = DATE '{{day}}' AND start_time < TIMESTAMPTZ '{{day}} 00:05:00Z'"
    ),
}


def measure(*, full: bool) -> dict[str, object]:
    """The answers' times and what was read for them, as what goes into the JSON of `reading`."""
    sessions, days = (100_000, 1_095) if full else (3_000, 30)
    folder, manifest = ensure(RESULTS / "data", sessions, days)
    result: dict[str, object] = {"name": "reading", "title": "Reading", "sessions": sessions, "days": days}
    found: list[dict[str, object]] = []
    for ours in available((OURS,)):
        with clean_folder() as place:
            with serving(folder, latency=0) as endpoint:
                run(ours, Task(endpoint, place, manifest.first_day, manifest.last_day), manifest, 1)
            lake = place / "lake"
            for question, query in QUESTIONS.items():
                if "monthly" not in query or (lake / "monthly_cost_by_reference_dataset").exists():
                    found.append({"question": question, **ask(query.format(lake=lake, day=manifest.last_day), lake)})
    return result | {"questions": found}


def ask(query: str, lake: Path) -> dict[str, object]:
    """The median milliseconds of a query and, by its profile, the files and rows that were read for it."""
    taken = []
    for _ in range(ASKED):
        with duckdb.connect() as connection:
            start = time.perf_counter()
            connection.execute(query).fetchall()
            taken.append(time.perf_counter() - start)
    scan = _scan(profile(query, lake))
    of_files = scan["extra_info"].get("Scanning Files", "").split("/")[-1]
    read = int(scan["extra_info"]["Total Files Read"])
    return {
        "milliseconds": statistics.median(taken) * 1000,
        "files": read,
        "files_there": int(of_files) if of_files else read,
        "rows": scan["rows_scanned"],
    }


def profile(query: str, lake: Path) -> dict[str, Any]:
    """What EXPLAIN ANALYZE knows, as JSON."""
    file = lake.parent / "profile.json"
    with duckdb.connect() as connection:
        connection.execute("PRAGMA enable_profiling = 'json'")
        connection.execute(f"PRAGMA profiling_output = '{file}'")
        connection.execute(query).fetchall()
    return dict(json.loads(file.read_text()))


def _scan(plan: dict[str, Any]) -> dict[str, Any]:
    todo = list(plan["operator"])
    while todo:
        node = todo.pop()
        if node["type"] == "TABLE_SCAN":
            return dict(node)
        todo += node["children"]
    raise LookupError("the plan scans nothing")
