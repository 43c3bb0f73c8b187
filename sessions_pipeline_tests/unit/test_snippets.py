"""Every snippet in the docs is run by a test, or is listed with the reason why not."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sessions_pipeline.cli import cli
from sessions_pipeline_tests.snippets import NO_CODE, NOT_RUN, ROOT, RUN_BY, Snippet, claims, each, snippets

DECORATORS = {"each", "together", "by_heading"}
MOST_NOT_RUN = 6
# An option as inline code.
OPTION = re.compile(r"`(--[a-z-]+)`")


def hands_out_snippets(test: str) -> bool:
    """Whether the test exists and has a decorator that passes it its snippets."""
    file, _, name = test.partition("::")
    tree = ast.parse((Path(__file__).parents[1] / file).read_text())
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return any(ast.unparse(decorator) in DECORATORS for node in found for decorator in node.decorator_list)


@pytest.mark.parametrize("snippet", snippets(), ids=str)
def test_every_snippet_is_run_by_exactly_one_test(snippet: Snippet) -> None:
    tests = claims(snippet)
    assert len(tests) == 1, f"{snippet}: name the test that runs it in sessions_pipeline_tests/snippets.py, not {tests}"


@pytest.mark.parametrize("test", RUN_BY)
def test_every_test_that_claims_snippets_exists_and_receives_them(test: str) -> None:
    assert hands_out_snippets(test)


def test_every_claimed_snippet_is_in_the_docs() -> None:
    named = {(page, name) for pages in (*RUN_BY.values(), NOT_RUN) for page, names in pages.items() for name in names}
    assert named - {(snippet.page, name) for snippet in snippets() for name in snippet.names} == set()
    texts = {page: (ROOT / page).read_text() for page in NO_CODE}
    assert [name for page, names in NO_CODE.items() for name in names if f"`{name}`" not in texts[page]] == []


def test_only_a_few_snippets_are_not_run_and_each_has_a_reason() -> None:
    reasons = [reason for page in NOT_RUN.values() for reason in page.values()]
    assert all(reasons)
    assert len(reasons) <= MOST_NOT_RUN


@each
def test_snippets_that_are_not_run_are_valid(snippet: Snippet) -> None:
    program, verb, *rest = snippet.text.split()
    if program == "apt-get":
        assert re.search(rf"missing\+=\({rest[0]}\b", (ROOT / ".ci" / "run").read_text())
        return
    # Without the variables of a `make` that may run these tests.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    words = ["make", "-n", verb, *rest]
    dry = subprocess.run(words, cwd=ROOT, env=own, capture_output=True, text=True, check=True).stdout
    _python, script, *options = dry.splitlines()[-1].split()
    usage = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert options
    assert all(option in usage.stdout for option in options)


def test_every_option_in_the_text_is_an_option_of_a_command() -> None:
    commands: list[click.Command] = [cli]
    for command in commands:
        commands += command.commands.values() if isinstance(command, click.Group) else ()
    options = {name for command in commands for parameter in command.params for name in parameter.opts}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {option for page in pages for option in OPTION.findall(page.read_text())}
    assert len(named) > 3
    assert named <= {*options, "--help"}
