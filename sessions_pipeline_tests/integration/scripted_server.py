"""A real HTTP server on loopback that answers each request with the next step of a test's script."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Passes each GET and HEAD to the server's script. The methods below are for steps."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def do_GET(self) -> None:
        self.server.script.take(self)

    def do_CONNECT(self) -> None:
        """Act as a proxy that re-signs TLS: answer requests in the tunnel here, with the certificate of `resigns`."""
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
        """Announce `length` bytes, but send only `body`."""
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
        """Print nothing."""


@dataclass
class Script:
    """The steps of the server, and what it has received.

    Each request takes the next step; when there are no more, the last step is repeated.
    """

    steps: tuple[Step, ...]
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


def answer(status: int = 200, body: bytes = b"[]", **headers: str) -> Step:
    """A step that sends this answer. Header names have underscores in place of hyphens."""
    return lambda handler: handler.reply(status, body, {k.replace("_", "-"): v for k, v in headers.items()})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing: tests break connections on purpose."""


@contextmanager
def scripted(
    *steps: Step, tls: ssl.SSLContext | None = None, resigns: ssl.SSLContext | None = None
) -> Iterator[Script]:
    """Serve a script until the block ends.

    With `tls` it is an HTTPS server. With `resigns` it is a proxy that decrypts TLS with this certificate and answers
    in place of the target.
    """
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
