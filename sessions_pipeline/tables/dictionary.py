"""The data dictionary: every table and column of the lake as a Markdown page, made from their one definition.

`python -m sessions_pipeline.tables.dictionary > docs/data-dictionary.md` writes it again.
"""

import sys
from collections.abc import Iterator

import pyarrow as pa

from sessions_pipeline.tables import TABLES, Table

_INTRODUCTION = """\
# Data dictionary

Made from `sessions_pipeline/tables/columns.py` by `python -m sessions_pipeline.tables.dictionary`; change it there.

All times are UTC. Null means unknown or not there, never zero. Money is US dollars as exact decimals. How to read the
tables is in [reading.md](reading.md).
"""


def dictionary() -> str:
    """The page as Markdown text."""
    return "\n".join([_INTRODUCTION, *(line for table in TABLES for line in _section(table))])


def _section(table: Table) -> Iterator[str]:
    yield f"## `{table.name}`\n"
    yield f"{table.description} Rows are ordered by {', '.join(f'`{name}`' for name in table.order)}."
    if table.partition is None:
        yield f"One file, `{table.name}/{table.name}.parquet`.\n"
    else:
        yield f"One file a day, `{table.name}/{table.partition}=YYYY-MM-DD/{table.name}.parquet`.\n"
    yield "| column | type | null | meaning |\n|---|---|---|---|"
    for column in table.columns:
        description = column.description.replace("|", "\\|")
        yield f"| `{column.name}` | {_spell(column.type)} | {'yes' if column.nullable else 'no'} | {description} |"
    yield ""


def _spell(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_spell(kind.value_type)}"
    if pa.types.is_struct(kind):
        return f"struct ({', '.join(f'`{field.name}` {_spell(field.type)}' for field in kind)})"
    return str(kind).replace("tz=", "")


if __name__ == "__main__":
    sys.stdout.write(dictionary())
