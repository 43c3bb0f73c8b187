"""The sandbox as a server on loopback: blocking for the command line, in a thread for demo and tests."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uvicorn

from sessions_pipeline.sandbox.app import KEY, Api
from sessions_pipeline.sandbox.company import company
from sessions_pipeline.sandbox.faults import Faults
from sessions_pipeline.sandbox.listing import CompanyData, FixedData, Undated

HOST = "127.0.0.1"
SEED = 7


@dataclass(frozen=True)
class Sandbox:
    """A running server."""

    url: str
    key: str
    api: Api

    @property
    def faults(self) -> Faults:
        """Misbehaviour to put in force."""
        return self.api.faults

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What was asked so far."""
        return self.api.requests


class _UntilStopped(uvicorn.Server):
    """Ends in peace on Ctrl-C or SIGTERM, where uvicorn raises the signal again after it has closed."""

    ready: Callable[[], None]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()


def build_api(
    *, seed: int = SEED, now: datetime | None = None, broken: bool = True, undated: Undated = "postgres", **options: Any
) -> Api:
    """A company's API.

    Args:
        seed: other seeds make other data.
        now: the time that its data end at, this moment if None.
        broken: with a few records that break the schema and times without an offset, as the real API's; False keeps
            to the letter of the schema.
        undated: where sessions without a value sort.
        options: of `Api`.
    """
    time_ = now or datetime.now(UTC)
    data = CompanyData(company(seed, time_, broken=broken), time_, undated, offset="" if broken else "Z")
    return Api(data, time_, **options)


def serve(port: int, *, seed: int = SEED, ready: Callable[[str], None] = lambda _url: None) -> None:
    """Serve until interrupted; `ready` is told the address.

    Raises:
        OSError: the port is taken.
    """
    api = build_api(seed=seed)
    with _bound(port) as listening:
        server = _UntilStopped(_config(api))
        server.ready = lambda: ready(f"http://{HOST}:{listening.getsockname()[1]}")
        server.run([listening])


@contextlib.contextmanager
def running_sandbox(api: Api | None = None, *, texts: Sequence[str] | None = None, **options: Any) -> Iterator[Sandbox]:
    """A server on a free port until the block ends.

    Args:
        api: what to serve; None builds a company from `options`, see `build_api`.
        texts: JSON texts to serve instead, in this order, newest first.
        options: of `build_api` or, with `texts`, of `Api`.
    """
    if api is None:
        now = options.pop("now", None) or datetime.now(UTC)
        api = Api(FixedData(texts), now, **options) if texts is not None else build_api(now=now, **options)
    with _bound(0) as listening:
        server = uvicorn.Server(_config(api))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True, name="sandbox")
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield Sandbox(f"http://{HOST}:{listening.getsockname()[1]}", KEY, api)
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join()


@contextlib.contextmanager
def _bound(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        yield listening


def _config(api: Api) -> uvicorn.Config:
    return uvicorn.Config(api.app(), log_level="critical", access_log=False, lifespan="off", ws="none")
