"""docs/faults.md and docs/guarantees.md name what there is: every fault, and no test or module that is not there."""

import re
from itertools import pairwise
from pathlib import Path

from sessions_pipeline_tests.faulty_server import KINDS
from sessions_pipeline_tests.integration.test_pipeline_faults import FINAL, PASSING

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_page_lists_every_fault() -> None:
    page = PAGE.read_text()
    assert [case.name for case in [*PASSING, *FINAL] if f"| {case.name} |" not in page] == []
    # Of the faults that only concern versions of the API, docs/api-versions.md tells.
    kinds = {case.fault.kind for case in [*PASSING, *FINAL]} | {"redirect", "gone", "same_cursor", "no_datasets"}
    assert set(KINDS) == kinds


def test_every_row_of_the_page_has_its_test_and_every_test_is_there() -> None:
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


def test_the_page_of_guarantees_names_files_that_are_there() -> None:
    page = (PAGE.parent / "guarantees.md").read_text()
    root = PAGE.parents[1]
    there = {
        path.name
        for folder in ("sessions_pipeline", "sessions_pipeline_tests")
        for path in (root / folder).rglob("*.py")
    }
    named = re.findall(r"`(?:\w+/)*(\w+\.py)`", page)
    assert len(named) > 40
    assert set(named) - there == set()
