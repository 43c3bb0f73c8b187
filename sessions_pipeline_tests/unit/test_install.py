"""The Python that `make` uses, and the settings that set-up passes on from pip's configuration to uv."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sessions_pipeline_tests.scripts import load

install = load("tools/install.py")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("given", "status"), [(["PYTHON=./python3.12"], 2), (["PYTHON=./python3.11"], 0), ([], 0)], ids=str
)
def test_make_refuses_a_python_that_is_not_the_one_of_venv(tmp_path: Path, given: list[str], status: int) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, version in {".venv/bin/python": "3.11.7", "python3.11": "3.11.7", "python3.12": "3.12.1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho Python {version}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements-uv.lock", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("uv", "runtime", "dev"):
        (tmp_path / ".venv" / f".{name}").touch()
    command = ["env", "-u", "PYTHON", "-u", "MAKEFLAGS", "make", "setup", *given]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == status, result.stderr
    said = ".venv was built with Python 3.11.7, not with ./python3.12; to build it again: rm -rf .venv\n"
    assert (said in result.stderr) is (status == 2)


def test_a_mirror_in_pips_configuration_is_passed_to_uv() -> None:
    listed = "global.index-url='https://mirror.example/simple'\nglobal.cert='/etc/ca.pem'\n"
    environment = install.uv_environment(listed, {})
    assert environment["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert environment["SSL_CERT_FILE"] == "/etc/ca.pem"


def test_pips_variables_override_its_file_and_uvs_variables_override_both() -> None:
    listed = ":env:.index-url='https://variable.example'\nglobal.index-url='https://file.example'\n"
    assert install.uv_environment(listed, {})["UV_DEFAULT_INDEX"] == "https://variable.example"
    assert install.uv_environment(listed, {"UV_DEFAULT_INDEX": "https://own.example"})["UV_DEFAULT_INDEX"] == (
        "https://own.example"
    )


def test_several_addresses_are_passed_to_uv_with_its_separator() -> None:
    listed = "global.extra-index-url='https://a.example\\nhttps://b.example'\nglobal.find-links='/wheels /more'\n"
    environment = install.uv_environment(listed, {})
    assert environment["UV_INDEX"] == "https://a.example https://b.example"
    assert environment["UV_FIND_LINKS"] == "/wheels,/more"


def test_uv_uses_the_systems_certificates_without_any_configuration() -> None:
    assert install.uv_environment("", {"PATH": "/bin"})["UV_SYSTEM_CERTS"] == "1"


def test_requests_ca_bundle_is_passed_to_uv_unless_pip_or_uv_has_another_certificate_file() -> None:
    bundle = {"REQUESTS_CA_BUNDLE": "/etc/bundle.pem"}
    assert install.uv_environment("", bundle)["SSL_CERT_FILE"] == "/etc/bundle.pem"
    assert install.uv_environment("global.cert='/etc/ca.pem'\n", bundle)["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert install.uv_environment("", {**bundle, "SSL_CERT_FILE": "/own.pem"})["SSL_CERT_FILE"] == "/own.pem"
