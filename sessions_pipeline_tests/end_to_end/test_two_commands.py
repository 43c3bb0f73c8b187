"""`make demo` as a stranger runs it: a fresh clone, spaces in the path, and nothing of ours in the environment."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.xdist_group("clone")
# How this machine reaches a package index; all other variables go.
_REACHES_PACKAGES = ("PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone in a folder whose name has spaces."""
    folder = tmp_path_factory.mktemp("stranger") / "my projects" / "a clone"
    folder.parent.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(folder)], check=True)
    yield folder
    shutil.rmtree(folder / ".venv", ignore_errors=True)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment emptied but for what finds programs and packages, with pip told to install for the user."""
    kept = {name: os.environ[name] for name in ("PATH", *_REACHES_PACKAGES) if name in os.environ}
    return {**kept, "HOME": str(tmp_path_factory.mktemp("home")), "PIP_USER": "1"}


def test_the_demo_shows_costs_in_a_fresh_clone_the_first_time_and_the_second(clone: Path, bare: dict[str, str]) -> None:
    for _ in range(2):
        done = subprocess.run(["make", "demo"], cwd=clone, env=bare, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert "US dollars" in done.stdout
        assert str(clone / "data" / "demo") in done.stdout.replace("\n", "")
    assert sorted(path.name for path in clone.parent.iterdir()) == ["a clone"]
    assert list((clone / "data" / "demo" / "daily_cost_by_reference_dataset").glob("start_date=*/*.parquet"))
