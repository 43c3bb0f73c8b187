"""Write what follows from the tables' definitions: docs/data-dictionary.md, and the views in lake.sql.

`python docs/generate.py` writes both again; a test compares them with the tables.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from sessions_pipeline import outputs
from sessions_pipeline.tables import TABLES, Table

DICTIONARY = Path(__file__).with_name("data-dictionary.md")
LAKE_SQL = Path(outputs.__file__).with_name("lake.sql")
BEGIN, END = "-- Views of the tables, written by docs/generate.py.\n", "-- End of the views.\n"
# Made by jobs of their own, perhaps not yet, and DuckDB makes no view of files that are not there.
NOT_YET_PERHAPS = ("daily_cost_by_project", "reference_datasets")
EMPTY_AT_FIRST = ("judge_cost_by_experiment",)
SQL_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "timestamp[us, tz=UTC]": "TIMESTAMPTZ"}
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
    """A DuckDB view of each table that a refresh makes, right in DuckDB 1.4 too."""
    return "".join(_view(table) for table in TABLES if table.name not in NOT_YET_PERHAPS)


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
    if table.name in EMPTY_AT_FIRST:
        return _view_of_what_may_not_be_there(table)
    source = "file_of" if table.partition is None else "days_of"
    return f"CREATE OR REPLACE VIEW {table.name} AS FROM {source}('{table.name}');\n"


def _view_of_what_may_not_be_there(table: Table) -> str:
    """Without rows, where there is no file of the table when lake.sql is run."""
    kinds = {column.name: SQL_TYPES.get(str(column.type), "DECIMAL(38, 18)") for column in table.columns}
    nulls = ", ".join(f"NULL::{kind} AS {name}" for name, kind in {**kinds, "start_date": "DATE"}.items())
    return f"""\
SET VARIABLE {table.name} = (
    SELECT if(
        count(*) > 0,
        'FROM days_of(''{table.name}'')',
        'SELECT {nulls} WHERE false'
    )
    FROM glob(getvariable('data_root') || '/{table.name}/*/*.parquet')
);
CREATE OR REPLACE VIEW {table.name} AS FROM query(getvariable('{table.name}'));
"""


if __name__ == "__main__":
    DICTIONARY.write_text(dictionary())
    LAKE_SQL.write_text(lake_sql(LAKE_SQL.read_text()))
