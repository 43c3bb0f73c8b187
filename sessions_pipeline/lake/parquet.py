"""One day of a table as the bytes of one Parquet file, and back.

The settings were measured with 1,100 sessions of 1.5 kB a day on two cores (pyarrow 26): zstd level 1 takes 3.5 ms a
file and level 3 takes 6.9 ms for files of the same size; a dictionary of the payloads costs another 10 % and is thrown
away by the writer in the end.

A row group is made at a time, and holds no more text than `BYTES_PER_GROUP`: Arrow's texts end at 2 GiB in one piece,
and what is sorted or put together here is never more than a group.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake.store import Store
from sessions_pipeline.tables import Table
from sessions_pipeline.validation.rows import Rows, release

ROWS_PER_GROUP = 65_536
BYTES_PER_GROUP = 16 * 1024 * 1024
COMPRESSION_LEVEL = 1

# Whose file it is: a program that rewrites a file drops what it does not know, and with it what we keep there.
_TABLE = "sessions_pipeline.table"

# What the API said at a time: nothing makes these again.
_SOURCES = frozenset(["raw_sessions", "daily_cost_by_project", "reference_datasets", "judge_cost_by_experiment"])
# Their metadata says which readings the rows come from, so rows without it are of no use.
_NEEDS_METADATA = "raw_sessions"
_HISTORY = "put it back from a backup, since deleting it loses the history of its day, which the API may no longer have"


class Stored(NamedTuple):
    """A day as `Lake.load` found it: all of it from one file, of this version."""

    parts: Rows
    metadata: dict[str, str]
    version: str

    @property
    def rows(self) -> pa.Table:
        """All rows at once."""
        return self.parts.table()


class BrokenError(LakeError):
    """A file can't be read; `version` says which it was."""

    # Without a default it could not come out of a worker process.
    def __init__(self, message: str, version: str = "") -> None:
        super().__init__(message)
        self.version = version


class UnreadableError(Exception):
    """A file is no readable Parquet file of its table; the text says why, in one line."""


def encode(
    table: Table, data: pa.Table | Rows, metadata: Mapping[str, str], *, bytes_per_group: int = BYTES_PER_GROUP
) -> pa.Buffer:
    """The Parquet file of `data`: columns, types, descriptions and row order of `table`; equal bytes on equal input.

    `metadata` is stored in the file's own key-value metadata. A row group's texts end at `bytes_per_group` or with
    their first row.

    Raises:
        TypeError, ValueError: the data does not have the table's schema, or a null where there may be none: a fault
            of the program that made it.
    """
    rows = data if isinstance(data, Rows) else Rows(table.schema, [_conform(table, data)])
    schema = table.schema.with_metadata({_TABLE: table.name, **metadata})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, **_options(table)) as writer:
        for group in _groups(table, rows, bytes_per_group):
            writer.write_table(_conform(table, group).combine_chunks())
            del group
            if rows.nbytes > bytes_per_group:
                release()
    return sink.getvalue()


