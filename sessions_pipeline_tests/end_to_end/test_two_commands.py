"""The docs' commands for a checkout run in a fresh clone, whose path has spaces, in an almost empty environment."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessions_pipeline_tests.scripts import load
from sessions_pipeline_tests.snippets import Snippet, each, script, together

REPOSITORY = Path(__file__).parents[2]

# A clone runs only a few tests of each suite, since the suites contain this test. The commands are otherwise unchanged.
A_FEW = {"PYTEST_ADDOPTS": "-k 'test_docs or a_tick_of_the_hourly_schedule'"}

pytestmark = pytest.mark.xdist_group("clone")
# The variables by which this machine reaches a package index. Most others are removed.
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
    """Only the variables that find programs and packages, and a setting of pip that breaks installs into `.venv`.

    `python3` is the Python that runs the tests. PIP_USER asks for `--user` installs, as on some machines; `make` must
    override it.
    """
    kept = {name: os.environ[name] for name in _REACHES_PACKAGES if name in os.environ}
    path = f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "HOME": str(tmp_path_factory.mktemp("home")), "PIP_USER": "1"}


@pytest.fixture(scope="module")
def cached(bare: dict[str, str]) -> dict[str, str]:
    """The same, with the caches of uv and pip, and with pip's mirror for uv too. `make demo` must not need these."""
    caches = {"UV_CACHE_DIR": Path.home() / ".cache" / "uv", "PIP_CACHE_DIR": Path.home() / ".cache" / "pip"}
    known = {name: os.environ.get(name, str(folder)) for name, folder in caches.items()}
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    return {**bare, **known, **load("tools/install.py").uv_environment(listed.stdout, {})}


def run(line: str, clone: Path, environment: dict[str, str]) -> str:
    """Run a line in the clone. It must succeed; returns its output."""
    done = subprocess.run(
        ["bash", "-euc", line], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


@together
def test_the_readmes_two_commands_run_in_a_fresh_clone(
    snippets: list[Snippet], clone: Path, bare: dict[str, str], cached: dict[str, str]
) -> None:
    (block,) = [script(one) for one in snippets if one.language]
    demo, test = block.splitlines()
    assert {one.text for one in snippets if not one.language} == {demo, test}
    for _ in range(2):
        printed = run(demo, clone, bare)
        assert "US dollars" in printed
        assert "\nThe last 30 of the 60 days:\n" in printed
        assert str(clone / "data" / "demo") in printed.replace("\n", "")
    assert sorted(path.name for path in clone.parent.iterdir()) == ["a clone"]
    assert list((clone / "data" / "demo" / "daily_cost_by_reference_dataset").glob("start_date=*/*.parquet"))
    # Compiled by set-up, since PYTHONDONTWRITEBYTECODE is common in images; the demo imports only some of them.
    modules = list((clone / ".venv").glob(f"lib/python3.{sys.version_info.minor}/site-packages/dagster/**/*.py"))
    assert len(modules) > 500
    assert all(list(module.parent.glob(f"__pycache__/{module.stem}.*.pyc")) for module in modules)
    assert " passed" in run(test, clone, cached | A_FEW)


@each
def test_a_command_for_a_checkout_runs_in_a_clone(snippet: Snippet, clone: Path, cached: dict[str, str]) -> None:
    path = f"{clone / '.venv' / 'bin'}:{cached['PATH']}"
    run(snippet.text, clone, cached | A_FEW | {"PATH": path})
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    assert changed == ""


@pytest.fixture(scope="module")
def python(clone: Path, cached: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a new environment that has pip and the packages of requirements.lock, which the wheel needs."""
    folder = tmp_path_factory.mktemp("python") / "environment"
    uv = shlex.quote(str(clone / ".venv" / "bin" / "uv"))
    made = f"{uv} venv --quiet --seed --python {shlex.quote(sys.executable)} {folder}"
    locked = f"{uv} pip install --quiet --python {folder}/bin/python --require-hashes -r requirements.lock"
    run(f"{made} && {locked}", clone, cached)
    return cached | {"PATH": f"{folder}/bin:{cached['PATH']}", "VIRTUAL_ENV": str(folder), "PIP_USER": "0"}


@together
def test_the_wheel_is_built_run_and_installed_by_the_docs_lines(
    snippets: list[Snippet], clone: Path, python: dict[str, str]
) -> None:
    lines = list(dict.fromkeys(one.text for one in snippets))
    lines.sort(key=lambda line: "uv build" not in line)
    for line in lines:
        run(line, clone, python)
    run(".venv/bin/python -c 'import duckdb, pandas, sessions_pipeline'", clone, python)
    read = "import apprise, pandas, sessions_pipeline; print(sessions_pipeline.__file__)"
    assert "site-packages" in run(f"cd / && python -c '{read}'", clone, python)
