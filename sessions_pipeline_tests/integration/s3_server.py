"""moto's S3 server behind a proxy that fails on demand, in a separate process.

In the same process, a client that holds the interpreter's lock would block the server, and one that is killed would
end it.
"""

import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

CONTROL = "/-/control"
HOP_BY_HOP = {"connection", "content-length", "expect", "transfer-encoding"}
CONDITIONS = {"if-match", "if-none-match"}
ERRORS = {
    "slow down": (503, "SlowDown"),
    "denied": (403, "AccessDenied"),
    "wrong key": (403, "SignatureDoesNotMatch"),
    "wrong clock": (403, "RequestTimeTooSkewed"),
    "wrong region": (301, "PermanentRedirect"),
    "region in the signature": (400, "AuthorizationHeaderMalformed"),
    "expired": (400, "ExpiredToken"),
    "too slow": (400, "RequestTimeout"),
    "archived": (403, "InvalidObjectState"),
    "web server": (404, "NotFound"),
    "not implemented": (501, "NotImplemented"),
}


class Proxy(ThreadingHTTPServer):
    """Applies `faults` to the next requests, one each, passes the others on to moto, and records all requests.

    `kind` is how the store treats conditional puts: correctly (""), ignoring the condition ("deaf"), or with an error
    ("refusing").
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.moto_port = port
        self.faults: list[str] = []
        self.kind = ""
        self.put_lock = threading.Lock()
        self.requests: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: connections are broken on purpose."""


class ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def answer(self) -> None:
        if self.path == CONTROL:
            self.control()
            return
        self.server.requests.append(f"{self.command} {urlsplit(self.path).path}")
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault in {"reset", "hang"}:
            self.break_off(fault)
            return
        body = self.body()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        is_conditional = bool(CONDITIONS & {name.lower() for name in headers}) and self.command == "PUT"
        if is_conditional and self.server.kind == "refusing":
            fault = "not implemented"
        elif is_conditional and self.server.kind == "deaf":
            headers = {name: value for name, value in headers.items() if name.lower() not in CONDITIONS}
        if fault in ERRORS:
            status, code = ERRORS[fault]
            # Like a real store, repeat parts of the request: none of them may get into our error messages.
            text = f"<Error><Code>{code}</Code><Message>{fault}</Message><StringToSign>{self.headers['Authorization']}"
            self.reply(status, f"{text}</StringToSign></Error>".encode(), {})
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.moto_port)
        # moto's threads check a put's condition first and put later. A real store does both atomically.
        with self.server.put_lock if self.command == "PUT" else nullcontext():
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
        if fault == "lost answer":
            self.break_off(fault)
            return
        content = response.read()
        self.reply(response.status, content, dict(response.headers), half=fault == "half")
        connection.close()

    def break_off(self, fault: str) -> None:
        """Read a part of the body, then close the connection, or for "hang" wait until the client does."""
        if fault != "lost answer":
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
        if fault == "hang":
            while self.rfile.read1():
                pass
        self.close_connection = True
        if fault == "reset":
            # Closed with what may still be on its way thrown away, the client is told of a reset and not of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def control(self) -> None:
        """GET returns the remaining faults and the recorded requests. PUT sets the faults, and clears the requests."""
        if self.command == "PUT":
            self.server.kind, *faults = json.loads(self.body())
            self.server.faults[:] = faults
            self.server.requests.clear()
        self.reply(200, json.dumps([self.server.faults, self.server.requests]).encode(), {})

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def reply(self, status: int, body: bytes, headers: dict[str, str], *, half: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815


def serve() -> None:
    """Print the proxy's port, and serve until the process is killed."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    proxy = Proxy(moto.get_host_and_port()[1])
    sys.stdout.write(f"{proxy.server_port}\n")
    sys.stdout.flush()
    proxy.serve_forever()


class S3Server:
    """A context manager that runs the server. `port` is the proxy's, on 127.0.0.1."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "moto's server did not start: is the test group installed?"
        self.port = int(line)
        self.request("PUT", "/bucket")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def fail(self, *faults: str, kind: str = "") -> None:
        """Answer the next requests with these faults, one each ("" is none). Forget the requests recorded so far."""
        self.request("PUT", CONTROL, json.dumps([kind, *faults]))

    @property
    def faults(self) -> list[str]:
        """The faults that are left for later requests."""
        return json.loads(self.request("GET", CONTROL))[0]

    @property
    def requests(self) -> list[str]:
        """The method and path of each request since the last call of `fail`."""
        return json.loads(self.request("GET", CONTROL))[1]

    def request(self, method: str, path: str, body: str = "") -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, content
            return content
        finally:
            connection.close()
