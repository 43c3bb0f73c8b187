"""The floor: writes pages to disk from raw sockets, then runs one DuckDB query over them. Validates nothing.

    python benchmarks/peers/floor.py ENDPOINT FOLDER

Eight requests in flight; `read_json` with every column typed writes one Parquet file and the sums, in decimals.
"""

import json
import socket
import sys
import threading
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
from daily_cost import write_daily_cost

IN_FLIGHT, PAGE = 8, 100
TEXT = ("id", "tenant_id", "name", "description", "default_dataset_id", "reference_dataset_id", "trace_tier")
TIMES = ("start_time", "end_time", "last_run_start_time", "last_run_start_time_live")
COUNTS = ("run_count", "total_tokens", "prompt_tokens", "completion_tokens", "test_run_number")
RATES = ("latency_p50", "latency_p99", "first_token_p50", "first_token_p99", "error_rate", "streaming_rate")
COSTS = ("total_cost", "prompt_cost", "completion_cost")
NESTED = ("extra", "feedback_stats", "session_feedback_stats", "run_facets", "experiment_progress")
TYPES = {
    **dict.fromkeys(TEXT, "VARCHAR"),
    **dict.fromkeys(TIMES, "TIMESTAMP"),
    **dict.fromkeys(COUNTS, "BIGINT"),
    **dict.fromkeys(RATES, "DOUBLE"),
    **dict.fromkeys(COSTS, "DECIMAL(38, 18)"),
    **dict.fromkeys(NESTED, "JSON"),
}


def body(connection: socket.socket, target: str) -> bytearray:
    """Request a target and read the body by its Content-Length."""
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: floor\r\n\r\n".encode())
    received = connection.recv(1 << 16)
    head, _, start = received.partition(b"\r\n\r\n")
    length = int(head[head.index(b"Content-Length: ") + 16 :].split(b"\r\n")[0])
    page = bytearray(length)
    page[: len(start)] = start
    view, filled = memoryview(page), len(start)
    while filled < length:
        filled += connection.recv_into(view[filled:])
    return page


def download(endpoint: str, pages: Path) -> None:
    address = urlsplit(endpoint)
    numbers, finished = count(), threading.Event()

    def work() -> None:
        with socket.create_connection((address.hostname, address.port)) as connection:
            while not finished.is_set():
                number = next(numbers)
                query = f"sort_by=start_time&include_stats=true&offset={number * PAGE}&limit={PAGE}"
                page = body(connection, f"/api/v1/sessions?{query}")
                if len(page) == len(b"[]"):
                    finished.set()
                else:
                    (pages / f"{number}.json").write_bytes(page)

    workers = [threading.Thread(target=work) for _ in range(IN_FLIGHT)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def main() -> None:
    endpoint, folder = sys.argv[1], Path(sys.argv[2])
    pages, table = folder / "pages", folder / "sessions"
    pages.mkdir()
    table.mkdir()
    download(endpoint, pages)
    read = f"read_json('{pages}/*.json', format = 'array', columns = {TYPES})"
    duckdb.execute(f"COPY (FROM {read}) TO '{table / 'sessions.parquet'}' (COMPRESSION zstd)")
    print(json.dumps({"rows": write_daily_cost(table, folder)}))


if __name__ == "__main__":
    main()
