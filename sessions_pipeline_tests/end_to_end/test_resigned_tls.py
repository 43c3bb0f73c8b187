"""Set-up and a run work behind a company's proxy that decrypts TLS and re-signs it with the company's certificate."""

import base64
import hashlib
import json
import os
import ssl
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pytest

from sessions_pipeline_tests.integration.pipeline_runs import record
from sessions_pipeline_tests.integration.scripted_server import Handler, scripted
from sessions_pipeline_tests.scripts import COMMAND

REPOSITORY = Path(__file__).parents[2]
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)

pytestmark = pytest.mark.xdist_group("resigned")


class Company(NamedTuple):
    """The file with the company's own certificate authority, and the TLS context of its proxy."""

    certificate: Path
    proxy_context: ssl.SSLContext


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    folder = tmp_path_factory.mktemp("company")
    new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    (folder / "names").write_text("subjectAltName=DNS:mirror.test,DNS:api.test\n")
    for command in (
        f"{new} -x509 -days 2 -subj /CN=Company -keyout ca.key -out ca.pem",
        f"{new} -subj /CN=proxy -keyout leaf.key -out leaf.csr",
        "openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -days 2 -extfile names -out leaf.pem",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
    return Company(folder / "ca.pem", context)


def wheel_of(name: str) -> bytes:
    """A wheel without dependencies, with one empty module."""
    files = {
        f"{name}.py": b"",
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{name}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    entries = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},{len(content)}"
        for path, content in files.items()
    ]
    files[f"{name}-1.0.dist-info/RECORD"] = "\n".join([*entries, f"{name}-1.0.dist-info/RECORD,,\n"]).encode()
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return packed.getvalue()


WHEEL = wheel_of("pinned")
# A build backend that needs no packages from an index, for a fake checkout.
BACKEND = f"""
import pathlib
def build_editable(folder, config_settings=None, metadata_directory=None):
    pathlib.Path(folder, "checkout-1.0-py3-none-any.whl").write_bytes({wheel_of("checkout")!r})
    return "checkout-1.0-py3-none-any.whl"
"""


def mirror(handler: Handler) -> None:
    """A package index with one package."""
    if handler.path.endswith(".whl"):
        handler.reply(body=WHEEL)
    elif "pinned" in handler.path:
        handler.reply(body=b'<a href="/pinned-1.0-py3-none-any.whl">pinned</a>', headers={"Content-Type": "text/html"})
    else:
        handler.reply(404)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with pip and uv, like that in which `make` installs the lock."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
    (folder / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    return folder / "bin" / "python"


@pytest.mark.parametrize("named_by", ["pip.conf", "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", None])
def test_set_up_trusts_the_companys_certificate_wherever_pip_would(
    python: Path, company: Company, tmp_path: Path, named_by: str | None
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "lock").write_text(f"pinned==1.0 --hash=sha256:{hashlib.sha256(WHEEL).hexdigest()}\n")
    with scripted(mirror, resigns=company.proxy_context) as proxy:
        index, trusted = "https://mirror.test/simple", str(company.certificate)
        file = tmp_path / "pip.conf"
        file.write_text(f"[global]\nindex-url = {index}\nproxy = {proxy.url}\ncert = {trusted}\nuser = true\n")
        # With /dev/null as its file, pip also ignores the machine's own configuration.
        named = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index, "PIP_PROXY": proxy.url}
        if named_by == "pip.conf":
            named = {"PIP_CONFIG_FILE": str(file)}
        elif named_by:
            named[named_by] = trusted
        done = subprocess.run(
            [python, REPOSITORY / "tools" / "install.py", "lock"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_NO_CACHE": "1", "UV_HTTP_RETRIES": "0"} | named,
            capture_output=True,
            text=True,
            check=False,
        )
    if named_by is None:
        assert done.returncode != 0
        assert "certificate" in done.stderr.lower()
        assert proxy.paths == []
        return
    assert done.returncode == 0, done.stderr
    assert any(path.endswith(".whl") for path in proxy.paths), "the wheel did not come through the proxy"
    for module in ("pinned", "checkout"):
        subprocess.run([python, "-c", f"import {module}"], check=True)
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", "pinned", "checkout"], check=True, capture_output=True)


@pytest.mark.parametrize("named_by", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", ".env", None])
def test_a_run_trusts_the_companys_certificate_where_it_is_named_and_says_how_to_name_it(
    company: Company, tmp_path: Path, named_by: str | None
) -> None:
    def api(handler: Handler) -> None:
        is_sessions = handler.path.startswith("/api/v1/sessions") and "offset=0" in handler.path
        handler.reply(body=f"[{record(1, NOON)}]".encode() if is_sessions else b"[]")

    if named_by == ".env":
        (tmp_path / ".env").write_text(f'SSL_CERT_FILE="{company.certificate}"\n')
    with scripted(api, resigns=company.proxy_context) as proxy:
        day = NOON.date().isoformat()
        done = subprocess.run(
            [COMMAND, "materialize", "--from", day, "--to", day, "--json"],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "PYTHONPATH": str(REPOSITORY),
                "LANGSMITH_API_KEY": "key",
                "LANGSMITH_ENDPOINT": "https://api.test",
                "HTTPS_PROXY": proxy.url,
                **({named_by: str(company.certificate)} if named_by not in (None, ".env") else {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert "Traceback" not in done.stderr
    if named_by is None:
        (line,) = [line for line in done.stderr.splitlines() if "DAGSTER_HOME" not in line]
        assert done.returncode == 1
        assert "set SSL_CERT_FILE to the file with your company's certificates" in line
        assert proxy.paths == []
        return
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total_cost"] == "1.25"
