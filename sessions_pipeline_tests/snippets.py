"""Every snippet in the docs, and the test that runs it.

A snippet is a fenced block, or inline code that contains a space or a bracket. `RUN_BY` lists the snippets that each
test claims. The decorators `each`, `together` and `by_heading` pass them to the test, so a test runs exactly what it
claims. `unit/test_snippets.py` fails for a snippet that no test claims.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
HEADING = re.compile(r"^##? (.+)$", re.MULTILINE)
# In the tables of the troubleshooting page, the first column holds messages; `test_docs.py` looks them up in the code.
MESSAGES = re.compile(r"^\| `.*?` \|", re.MULTILINE)
Test = TypeVar("Test", bound=Callable[..., None])

# Snippets by test and page. A fenced block is named by its first line, or by `heading: language`, which means all such
# blocks below the heading. Inline code is named by its whole text.
RUN_BY: dict[str, dict[str, tuple[str, ...]]] = {
    "end_to_end/test_two_commands.py::test_the_readmes_two_commands_run_in_a_fresh_clone": {
        "README.md": ("Two commands: console", "make demo", "make test"),
        "CONTRIBUTING.md": ("make test",),
        "docs/reading.md": ("make demo",),
    },
    "end_to_end/test_two_commands.py::test_a_command_for_a_checkout_runs_in_a_clone": {
        "README.md": ("make help", "make setup", ".venv/bin/sessions-pipeline demo"),
        "CONTRIBUTING.md": ("make setup", "make check", "make test-e2e", "make lock", "mypy --strict"),
    },
    "end_to_end/test_two_commands.py::test_the_wheel_is_built_run_and_installed_by_the_docs_lines": {
        "README.md": (
            ".venv/bin/uv build --wheel",
            ".venv/bin/uvx --from dist/sessions_pipeline-0.1.0-py3-none-any.whl sessions-pipeline demo",
            "pip install 'dist/sessions_pipeline-0.1.0-py3-none-any.whl[pandas]'",
            ".venv/bin/pip install pandas",
        ),
        "docs/alerts.md": ("pip install 'dist/sessions_pipeline-0.1.0-py3-none-any.whl[notify]'",),
        "docs/reading.md": (".venv/bin/pip install duckdb",),
    },
    "end_to_end/test_container.py::test_the_image_is_built_and_shows_the_demo": {
        "README.md": (
            (
                "docker build -f deploy/Dockerfile -t sessions-pipeline . "
                "&& docker run --rm sessions-pipeline sessions-pipeline demo"
            ),
        ),
    },
    "end_to_end/test_container.py::test_a_command_for_an_upgrade_runs_in_the_image": {
        "docs/deploy.md": ("dagster instance migrate",),
    },
    "contract/test_deploy_commands.py::test_the_commands_of_a_deployment_name_what_its_files_hold": {
        "docs/deploy.md": ("Compose: console", "Kubernetes: console", "docker compose … up --detach", "helm upgrade …"),
    },
    "end_to_end/test_terminal.py::test_make_dev_prints_the_address_of_the_ui_and_all_its_processes_end_cleanly": {
        "README.md": ("make dev SANDBOX=1", "sessions-pipeline ui --demo"),
    },
    "end_to_end/test_terminal.py::test_the_ui_starts_as_the_docs_say": {
        "README.md": ("make dev", "sessions-pipeline ui"),
        "docs/deploy.md": ("make dev",),
        "docs/settings.md": ("make dev",),
    },
    "end_to_end/test_shell_snippets.py::test_a_workspace_is_read_by_the_readmes_lines": {
        "README.md": ("Your own workspace: sh", "Your own workspace: console"),
    },
    "end_to_end/test_shell_snippets.py::test_a_command_runs_in_that_workspace": {
        "README.md": (
            "materialize --from DAY --to DAY",
            "export focus --month MONTH --output FILE",
        ),
        "CONTRIBUTING.md": ("materialize --select sessions",),
        "docs/api-versions.md": ("sessions-pipeline doctor --probe",),
        "docs/reading.md": (
            "sessions-pipeline materialize --from 2026-11-25 --to 2026-11-25 --select judge_cost_by_experiment",
            "sessions-pipeline export focus --month 2026-10 --output october.parquet",
            "doctor --probe",
        ),
        "docs/troubleshooting.md": ("sessions-pipeline doctor", "materialize … --select"),
        "docs/what-this-number-is.md": ("materialize … --select judge_cost_by_experiment",),
    },
    "end_to_end/test_shell_snippets.py::test_the_cron_line_reports_a_failure_only_when_nothing_is_fresh": {
        "docs/alerts.md": ("When nothing runs: cron",),
    },
    "end_to_end/test_shell_snippets.py::test_the_docs_lines_check_a_bucket": {
        "docs/object-storage.md": ("The data in a bucket: console",),
    },
    "end_to_end/test_readers.py::test_spark_prints_what_the_page_shows": {
        "docs/reading.md": ("Spark: python", "Spark: text"),
    },
    "end_to_end/test_readers.py::test_duckdbs_command_line_has_the_views": {
        "docs/reading.md": (
            ('duckdb -cmd "SET VARIABLE data_root = \'data/demo\'" -cmd ".read sessions_pipeline/outputs/lake.sql"'),
        ),
    },
    "end_to_end/test_readers.py::test_duckdb_reads_a_bucket": {
        "docs/object-storage.md": ("Read it: python",),
    },
    "integration/test_lake_s3.py::test_polars_reads_a_bucket_as_the_docs_say": {
        "docs/object-storage.md": (
            'pl.scan_parquet("s3://bucket/prefix/sessions/*/*.parquet", hive_partitioning=True)',
        ),
    },
    "integration/test_reading.py::test_recipes_print_what_the_page_shows": {
        "docs/reading.md": tuple(
            f"{tool}: {language}"
            for tool in ("In Python", "DuckDB", "Polars", "pandas", "PyArrow")
            for language in ("python", "text")
        ),
    },
    "integration/test_pipeline_recording.py::test_deleting_superseded_runs_leaves_the_latest_of_every_day_and_check": {
        "docs/deploy.md": ("Delete superseded runs: python",),
    },
    "integration/test_questions.py::test_the_answer_equals_one_computed_independently": {
        "docs/reading.md": ("DuckDB: sql",),
    },
    "integration/test_questions.py::test_the_readmes_lines_give_the_right_sum_on_the_demos_data": {
        "README.md": ("Reading the data: python",),
    },
    "integration/test_questions.py::test_read_takes_two_days_and_its_table_converts_to_pandas": {
        "README.md": (".to_pandas()",),
        "docs/reading.md": ('read("sessions", "2026-11-01", "2026-11-25")', ".to_pandas()"),
    },
    "integration/test_add_a_table.py::test_the_new_tables_own_test_passes_and_dagster_writes_a_day_that_can_be_read": {
        "CONTRIBUTING.md": (
            "Add a table: python",
            "materialize --select experiments_by_hour",
        ),
    },
    "integration/test_add_a_table.py::test_the_docs_and_the_view_are_generated": {
        "CONTRIBUTING.md": ("python docs/generate.py",),
        "docs/data-dictionary.md": ("python docs/generate.py",),
    },
    "unit/test_alerts_page.py::test_the_pages_budgets_are_valid_and_its_commands_run": {
        "docs/alerts.md": (
            "Budgets: toml",
            "Budgets: sh",
            "sessions-pipeline doctor --notify",
            "sessions-pipeline doctor --fresh",
        ),
    },
    "unit/test_alerts_page.py::test_a_budget_for_an_attribute_is_written_as_the_page_says": {
        "docs/alerts.md": ('attribute = "git.branch"', 'value = "main"'),
    },
    "unit/test_settings.py::test_a_query_is_written_as_the_docs_say": {
        "docs/settings.md": ('{"name_contains": "nightly"}',),
    },
    "unit/test_snippets.py::test_snippets_that_are_not_run_are_valid": {
        "CONTRIBUTING.md": ("apt-get install chromium",),
        "docs/performance.md": ("make bench FULL=1",),
    },
}
# What the test that claims it examines without running it, and why.
NOT_RUN = {
    "docs/deploy.md": {
        "Compose: console": "there is no Docker engine where the tests run; the Compose file fits its specification",
        "Kubernetes: console": "there is no cluster; the values are taken by Dagster and by Kubernetes' own models",
        "docker compose … up --detach": "the same as above, in short",
        "helm upgrade …": "the same as above, in short",
    },
    "CONTRIBUTING.md": {"apt-get install chromium": "it changes the machine; `.ci/run` installs that package"},
    "docs/performance.md": {"make bench FULL=1": "it takes hours; the same program takes these options"},
}
# Inline code with a space or a bracket that can't be run: types, messages, parts of requests and formulas.
NO_CODE = {
    "docs/api-versions.md": ("GET /api/v1/sessions", "GET /api/v2/sessions", "not testable", "n / 50"),
    "docs/data-dictionary.md": ("total_cost: is negative (-0.0012)", "field: what is wrong"),
    "docs/faults.md": ("items: null", "kill -9"),
    "docs/reading.md": ("decimal(38, 18)",),
}


@dataclass(frozen=True)
class Snippet:
    """A piece of code on a page, which a reader may copy. `language` is empty for inline code."""

    page: str
    heading: str
    language: str
    text: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which `RUN_BY` may list it."""
        if not self.language:
            return (self.text,)
        return (self.text.partition("\n")[0], f"{self.heading}: {self.language}")

    def __str__(self) -> str:
        return f"{self.page}: {self.names[0]}"


