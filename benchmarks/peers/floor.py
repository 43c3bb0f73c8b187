"""The floor: download with 8 requests in flight and decode with msgspec. Nothing is checked, nothing is written.

    python benchmarks/peers/floor.py ENDPOINT FOLDER [IN_FLIGHT] [--no-decode]

Raw sockets and one typed decoder: no Python client that reads every session can do much less. With `--no-decode` it
only downloads, which shows what the server can do at most.
"""

import json
import socket
import sys
import threading
from itertools import count
from urllib.parse import urlsplit

import msgspec

IN_FLIGHT = int(sys.argv[3]) if len(sys.argv) > 3 else 8
DECODE = "--no-decode" not in sys.argv
PAGE = 100
Nested = msgspec.Raw


class Session(msgspec.Struct, gc=False):
    id: str
    tenant_id: str
    name: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    description: str | None = None
    default_dataset_id: str | None = None
    reference_dataset_id: str | None = None
    trace_tier: str | None = None
    extra: Nested = Nested()
    run_count: int | None = None
    latency_p50: float | None = None
    latency_p99: float | None = None
    first_token_p50: float | None = None
    first_token_p99: float | None = None
    total_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_cost: str | None = None
    prompt_cost: str | None = None
    completion_cost: str | None = None
    last_run_start_time: str | None = None
    last_run_start_time_live: str | None = None
    feedback_stats: Nested = Nested()
    session_feedback_stats: Nested = Nested()
    run_facets: Nested = Nested()
    error_rate: float | None = None
    streaming_rate: float | None = None
    test_run_number: int | None = None
    experiment_progress: Nested = Nested()


def body(connection: socket.socket, target: str) -> memoryview:
    """One answer's body, by its Content-Length."""
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: floor\r\n\r\n".encode())
    received = connection.recv(1 << 16)
    head, _, start = received.partition(b"\r\n\r\n")
    length = int(head[head.index(b"Content-Length: ") + 16 :].split(b"\r\n")[0])
    page = bytearray(length)
    page[: len(start)] = start
    view, filled = memoryview(page), len(start)
    while filled < length:
        filled += connection.recv_into(view[filled:])
    return view


def main() -> None:
    address = urlsplit(sys.argv[1])
    offsets, rows, finished = count(0, PAGE), [0] * IN_FLIGHT, threading.Event()

    def work(worker: int) -> None:
        decoder = msgspec.json.Decoder(list[Session])
        with socket.create_connection((address.hostname, address.port)) as connection:
            while not finished.is_set():
                query = f"sort_by=start_time&sort_by_desc=true&include_stats=true&offset={next(offsets)}&limit={PAGE}"
                page = body(connection, f"/api/v1/sessions?{query}")
                count_here = len(decoder.decode(page)) if DECODE else PAGE * (len(page) > 2)
                rows[worker] += count_here
                if count_here < PAGE:
                    finished.set()

    workers = [threading.Thread(target=work, args=[worker]) for worker in range(IN_FLIGHT)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps({"rows": sum(rows)}))


if __name__ == "__main__":
    main()