def decode(table: Table, source: pa.NativeFile, columns: Sequence[str] | None) -> tuple[Rows, dict[str, str] | None]:
    """The rows of one file, with the schema of `table` or those of its `columns` that are asked for, and its metadata.

    The metadata is None if another program wrote the file. Without any columns only the end of the file is needed.

    Raises:
        UnreadableError: the file is broken, or lacks a column; any of the table's, if none is asked for.
    """
    schema = table.schema if columns is None else pa.schema([table.schema.field(name) for name in columns])
    rows = Rows(schema)
    try:
        # Read here and now: what is handed to Arrow's threads ahead takes longer to hand over than to read.
        with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as file:
            if lacking := sorted({*(schema.names or table.schema.names)} - {*file.schema_arrow.names}):
                # Read for its metadata alone, too: a file from before a column was added is to be made again.
                raise UnreadableError(f"without {', '.join(lacking)}")
            for group in range(file.num_row_groups) if schema.names else ():
                # In this thread: a day's file is so small that others take longer to be told than to read it.
                found = file.read_row_group(group, columns=schema.names, use_threads=False).select(schema.names)
                rows.add(
                    found if found.schema.types == schema.types and _is_whole(found, schema) else found.cast(schema)
                )
            stored = {key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UnreadableError(" ".join(str(error).split())[:200]) from error
    stored.pop("ARROW:schema", None)
    return rows, stored if stored.pop(_TABLE, None) == table.name else None


def load(store: Store, table: Table, key: str, columns: Sequence[str] | None) -> Stored | None:
    """What is stored under the key, by one opening; None if there is no file. See `Lake.load`.

    Raises:
        BrokenError: it is no readable Parquet file of this table.
        LakeError: it is a raw one that another program wrote.
    """
    try:
        source, version = store.open(key, whole=columns != ())
    except FileNotFoundError:
        return None
    try:
        with source:
            rows, metadata = decode(table, source, columns)
    except UnreadableError as error:
        advice = _HISTORY if table.name in _SOURCES else f"materialize {table.name} again, from what is stored"
        text = f"{store.uri(key)}: not a readable Parquet file of this table ({error}); {advice}"
        raise BrokenError(text, version) from error
    if metadata is None and table.name == _NEEDS_METADATA:
        raise LakeError(
            f"{store.uri(key)}: another program wrote it, without the metadata that says what was read when; {_HISTORY}"
        )
    return Stored(rows, metadata or {}, version)


def _conform(table: Table, data: pa.Table) -> pa.Table:
    if sorted(data.schema.names) != sorted(table.schema.names):
        wrong = sorted(set(data.schema.names) ^ set(table.schema.names)) or "a column given twice"
        raise ValueError(f"{table.name}: columns differ from the table's: {wrong}")
    data = data.select(table.schema.names)
    for want, column in zip(table.schema, data.columns, strict=True):
        if column.type != want.type:
            raise TypeError(f"{table.name}.{want.name}: {column.type} is not {want.type}")
        if column.null_count and not want.nullable:
            raise ValueError(f"{table.name}.{want.name}: {column.null_count} nulls where there may be none")
    return data


def _is_whole(rows: pa.Table, schema: pa.Schema) -> bool:
    return all(field.nullable or not column.null_count for field, column in zip(schema, rows.columns, strict=True))


def _groups(table: Table, rows: Rows, most: int) -> Iterator[pa.Table]:
    """The rows in order, a row group at a time; one group without rows if there are none."""
    long = next((column.name for column in table.columns if column.long_text and column.name in table.order), None)
    parts = rows.in_order(*table.order, long=long)
    if rows.nbytes <= most and rows.num_rows <= ROWS_PER_GROUP:
        yield pa.concat_tables([*parts] or [table.schema.empty_table()])
        return
    held, count, size = list[pa.Table](), 0, 0
    for part in parts:
        start = 0
        for row, bytes_ in enumerate(_text_sizes(part).to_pylist()):
            if count and (size + bytes_ > most or count == ROWS_PER_GROUP):
                held.append(part.slice(start, row - start))
                yield pa.concat_tables(held)
                held, start, count, size = [], row, 0, 0
            count, size = count + 1, size + bytes_
        held.append(part.slice(start))
    yield pa.concat_tables(held)


def _text_sizes(data: pa.Table) -> "pa.Array[Any]":
    """How many bytes of text each row has."""
    total = pa.repeat(pa.scalar(0, pa.int64()), data.num_rows)
    for column in data.columns:
        if column.type == pa.string():
            sizes = pc.fill_null(pc.binary_length(column).cast(pa.int64()), 0)
            total = pc.add(total, sizes.combine_chunks())
    return total


@cache
def _options(table: Table) -> dict[str, Any]:
    leaves = [(column, leaf) for column in table.columns for leaf in _leaves(column.name, column.type)]
    return {
        "compression": "zstd",
        "compression_level": COMPRESSION_LEVEL,
        "use_dictionary": [leaf for column, leaf in leaves if column.repeats],
        "write_statistics": [leaf for column, leaf in leaves if not column.long_text],
        "write_page_checksum": True,
        "sorting_columns": pq.SortingColumn.from_ordering(table.schema, [(name, "ascending") for name in table.order]),
    }


def _leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path
