"""Installs a hash-pinned lock with uv, using the mirror, proxy and certificates from pip's configuration.

uv reads neither pip.conf nor PIP_* variables, so it would fail behind a company's mirror where pip works.
`python tools/install.py requirements.lock` installs into the environment of the Python that runs it.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# pip's option, uv's variable, and what separates several values in it (pip separates them by spaces; None: one value).
SETTINGS = {
    "index-url": ("UV_DEFAULT_INDEX", None),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "no-index": ("UV_NO_INDEX", None),
    "cert": ("SSL_CERT_FILE", None),
    "proxy": ("ALL_PROXY", None),
}
# Variables in which pip also accepts a file of certificates.
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Sections of pip's configuration; later ones take precedence, as in pip.
SECTIONS = ("global", "install", ":env:")


def main(lock: str) -> int:
    """Install the lock, then the checkout itself; returns uv's exit status."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env={**os.environ, "PIP_USER": "0"},  # with `user = true`, pip would list only the user's file
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    environment = uv_environment(listed, os.environ)
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--python", sys.executable]
    for arguments in (
        ["--require-hashes", "-r", lock, "--compile-bytecode"],
        ["--no-deps", "--no-build-isolation", "-e", "."],
    ):
        status = subprocess.run([*uv, *arguments], env=environment, check=False).returncode
        if status:
            return status
    return 0


def uv_environment(listed: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for uv. `listed` is the output of `pip config list`; variables that are already set are kept."""
    found: dict[str, str] = {}
    for section in SECTIONS:
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            where, _, key = name.rpartition(".")
            if where == section and key in SETTINGS:
                found[key] = str(ast.literal_eval(value))
    translated = {
        variable: value if separator is None else separator.join(value.split())
        for key, value in found.items()
        for variable, separator in [SETTINGS[key]]
    }
    bundle = next((environment[name] for name in BUNDLES if environment.get(name)), None)
    if bundle and "SSL_CERT_FILE" not in translated:
        translated["SSL_CERT_FILE"] = bundle
    # Every file is pinned by its hash, so it may come from any index. The certificates of the system are trusted, too:
    # a proxy that re-signs TLS may be known only there.
    defaults = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_SYSTEM_CERTS": "1", "UV_NO_PROGRESS": "1"}
    return {**defaults, **translated, **environment}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
