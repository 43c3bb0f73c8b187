"""The data dictionary and the views of lake.sql follow from the tables' one definition."""

import importlib.util
from pathlib import Path

from sessions_pipeline.tables import TABLES

_SPEC = importlib.util.spec_from_file_location("generate", Path(__file__).parents[2] / "docs" / "generate.py")
assert _SPEC is not None
assert _SPEC.loader is not None
generate = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(generate)


def test_the_data_dictionary_is_current() -> None:
    assert generate.DICTIONARY.read_text() == generate.dictionary(), "run `python docs/generate.py`"


def test_the_views_of_lake_sql_are_current() -> None:
    text = generate.LAKE_SQL.read_text()
    assert text == generate.lake_sql(text), "run `python docs/generate.py`"


def test_the_data_dictionary_describes_every_column_of_every_table() -> None:
    sections = generate.dictionary().split("\n## ")[1:]
    for table, section in zip(TABLES, sections, strict=True):
        assert section.startswith(f"`{table.name}`\n")
        for column in table.columns:
            (line,) = [line for line in section.splitlines() if line.startswith(f"| `{column.name}` |")]
            assert line.endswith(f"| {'yes' if column.nullable else 'no'} | {column.description} |")
