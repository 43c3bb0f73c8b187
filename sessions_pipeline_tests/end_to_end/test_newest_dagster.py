"""The event storage, the one module that uses private parts of Dagster, works with the newest Dagster we allow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# The three packages that Dagster releases together, with one version. Their other dependencies are in the lock.
PARTS = ("dagster<1.14", "dagster-shared<1.14", "dagster-pipes<1.14")


def test_the_tests_of_the_event_storage_pass_on_the_newest_dagster(tmp_path: Path) -> None:
    install = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--no-deps", "--target", tmp_path]
    installed = subprocess.run(
        [*install, "--python", sys.executable, *PARTS], capture_output=True, text=True, check=False
    )
    if installed.returncode != 0 and not os.environ.get("CI"):
        pytest.skip(f"no package index: {installed.stderr.strip()[-200:]}")
    assert installed.returncode == 0, installed.stderr
    tests = REPOSITORY / "sessions_pipeline_tests"
    files = (tests / "integration" / "test_event_storage.py", tests / "end_to_end" / "test_event_storage_processes.py")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *files],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