@cache
def snippets() -> tuple[Snippet, ...]:
    """The snippets of all pages, in order."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return tuple(snippet for page in pages for snippet in _of(page))


def snippets_of_heading(page: str, heading: str) -> list[Snippet]:
    """The snippets below a heading, in order."""
    return [snippet for snippet in snippets() if (snippet.page, snippet.heading) == (page, heading)]


def claims(snippet: Snippet) -> list[str]:
    """The tests that claim a snippet. There should be exactly one."""
    return [test for test, pages in RUN_BY.items() if set(snippet.names) & set(pages.get(snippet.page, ()))]


def each(test: Test) -> Test:
    """Run the test once for each snippet that it claims. A snippet that is on two pages runs once."""
    claimed = {snippet.text: snippet for snippet in _claimed_by(test)}.values()
    return pytest.mark.parametrize("snippet", claimed, ids=[snippet.names[0] for snippet in claimed])(test)


def together(test: Test) -> Test:
    """Run the test once, with the list of all snippets that it claims."""
    return pytest.mark.parametrize("snippets", [_claimed_by(test)], ids=["all"])(test)


def by_heading(test: Test) -> Test:
    """Run the test once for each heading, with the list of the snippets below it that the test claims."""
    claimed = _claimed_by(test)
    headings = dict.fromkeys((snippet.page, snippet.heading) for snippet in claimed)
    lists = [[snippet for snippet in claimed if (snippet.page, snippet.heading) == heading] for heading in headings]
    return pytest.mark.parametrize("snippets", lists, ids=[heading for _, heading in headings])(test)


def script(snippet: Snippet) -> str:
    """The snippet as a shell script: the `$ ` prompts of a `console` block are removed."""
    return re.sub(r"^\$ ", "", snippet.text, flags=re.MULTILINE) if snippet.language == "console" else snippet.text


def _claimed_by(test: Callable[..., None]) -> list[Snippet]:
    path = test.__module__.removeprefix(f"{__package__}.").replace(".", "/")
    found = [snippet for snippet in snippets() if claims(snippet) == [f"{path}.py::{test.__name__}"]]
    assert found, f"{test.__name__} claims no snippet"
    return found


def _of(page: Path) -> Iterator[Snippet]:
    text, name = page.read_text(), str(page.relative_to(ROOT))
    heads = [(match.start(), match[1]) for match in HEADING.finditer(FENCE.sub(_blank, text))]

    def heading(place: int) -> str:
        return [head for start, head in heads if start <= place][-1]

    for match in FENCE.finditer(text):
        yield Snippet(name, heading(match.start()), match[1], match[2])
    prose = FENCE.sub(_blank, text)
    if page.name == "troubleshooting.md":
        prose = MESSAGES.sub(_blank, prose)
    seen = set[str]()
    for match in INLINE.finditer(prose):
        code = " ".join(match[1].split())
        if re.search(r"[ (]", code) and code not in seen and code not in NO_CODE.get(name, ()):
            seen.add(code)
            yield Snippet(name, heading(match.start()), "", code)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])
