"""docs/faults.md lists every fault, and it and docs/guarantees.md name only tests and modules that exist."""

import re
from itertools import pairwise
from pathlib import Path

from sessions_pipeline_tests.faulty_server import KINDS
from sessions_pipeline_tests.integration.test_pipeline_faults import FINAL, PASSING

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_page_lists_every_fault() -> None:
    page = PAGE.read_text()
    assert [case.name for case in [*PASSING, *FINAL] if f"| {case.name} |" not in page] == []
    # docs/api-versions.md describes the faults that only concern versions of the API. A date alone is no fault.
    others = {"redirect", "gone", "same_cursor", "no_datasets", "date"}
    kinds = {case.fault.kind for case in [*PASSING, *FINAL]} | others
    assert set(KINDS) == kinds


def test_every_row_of_the_page_of_faults_names_tests_that_exist() -> None:
    sections = re.split(r"\n\n(?=\|)", PAGE.read_text())
    for above, table in pairwise(sections):
        rows = table.split("\n\n")[0].splitlines()[2:]
        has_test = "`test_" in above.split("\n\n")[-1]
        assert [row for row in rows if not has_test and "`test_" not in row] == []
    defined = {
        name
        for path in Path(__file__).parents[1].rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert len(named) > 60
    assert named - defined == set()


def test_every_row_of_the_page_of_guarantees_names_code_and_tests_that_exist() -> None:
    package, tests = PAGE.parents[1] / "sessions_pipeline", PAGE.parents[1] / "sessions_pipeline_tests"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    files = {path.name for path in tests.rglob("test_*.py")}
    rows = [line.split(" | ") for line in (PAGE.parent / "guarantees.md").read_text().splitlines() if "| **" in line]
    assert len(rows) > 25
    for promise, _, where, shown_by in rows:
        named = re.findall(r"`(\S+\.py)`", where)
        assert named or "`tables/`" in where, promise
        assert set(named) <= modules, promise
        assert files & set(re.findall(r"`(test_\w+\.py)`", shown_by)), promise
        assert files >= set(re.findall(r"`(test_\w+\.py)`", shown_by)), promise
