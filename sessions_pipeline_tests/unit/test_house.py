"""Limits on the package: lines of code, modules, functions, dependencies, and uses of private parts of Dagster."""

import ast
import io
import runpy
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sessions_pipeline

PACKAGE = Path(sessions_pipeline.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Blank lines, comments and docstrings do not count, so that nobody saves on them.
MOST_LINES_OF_CODE = 8_922
MOST_MODULES = 90
MOST_LINES_OF_A_MODULE = 255
MOST_LINES_OF_A_FUNCTION = 45
MOST_DEPENDENCIES = 18
LEANS_ON_PRIVATE_PARTS_OF_DAGSTER = "orchestration/event_storage.py"
MOST_LINES_THAT_LEAN_ON_THEM = 120
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(path: Path) -> int:
    text = path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    for docstring in _docstrings(ast.parse(text)):
        lines -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines)


def _docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield body[0]


def test_the_package_stays_within_its_limit_of_lines_of_code() -> None:
    assert sum(map(lines_of_code, MODULES)) <= MOST_LINES_OF_CODE


def test_the_package_stays_within_its_limit_of_modules() -> None:
    assert len(MODULES) <= MOST_MODULES


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_and_its_functions_stay_short(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= MOST_LINES_OF_A_MODULE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    long = {
        f.name: (f.end_lineno or 0) - f.lineno
        for f in functions
        if (f.end_lineno or 0) - f.lineno > MOST_LINES_OF_A_FUNCTION
    }
    assert long == {}


def test_only_one_module_uses_private_parts_of_dagster() -> None:
    private = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
        if name.startswith(("dagster._", "dagster_shared"))
    }
    assert private <= {LEANS_ON_PRIVATE_PARTS_OF_DAGSTER}
    assert lines_of_code(PACKAGE / LEANS_ON_PRIVATE_PARTS_OF_DAGSTER) <= MOST_LINES_THAT_LEAN_ON_THEM


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_the_package_has_few_dependencies() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) <= MOST_DEPENDENCIES


@pytest.mark.parametrize("fault", runpy.run_path(str(PACKAGE.parent / "tools" / "faults.py"))["FAULTS"], ids=str)
def test_a_fault_of_the_mutation_test_can_be_put_into_the_code(fault: Any) -> None:
    assert (PACKAGE / f"{fault.file}.py").read_text().count(fault.text) == 1
    assert (PACKAGE.parent / f"{fault.tests}.py").is_file()
