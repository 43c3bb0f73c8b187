"""moto's S3 server behind a front that can fail on demand, in a process of its own.

Of its own because Arrow may talk to S3 while it holds the interpreter's lock: a server in the same process would hang.
"""

import http.client
import json
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

CONTROL = "/-/control"
HOP_BY_HOP = {"connection", "content-length", "expect", "transfer-encoding"}


class Front(ThreadingHTTPServer):
    """Does to the next requests what `faults` says, passes the others on, and keeps what was asked for."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), FrontHandler)
        self.behind = port
        self.faults: list[str] = []
        self.asked: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is the point."""


class FrontHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def answer(self) -> None:
        if self.path == CONTROL:
            self.control()
            return
        self.server.asked.append(f"{self.command} {urlsplit(self.path).path}")
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "reset":
            self.rfile.read(5 if self.command == "PUT" else 0)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self.body()
        if fault == "slow down":
            self.reply(503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>", {})
        elif fault == "denied":
            self.reply(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", {})
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.server.behind)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            self.reply(response.status, response.read(), dict(response.headers))
            connection.close()

    def control(self) -> None:
        """GET tells the faults to come and what was asked for; PUT sets the faults and forgets what was asked for."""
        if self.command == "PUT":
            self.server.faults[:] = json.loads(self.body())
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

    def fail(self, *faults: str) -> None:
        """Answer the next requests with these faults, one each ("" is none); forget what was asked for so far."""
        self.request("PUT", CONTROL, json.dumps(faults))

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
