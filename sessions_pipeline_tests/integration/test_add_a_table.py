"""CONTRIBUTING's worked example, carried out in a copy: one file, one line and one test add a table."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sessions_pipeline_tests.snippets import Snippet, each, snippets_of_heading, together

ROOT = Path(__file__).parents[2]
MADE, LINE, TEST = [
    one.text for one in snippets_of_heading("CONTRIBUTING.md", "Add a table") if one.language == "python"
]
# A program for the copy: the example's test passes, Dagster loads the definitions, and a day is derived, rebuilt by the
# page's commands, and read.
USED = """
import shlex
import sys
from pathlib import Path
import sessions_pipeline
from sessions_pipeline.cli import cli
from sessions_pipeline.definitions import defs
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.tables import EXPERIMENTS_BY_HOUR
from sessions_pipeline_tests.builders import NOON, dataset, payload
from sessions_pipeline_tests.days import ProcessedDay, fetched
from sessions_pipeline_tests.unit import test_experiments_by_hour

test_experiments_by_hour.test_experiments_count_in_the_hour_of_their_start()
(asset,) = [spec for spec in defs().resolve_all_asset_specs() if spec.key.to_user_string() == "experiments_by_hour"]
columns = asset.metadata["dagster/column_schema"].columns
print([one.asset_key.to_user_string() for one in asset.deps], [one.name for one in columns])
day = ProcessedDay(Path(sys.argv[1]))
day.read(fetched(payload(1, reference_dataset_id=dataset(1), start_time=NOON.isoformat())))
# As in every lake: the rows without a day are read, too, although there are none.
ProcessedDay(Path(sys.argv[1]), UNDATED).read(fetched(day=UNDATED))
Path(day.lake.uri(EXPERIMENTS_BY_HOUR, day.day)).unlink()
for command in sys.argv[2:]:
    cli.main([*shlex.split(command), "--from", str(day.day), "--to", str(day.day)], standalone_mode=False)
print(sessions_pipeline.read("experiments_by_hour", root=sys.argv[1]).to_pylist())
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages and the docs, with the example added."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("sessions_pipeline", "sessions_pipeline_tests", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "images"))
    for text in (MADE, TEST):
        path, _, code = text.partition("\n")
        (copy / path.removeprefix("# ")).write_text(code)
    tables = copy / "sessions_pipeline" / "tables" / "__init__.py"
    before, behind = tables.read_text().split("\n# isort: on\n")
    tables.write_text(f"{before}{LINE}\n# isort: on\n{behind}")
    return copy


def run(copy: Path, *command: str, **variables: str) -> str:
    # Nothing listens at this address.
    nowhere = {"LANGSMITH_ENDPOINT": "http://127.0.0.1:9", "LANGSMITH_API_KEY": "key"}
    environment = {**os.environ, **nowhere, **variables, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@together
def test_the_new_tables_own_test_passes_and_dagster_writes_a_day_that_can_be_read(
    snippets: list[Snippet], copy: Path, tmp_path: Path
) -> None:
    blocks = [one.text for one in snippets if one.language]
    commands = [one.text for one in snippets if not one.language]
    assert blocks == [MADE, LINE, TEST]
    said = run(copy, "-c", USED, str(tmp_path), *commands, SESSIONS_PIPELINE_DATA_ROOT=str(tmp_path)).splitlines()
    assert "['sessions'] ['hour', 'experiment_count']" in said
    assert said[-1].startswith("[{'hour': 12, 'experiment_count': 1, 'start_date': ")


@each
def test_the_docs_and_the_view_are_generated(snippet: Snippet, copy: Path) -> None:
    program, *arguments = shlex.split(snippet.text)
    assert program == "python"
    run(copy, *arguments)
    assert "\n## `experiments_by_hour`\n" in (copy / "docs" / "data-dictionary.md").read_text()
    view = "CREATE OR REPLACE VIEW experiments_by_hour AS FROM query("
    assert view in (copy / "sessions_pipeline" / "outputs" / "lake.sql").read_text()
