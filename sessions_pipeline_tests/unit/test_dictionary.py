"""docs/data-dictionary.md follows from the one definition of the columns."""

from pathlib import Path

from sessions_pipeline.tables import TABLES
from sessions_pipeline.tables.dictionary import dictionary

PAGE = Path(__file__).parents[2] / "docs" / "data-dictionary.md"


def test_the_data_dictionary_is_current() -> None:
    assert PAGE.read_text() == dictionary()


def test_the_data_dictionary_describes_every_column_of_every_table() -> None:
    sections = dictionary().split("\n## ")[1:]
    for table, section in zip(TABLES, sections, strict=True):
        assert section.startswith(f"`{table.name}`\n")
        for column in table.columns:
            (line,) = [line for line in section.splitlines() if line.startswith(f"| `{column.name}` |")]
            assert line.endswith(f"| {'yes' if column.nullable else 'no'} | {column.description} |")
