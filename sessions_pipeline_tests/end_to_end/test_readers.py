"""Spark, DuckDB's command line, and DuckDB on a bucket read the lake as the docs show, in a separate environment."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.s3 import S3Store
from sessions_pipeline.tables import SESSIONS
from sessions_pipeline_tests import recipes
from sessions_pipeline_tests.builders import NOON, experiment, sessions_table
from sessions_pipeline_tests.integration.s3_server import S3Server
from sessions_pipeline_tests.integration.test_reading import fill, recipe
from sessions_pipeline_tests.snippets import ROOT, Snippet, each, together

# Two processors and no web UI, so that Spark starts quickly.
SPARK = "--master local[2] --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=2 pyspark-shell"
# DuckDB's extensions from Python packages. The docs' `INSTALL` would download them, but skips those already there.
EXTENSIONS = "import duckdb_extensions as e; e.import_extension('httpfs'); e.import_extension('aws')\n"
# The views of lake.sql also work on a bucket, even if it has only one table.
VIEWS = """
duckdb.execute("SET VARIABLE data_root = 's3://bucket/prefix'")
duckdb.execute(open("sessions_pipeline/outputs/lake.sql").read())
print(duckdb.sql("SELECT count(*) FROM sessions").fetchall())
"""

pytestmark = pytest.mark.xdist_group("readers")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with only requirements-readers.lock."""
    environment = tmp_path_factory.mktemp("readers") / "environment"
    uv, lock = str(Path(sys.executable).with_name("uv")), str(ROOT / "requirements-readers.lock")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    # `--no-deps` because the lock has every dependency; it also has the packages that build pyspark.
    install = [uv, "pip", "install", "--quiet", "--python", str(environment / "bin" / "python"), "--no-deps"]
    subprocess.run([*install, "--require-hashes", "-r", lock, "--build-constraints", lock], check=True)
    return environment / "bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout after `make demo`, with the lake that docs/reading.md shows the outputs for."""
    folder = tmp_path_factory.mktemp("checkout")
    fill(folder / "data" / "demo")
    (folder / "sessions_pipeline").symlink_to(ROOT / "sessions_pipeline")
    return folder


def run(programs: Path, folder: Path, *command: str, given: str, **variables: str) -> str:
    """The output of a command with `given` as its standard input."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AWS_"))}
    environment = {**kept, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(programs.parent), **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(
    shutil.which("java") is None and not os.environ.get("CI"),
    reason="Java is not installed: apt-get install default-jre-headless",
)
@together
def test_spark_prints_what_the_page_shows(snippets: list[Snippet], programs: Path, folder: Path) -> None:
    blocks, shown = recipe(snippets)
    variables = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_SUBMIT_ARGS": SPARK}
    printed = run(programs, folder, "python", recipes.__file__, given=json.dumps(blocks), **variables)
    assert json.loads(printed) == shown


@each
def test_duckdbs_command_line_has_the_views(snippet: Snippet, programs: Path, folder: Path) -> None:
    query = ".mode list\nSELECT count(*) AS sessions FROM sessions;\n"
    printed = run(programs, folder, "bash", "-euc", snippet.text, given=query)
    assert printed.split()[-2:] == ["sessions", "32"]


@each
def test_duckdb_reads_a_bucket(snippet: Snippet, programs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server() as server:
        key = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        for name, value in {**key, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.port}"}.items():
            monkeypatch.setenv(name, value)
        rows = sessions_table(experiment(1), experiment(2))
        Lake.open(S3Store("s3://bucket/prefix"), query={}).replace(SESSIONS, NOON.date(), rows, {})
        address = f"PROVIDER credential_chain, ENDPOINT '127.0.0.1:{server.port}', USE_SSL false, URL_STYLE 'path'"
        *before, last = snippet.text.replace("PROVIDER credential_chain", address).splitlines()
        code = EXTENSIONS + "\n".join([*before, f"print({last}.aggregate('count(*)').fetchall())", VIEWS])
        assert run(programs, folder, "python", "-", given=code, **key) == "[(2,)]\n" * 2
