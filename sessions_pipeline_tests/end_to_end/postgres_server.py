"""PostgreSQL from the distribution's package, on a free port and with its data in a temporary folder."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

USER, DATABASE = "dagster", "dagster"
# These characters have a meaning in URLs, so the tests show that they are escaped.
PASSWORD = "p@ss:w%rd?#"
START_SECONDS = 30


def binaries() -> Path | None:
    """Where `initdb` and `postgres` are; Debian keeps them off the PATH. None if they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(on_path).parent if on_path else None


class PostgresServer:
    """A context manager that runs the server. `port` is on 127.0.0.1."""

    def __enter__(self) -> Self:
        folder = binaries()
        assert folder is not None, "PostgreSQL is not installed: apt-get install postgresql"
        self._binaries = folder
        # Not below pytest's folder, which only its owner may enter: the server refuses to run as root.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def _start(self) -> None:
        secret, data = self._folder / "secret", self._folder / "data"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            for path in (self._folder, secret):
                os.chown(path, account.pw_uid, account.pw_gid)
        made = [f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        self._run("initdb", "--pgdata", str(data), "--no-sync", *made)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        self._log = self._folder / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", str(data), *(f"-c{name}={value}" for name, value in options.items())),
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(self._ready(), stdout=subprocess.DEVNULL, check=False).returncode != 0:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        self._run("createdb", "--host=127.0.0.1", f"--port={self.port}", f"--username={USER}", DATABASE)

    def _ready(self) -> list[str]:
        return [str(self._binaries / "pg_isready"), "--host=127.0.0.1", f"--port={self.port}", "--quiet"]

    def _command(self, program: str, *arguments: str) -> Sequence[str]:
        demoted = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        return [*demoted, str(self._binaries / program), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run(
            self._command(program, *arguments),
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def __exit__(self, *_: object) -> None:
        # SIGINT asks for a "fast" shutdown, which disconnects clients.
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()
        self._process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)
