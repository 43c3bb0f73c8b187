"""Write what follows from the tables' definitions: docs/data-dictionary.md, and the views in lake.sql.

`python docs/generate.py` writes both again; a test compares them with the tables.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from sessions_pipeline import outputs
from sessions_pipeline.tables import TABLES, Table

DICTIONARY = Path(__file__).with_name("data-dictionary.md")
LAKE_SQL = Path(outputs.__file__).with_name("lake.sql")
BEGIN, END = "-- Views of the tables, written by docs/generate.py.\n", "-- End of the views.\n"
_INTRODUCTION = """\
# Data dictionary

Written by `python docs/generate.py` from the files in `sessions_pipeline/tables/`; change it there.

All times are UTC. Null means unknown or not there, never zero. Money is US dollars as exact decimals. How to read the
tables is in [reading.md](reading.md).
"""


def dictionary() -> str:
    """The data dictionary as Markdown."""
    return "\n".join([_INTRODUCTION, *(line for table in TABLES for line in _section(table))])


def views() -> str:
    """A DuckDB view of each table, right in DuckDB 1.4 too; it has columns and types where no file is there, either."""
    return "".join(map(_view, TABLES))


def lake_sql(text: str) -> str:
    """The text of lake.sql with its views written again."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{views()}{END}{rest.split(END)[1]}"


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


def _view(table: Table) -> str:
    source = {None: "file_of", "start_date": "days_of"}.get(table.partition, "usage_of")
    empty = duckdb.from_arrow(table.schema.empty_table())
    kinds = [str(kind).replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for kind in empty.types]
    columns = [f"{name} {kind}" for name, kind in zip(empty.columns, kinds, strict=True)]
    if table.partition is not None:
        columns.append(f"{table.partition} DATE")
    wrapped = textwrap.fill(", ".join(columns), 112, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"""\
CREATE OR REPLACE VIEW {table.name} AS FROM query(
    statement_of('{source}', '{table.name}', '
{wrapped}
    ')
);
"""


if __name__ == "__main__":
    DICTIONARY.write_text(dictionary())
    LAKE_SQL.write_text(lake_sql(LAKE_SQL.read_text()))
