"""PostgreSQL from the distribution's package, on a free port and with its data in a temporary folder."""

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
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
        self._log = self._folder / "log"
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def _start(self) -> None:
        secret = self._folder / "secret"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            for path in (self._folder, secret):
                os.chown(path, account.pw_uid, account.pw_gid)
        made = [f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        self._run("initdb", *self._data, "--no-sync", *made)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        told = " ".join(f"-c{name}={shlex.quote(str(value))}" for name, value in options.items())
        # `pg_ctl` waits until the server accepts connections.
        patience = f"--timeout={START_SECONDS}"
        self._run("pg_ctl", "start", *self._data, f"--log={self._log}", f"--options={told}", patience)
        self._run("createdb", "--host=127.0.0.1", f"--port={self.port}", f"--username={USER}", DATABASE)

    @property
    def _data(self) -> list[str]:
        return ["--pgdata", str(self._folder / "data")]

    def _run(self, program: str, *arguments: str) -> None:
        demoted = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*demoted, str(self._binaries / program), *arguments],
            cwd=self._folder,
            env={**os.environ, "PGPASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr + (self._log.read_text() if self._log.exists() else "")

    def __exit__(self, *_: object) -> None:
        # Disconnects clients, and leaves nothing to wait for.
        self._run("pg_ctl", "stop", *self._data, "--mode=immediate")
        shutil.rmtree(self._folder, ignore_errors=True)
