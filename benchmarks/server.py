"""Serves `GET /api/v1/sessions` from records serialised in advance, and the list of their datasets.

    python benchmarks/server.py FOLDER [--latency SECONDS] [--port N]

Of sessions it supports `offset`, `limit`, `sort_by=start_time`, `sort_by_desc` and `include_stats`; refuses other
parameters with 422, so that no client silently gets the wrong page. A page is a slice of a memory-mapped file
(ascending) or a join of 100 slices (descending): nothing is serialised while a client waits, and memory is the same for
1,000 and 1,000,000 sessions. `GET /counters` returns what was served and the CPU time used, and resets the counters.
The first line on standard output is the address.
"""

import argparse
import asyncio
import json
import mmap
import socket
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from generate import DATASETS, datasets

KNOWN = {"offset", "limit", "sort_by", "sort_by_desc", "include_stats"}


class Records:
    """The records of one file, in ascending order of start time."""

    def __init__(self, folder: Path, name: str) -> None:
        self._index = array("Q", (folder / f"{name}.index").read_bytes())
        with (folder / f"{name}.bin").open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self.count = len(self._index) - 1

    def page(self, offset: int, limit: int, *, descending: bool) -> list[bytes | memoryview]:
        """The parts of one JSON array."""
        first, last = min(offset, self.count), min(offset + limit, self.count)
        if first == last:
            return [b"[]"]
        index, data = self._index, self._bytes
        if not descending:
            return [b"[", data[index[first] : index[last] - 1], b"]"]
        newest, oldest = self.count - first, self.count - last
        slices = [data[index[place] : index[place + 1] - 1] for place in range(newest - 1, oldest - 1, -1)]
        return [b"[", b",".join(slices), b"]"]


@dataclass
class Counters:
    """Counts since the last `GET /counters`; `cpu_start` is the server's CPU time at that moment."""

    requests: int = 0
    records_with_stats: int = 0
    bytes_sent: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    first_request_at: float = 0.0
    cpu_start: float = field(default_factory=time.process_time)

    def as_json(self) -> bytes:
        counts = {name: value for name, value in vars(self).items() if name not in {"cpu_start", "in_flight"}}
        return json.dumps(counts | {"cpu_seconds": time.process_time() - self.cpu_start}).encode()


class Api:
    """Answers requests with a status and the parts of the body."""

    def __init__(self, folder: Path) -> None:
        self._records = {True: Records(folder, "full"), False: Records(folder, "bare")}
        self._datasets = datasets()
        self.counters = Counters()

    def answer(self, target: str) -> tuple[int, list[bytes | memoryview]]:
        path, _, query = target.partition("?")
        if path == "/counters":
            counters, self.counters = self.counters, Counters(in_flight=self.counters.in_flight)
            return 200, [counters.as_json()]
        if path == "/api/v1/datasets":
            self.counters.requests += 1
            return 200, [self._datasets]
        if path.rstrip("/") != "/api/v1/sessions":
            return 404, [b'{"detail":"Not Found"}']
        self.counters.requests += 1
        self.counters.first_request_at = self.counters.first_request_at or time.time()
        asked = dict(parse_qsl(query, keep_blank_values=True))
        offset, limit = int(asked.get("offset", 0)), int(asked.get("limit", 100))
        unknown = asked.keys() - KNOWN
        if unknown or offset < 0 or not 1 <= limit <= 100 or asked.get("sort_by", "start_time") != "start_time":
            return 422, [json.dumps({"detail": f"not served by the benchmark: {query}"}).encode()]
        stats = asked.get("include_stats", "false").lower() == "true"
        descending = asked.get("sort_by_desc", "true").lower() == "true"
        records = self._records[stats]
        if stats:
            self.counters.records_with_stats += max(0, min(limit, records.count - offset))
        return 200, records.page(offset, limit, descending=descending)


REASONS = {200: b"OK", 404: b"Not Found", 422: b"Unprocessable Entity"}


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, GET only: as little as a fast server needs."""

    def __init__(self, api: Api, latency: float) -> None:
        self._api = api
        self._latency = latency
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=1 << 22)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            target = self._received[: self._received.index(b"\r\n")].split(b" ")[1].decode("ascii")
            self._received = self._received[end + 4 :]
            counters = self._api.counters
            counters.in_flight += 1
            counters.most_in_flight = max(counters.most_in_flight, counters.in_flight)
            if self._latency and target != "/counters":
                asyncio.get_running_loop().call_later(self._latency, self._respond, target)
            else:
                self._respond(target)

    def _respond(self, target: str) -> None:
        status, parts = self._api.answer(target)
        length = sum(map(len, parts))
        # As the API does, only the short list says how long it is.
        total = b"X-Pagination-Total: %d\r\n" % DATASETS if target.startswith("/api/v1/datasets") else b""
        head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
        self._api.counters.in_flight -= 1
        self._api.counters.bytes_sent += length
        if not self._transport.is_closing():
            self._transport.write(b"".join([head % (status, REASONS[status], total, length), *parts]))


async def serve(folder: Path, latency: float, port: int) -> None:
    api = Api(folder)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(api, latency), "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(serve(given.folder, given.latency, given.port))


if __name__ == "__main__":
    main()
