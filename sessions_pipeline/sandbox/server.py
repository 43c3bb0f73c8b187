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


def build_api(*, seed: int = SEED, now: datetime | None = None, broken: bool = True) -> Api:
    """A company's API up to this moment, or to `now`; for `seed` and `broken` see `CompanyData`."""
    time_ = now or datetime.now(UTC)
    return Api(CompanyData(time_, seed, broken=broken), time_)


def serve(port: int, *, seed: int = SEED, ready: Callable[[str], None] = lambda _url: None) -> None:
    """Serve until SIGINT or SIGTERM, whose handlers stay in place; `ready` is told the address.

    Raises:
        OSError: the port is taken.
    """
    stopped = threading.Event()
    with serving(build_api(seed=seed).app(), port) as url:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        ready(url)
        stopped.wait()


@contextlib.contextmanager
def running_sandbox(api: Api | None = None) -> Iterator[Sandbox]:
    """A server of `api`, or of a company up to this moment, on a free port until the block ends."""
    api = api or build_api()
    with serving(api.app()) as url:
        yield Sandbox(url, KEY, api)


@contextlib.contextmanager
def serving(app: Any, port: int = 0, *, tells_time: bool = True) -> Iterator[str]:
    """An ASGI application in a thread, on a port that is free if it is 0; gives its address.

    Its answers have a `Date`, unless it does not tell the time.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", ws="none", date_header=tells_time
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True, name="sandbox")
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield f"http://{HOST}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
