"""The docs are short and in plain words, and they quote messages, settings and files that exist."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import sessions_pipeline
from sessions_pipeline.langsmith.api_versions import VERSIONS
from sessions_pipeline.langsmith.probe import ASSUMPTIONS
from sessions_pipeline.settings import Settings

ROOT = Path(__file__).parents[2]
GENERATED = "data-dictionary.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROSE = [page for page in PAGES if page.name != GENERATED]
MOST_WORDS = 9_000
CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
# Odd words that readers stumble over. Write "most expensive", "correct" or "rarely" instead, for example.
ODD = re.compile(r"\b(dearest|dearer|honesty|mends?|mended|for ever|seldom)\b", re.IGNORECASE)


def words(page: Path) -> int:
    """The number of words on a page without its code blocks. A word has at least one letter or digit."""
    return sum(bool(re.search(r"\w", word)) for word in CODE.sub("", page.read_text()).split())


def texts() -> str:
    """All string literals of the package's code, without the variable parts of f-strings."""
    modules = Path(sessions_pipeline.__file__).parent.rglob("*.py")
    nodes = (node for module in modules for node in ast.walk(ast.parse(module.read_text())))
    return "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_the_docs_stay_within_their_limit_of_words() -> None:
    assert sum(map(words, PROSE)) <= MOST_WORDS, {page.name: words(page) for page in PROSE}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_a_page_uses_no_odd_words(page: Path) -> None:
    assert ODD.findall(CODE.sub("", page.read_text())) == []


def test_every_message_on_the_troubleshooting_page_is_in_the_code() -> None:
    cells = re.findall(r"^\| (`.*?`) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    messages = [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]
    said = texts()
    parts = [part.strip() for message in messages for part in message.split("…") if part.strip()]
    assert len(messages) > 20
    assert [part for part in parts if part not in said] == []


def test_every_setting_is_on_its_page() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    aliases = [field.validation_alias for name, field in Settings.model_fields.items() if name != "warnings"]
    names = [name for alias in aliases for name in getattr(alias, "choices", [alias])]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_versions_of_the_api_are_one_list_for_the_setting_the_doctor_and_the_docs() -> None:
    values = get_args(Settings.model_fields["api_version"].annotation)
    assert values == (*VERSIONS, "auto")
    assert set(ASSUMPTIONS) == set(VERSIONS.values())
    for page in ("settings.md", "api-versions.md"):
        [row] = re.findall(r"^\| .*`v1`.*", (ROOT / "docs" / page).read_text(), re.MULTILINE)
        assert [f"`{version}`" for version in VERSIONS if f"`{version}`" not in row] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_table_is_empty(page: Path) -> None:
    text = CODE.sub("", page.read_text())
    assert re.findall(r"^\|(?: *:?-+:? *\|)+\n(?!\| *\S)", text + "\n", re.MULTILINE) == []
    assert re.findall(r"<!-- (\w+) -->\s*<!-- /\1 -->", text) == []


def test_contributing_names_only_files_that_exist() -> None:
    text = CODE.sub("", (ROOT / "CONTRIBUTING.md").read_text())
    named = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|yaml|md))`", text))
    folders = (ROOT / "sessions_pipeline", ROOT / "sessions_pipeline_tests", ROOT)
    assert len(named) > 15
    assert {name for name in named if not any((folder / name).is_file() for folder in folders)} == set()
