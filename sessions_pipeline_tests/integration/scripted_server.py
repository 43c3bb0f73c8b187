"""A real HTTP server on loopback that answers each request as a test's script says."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Handle = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Hands each GET to the server's script, with the number of the request, from 0."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def do_GET(self) -> None:
        self.server.script.take(self)

    def do_CONNECT(self) -> None:
        """As a proxy that re-signs TLS: what is asked through the tunnel is answered here, by a certificate of ours."""
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.resigns.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = (self.connection.makefile(mode, buffering=0) for mode in ("rb", "wb"))
        self.close_connection = False

    def do_HEAD(self) -> None:
        self.server.script.take(self)

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def reply(self, status: int = 200, body: bytes = b"[]", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, length: int, body: bytes) -> None:
        """Promise `length` bytes, send `body`."""
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def hang_up(self, *, reset: bool = False) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_: object) -> None:
        """Tests stay silent."""


@dataclass
class Script:
    """What the server does: one entry for each request, the last one for all that follow; and what it saw."""

    steps: tuple[Handle, ...]
    url: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    pause: threading.Event = field(default_factory=threading.Event)

    def take(self, handler: Handler) -> None:
        with self.lock:
            step = self.steps[min(len(self.paths), len(self.steps) - 1)]
            self.paths.append(handler.path)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.connections.add(handler.client_address)
        step(handler)


def answer(status: int = 200, body: bytes = b"[]", **headers: str) -> Handle:
    """A step; header names with underscores for hyphens."""
    return lambda handler: handler.reply(status, body, {k.replace("_", "-"): v for k, v in headers.items()})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A connection that a test broke is no news."""


@contextmanager
def scripted(
    *steps: Handle, tls: ssl.SSLContext | None = None, resigns: ssl.SSLContext | None = None
) -> Iterator[Script]:
    """`tls`: an HTTPS server; `resigns`: a proxy that opens TLS with this certificate, and answers by itself."""
    script = Script(steps)
    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.script, server.resigns = script, resigns  # type: ignore[attr-defined]
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
