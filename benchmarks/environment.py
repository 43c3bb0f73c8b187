"""The benchmark's own virtual environment, built from its own lock, and the product's beside it.

Only the standard library: this runs before either environment is there.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = HERE / "requirements.lock"
PRODUCT = HERE.parent / ".venv" / "bin"
RESULTS = HERE / "results"


def run(script: str) -> NoReturn:
    """Become this script inside the benchmark's environment, built now if it is missing or its lock has changed."""
    stamp = VENV / "lock-installed"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        _build()
        stamp.write_bytes(LOCK.read_bytes())
    os.execv(PYTHON, [str(PYTHON), str(HERE / script), *sys.argv[1:]])


def _build() -> None:
    uv = PRODUCT / "uv" if (PRODUCT / "uv").exists() else shutil.which("uv")
    if uv is None:
        sys.exit("benchmarks: no uv found; run `make setup` first")
    python = PRODUCT / "python" if (PRODUCT / "python").exists() else Path(sys.executable)
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", python, VENV], check=True)
    subprocess.run([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", PYTHON, LOCK], check=True)
