"""The sandbox as a server on loopback: blocking for the command line, in a thread for the demo."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import uvicorn

from sessions_pipeline.sandbox.app import KEY, Api
from sessions_pipeline.sandbox.listing import SEED, CompanyData

HOST = "127.0.0.1"


class Sandbox(NamedTuple):
    """A running server."""

    url: str
    key: str
    api: Api


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


def build_api(*, seed: int = SEED, now: datetime | None = None, broken: bool = True) -> Api:
    """A company's API up to this moment, or to `now`; for `seed` and `broken` see `CompanyData`."""
    time_ = now or datetime.now(UTC)
    return Api(CompanyData(time_, seed, broken=broken), time_)


def serve(port: int, *, seed: int = SEED, ready: Callable[[str], None] = lambda _url: None) -> None:
    """Serve until interrupted; `ready` is told the address.

    Raises:
        OSError: the port is taken.
    """
    app = build_api(seed=seed).app()
    with _bound(port) as listening:
        server = _UntilStopped(_config(app))
        server.ready = lambda: ready(_url(listening))
        server.run([listening])


@contextlib.contextmanager
def running_sandbox(api: Api | None = None) -> Iterator[Sandbox]:
    """A server of `api`, or of a company up to this moment, on a free port until the block ends."""
    api = api or build_api()
    with serving(api.app()) as url:
        yield Sandbox(url, KEY, api)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """An ASGI application in a thread, on a free port; gives its address."""
    with _bound(0) as listening:
        server = uvicorn.Server(_config(app))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True, name="sandbox")
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield _url(listening)
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


@contextlib.contextmanager
def _bound(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        yield listening


def _url(listening: socket.socket) -> str:
    return f"http://{HOST}:{listening.getsockname()[1]}"


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", ws="none")
