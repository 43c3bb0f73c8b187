"""The data dictionary and the views of lake.sql are up to date with the definitions of the tables."""

from sessions_pipeline.tables import TABLES
from sessions_pipeline_tests.scripts import load

generate = load("docs/generate.py")


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
