"""The product works with the oldest versions of its dependencies that pyproject.toml allows."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# Between them they use each dependency: Arrow, Pydantic, msgspec and Jinja (frozen tables, the report), obstore (a
# bucket), Dagster, SQLite and httpx (refreshes), click and rich (what is printed, wrong usage), limits.
TESTS = (
    "unit/test_frozen.py",
    "unit/test_rate_limit.py",
    "unit/test_report.py",
    "unit/test_rows.py",
    "unit/test_second_version.py",
    "integration/test_cli_errors.py::test_a_usage_error_is_one_line_in_one_style",
    "integration/test_cli_output.py",
    "integration/test_lake_s3.py",
    "integration/test_pipeline_recording.py",
)


def test_tests_of_every_dependency_pass_with_its_oldest_version(tmp_path: Path) -> None:
    """The versions are those of requirements-oldest.lock; they hide the environment's own. pytest stays the same."""
    uv, lock = Path(sys.executable).with_name("uv"), REPOSITORY / "requirements-oldest.lock"
    install = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", tmp_path]
    subprocess.run([*install, "--require-hashes", "-r", lock], check=True)
    tests = [f"sessions_pipeline_tests/{name}" for name in TESTS]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])},
        cwd=REPOSITORY,  # where `make clean` removes what Hypothesis leaves
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
