"""moto's S3 server behind a front that can fail on demand, in a process of its own.

Of its own, so that a client that holds the interpreter's lock, or is killed, takes nothing of the server with it.
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
    "not implemented": (501, "NotImplemented"),
}


class Front(ThreadingHTTPServer):
    """Does to the next requests what `faults` says, passes the others on, and keeps what was asked for.

    `kind` is how the store takes conditional puts: as it should (""), not at all ("deaf"), or as an error ("refusing").
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), FrontHandler)
        self.behind = port
        self.faults: list[str] = []
        self.kind = ""
        self.turns = threading.Lock()
        self.asked: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is the point."""


class FrontHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Front

    def answer(self) -> None:
        if self.path == CONTROL:
            self.control()
            return
        self.server.asked.append(f"{self.command} {urlsplit(self.path).path}")
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
            # A real store repeats parts of the request, so this one does: none of it may reach a message.
            text = f"<Error><Code>{code}</Code><Message>{fault}</Message><StringToSign>{self.headers['Authorization']}"
            self.reply(status, f"{text}</StringToSign></Error>".encode(), {})
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind)
        # moto looks at a put's condition and then puts, in threads; a store does both at once.
        with self.server.turns if self.command == "PUT" else nullcontext():
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
        if fault == "lost answer":
            self.break_off(fault)
            return
        self.reply(response.status, response.read(), dict(response.headers))
        connection.close()

    def break_off(self, fault: str) -> None:
        """Take a part of the body, and then close the connection, or wait until the client does."""
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
        """GET tells the faults to come and what was asked for; PUT sets the faults and forgets what was asked for."""
        if self.command == "PUT":
            self.server.kind, *faults = json.loads(self.body())
            self.server.faults[:] = faults
            self.server.asked.clear()
        self.reply(200, json.dumps([self.server.faults, self.server.asked]).encode(), {})

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815


def serve() -> None:
    """Say the front's port, and serve until the input ends."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    front = Front(moto.get_host_and_port()[1])
    sys.stdout.write(f"{front.server_port}\n")
    sys.stdout.flush()
    front.serve_forever()


class S3Server:
    """The running server, to be used as a context manager; `port` is that of the front, on 127.0.0.1."""

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
        """Answer the next requests with these faults, one each ("" is none); forget what was asked for so far."""
        self.request("PUT", CONTROL, json.dumps([kind, *faults]))

    @property
    def faults(self) -> list[str]:
        """The faults that no request has met yet."""
        return json.loads(self.request("GET", CONTROL))[0]

    @property
    def asked(self) -> list[str]:
        """Method and path of the requests since the last call of `fail`."""
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
