"""Limits on the package: lines of code, modules, functions, assets, dependencies, and uses of private names."""

import ast
import io
import re
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
TESTS = sorted(Path(__file__).parents[1].rglob("*.py"))
# Blank lines, comments and docstrings do not count, so that nobody saves on them.
MOST_LINES_OF_CODE = 8_911
MOST_LINES_OF_VALIDATION = 400
MOST_MODULES = 90
MOST_LINES_OF_A_MODULE = 255
MOST_LINES_OF_A_FUNCTION = 40
MOST_LINES_OF_CODE_OF_AN_ASSET = 15
MOST_DEPENDENCIES = 17
LEANS_ON_PRIVATE_PARTS_OF_DAGSTER = "orchestration/event_storage.py"
# Besides the settings: variables of Python, AWS, Dagster, and Arrow and glibc.
USE_THE_ENVIRONMENT = {
    "settings.py",
    "cli/__init__.py",
    "lake/s3.py",
    "orchestration/event_storage.py",
    "workers.py",
}
MOST_LINES_THAT_LEAN_ON_THEM = 120
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(path: Path) -> set[int]:
    """The numbers of the lines that count."""
    text = path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    for docstring in _docstrings(ast.parse(text)):
        lines -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines


def _docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield body[0]


def test_the_package_stays_within_its_limit_of_lines_of_code() -> None:
    assert sum(len(lines_of_code(module)) for module in MODULES) <= MOST_LINES_OF_CODE
    validation = PACKAGE.glob("validation/*.py")
    assert sum(len(lines_of_code(module)) for module in validation) <= MOST_LINES_OF_VALIDATION


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


def test_the_bodies_of_assets_and_their_checks_stay_short() -> None:
    bodies = {
        function.name: sum(line >= function.body[0].lineno for line in lines_of_code(module) if line <= _end(function))
        for module in MODULES
        for function in ast.walk(ast.parse(module.read_text()))
        if isinstance(function, ast.FunctionDef)
        and any(re.match(r"dg\.(multi_)?asset(_check)?\b", ast.unparse(one)) for one in function.decorator_list)
    }
    assert "daily_tables" in bodies
    assert {name: lines for name, lines in bodies.items() if lines > MOST_LINES_OF_CODE_OF_AN_ASSET} == {}


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def patched(source: str) -> set[str]:
    """The private names that a test's code replaces in other objects, by assignment or by a patch."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            found |= {node.attr} if ast.unparse(node.value) not in ("self", "cls") else set()
        elif isinstance(node, ast.Call) and re.search(r"(setattr|delattr|patch|object)$", ast.unparse(node.func)):
            given = [one.value for one in node.args[:2] if isinstance(one, ast.Constant)]
            found |= {part for text in given if isinstance(text, str) for part in text.split(".")}
    return {name for name in found if name.startswith("_")}


@pytest.mark.parametrize(
    "source",
    [
        "Transport.__init__.__kwdefaults__ = {}",
        "local._claim = None",
        "monkeypatch.setattr('sessions_pipeline.workers._cores', lambda: 2)",
        "monkeypatch.setattr(workers, '_cores', lambda: 2)",
        "with mock.patch.object(workers, '_cores'): pass",
        "del lake._store",
    ],
)
def test_a_patch_of_a_private_name_is_noticed(source: str) -> None:
    assert patched(source)
    assert not patched(source.replace("_", ""))


@pytest.mark.parametrize("module", TESTS, ids=lambda path: path.stem)
def test_no_test_patches_a_private_name(module: Path) -> None:
    assert patched(module.read_text()) == set()


def test_no_further_module_reads_or_writes_the_environment() -> None:
    using = {str(path.relative_to(PACKAGE)) for path in MODULES if re.search(r"os\.(environ|getenv)", path.read_text())}
    assert using == USE_THE_ENVIRONMENT


def test_only_one_module_uses_private_parts_of_dagster() -> None:
    private = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
        if name.startswith(("dagster._", "dagster_shared"))
    }
    assert private <= {LEANS_ON_PRIVATE_PARTS_OF_DAGSTER}
    assert len(lines_of_code(PACKAGE / LEANS_ON_PRIVATE_PARTS_OF_DAGSTER)) <= MOST_LINES_THAT_LEAN_ON_THEM


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
