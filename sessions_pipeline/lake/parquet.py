"""Encoding one day of a table as a Parquet file, and decoding it.

The settings were measured with 1,100 sessions of 1.5 kB per day on two cores (pyarrow 26): zstd level 1 takes 3.5 ms
per file, level 3 takes 6.9 ms for the same file size. Dictionaries for repeated values save nothing beside zstd: files
of 100 sessions are 4 % smaller without them, those of 1,800 are 2 % larger, and writing is no slower. Statistics of
columns that the rows are not sorted by would be a tenth of a small file, and let readers skip next to nothing.

Rows are written and read one row group at a time, with at most `BYTES_PER_GROUP` in each, unless one part of the `Rows`
has more. So a large day need not be in memory uncompressed, and no Arrow string array comes near its limit of 2 GiB.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sessions_pipeline.errors import BrokenError, LakeError
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.lake.store import Store
from sessions_pipeline.tables import FROM_API, RAW_SESSIONS, Table
from sessions_pipeline.tables.rows import Rows, release

ROWS_PER_GROUP = 65_536
BYTES_PER_GROUP = 16 * 1024 * 1024
COMPRESSION_LEVEL = 1
# So many days' arrays become one: each array has overhead, and those of small days take several times their values.
DAYS_AT_ONCE = 32

# Marks a file as ours. Another program that rewrites the file drops this key, along with our other metadata.
_TABLE = "sessions_pipeline.table"

_RESTORE = "restore it from a backup: deleting it would lose its history, which the API may no longer have"
_OR_DELETE = "restore it from a backup, or delete it and materialize {}: only what the API no longer has is then lost"


class Stored(NamedTuple):
    """A stored day: its rows, its metadata and its version, all from the same file."""

    parts: Rows
    metadata: dict[str, str]
    version: str

    @property
    def rows(self) -> pa.Table:
        """All rows at once."""
        return self.parts.table()


class UnreadableError(Exception):
    """A file is not a readable Parquet file of its table; the text says why, in one line."""


def encode(table: Table, data: pa.Table | Rows, metadata: Mapping[str, str]) -> pa.Buffer:
    """Encode `data` as a Parquet file with the columns, types, descriptions and row order of `table`.

    Equal input gives equal bytes.

    Args:
        table: the table.
        data: the rows, in any order, with the table's columns in any order.
        metadata: stored in the file's key-value metadata.

    Raises:
        KeyError, TypeError, ValueError: a column is missing or has a wrong type, or one that is not nullable has nulls
            (of lists, Parquet's writer does not check that); a bug in the caller.
    """
    if isinstance(data, pa.Table):
        for field in table.schema:
            # Arrow would convert it, even floats to decimals.
            if (found := data.schema.field(field.name).type) != field.type:
                raise TypeError(f"{table.name}.{field.name}: {found} is not {field.type}")
        data = Rows(table.schema, [data])
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **_options(table)) as writer:
        # Not as metadata of the schema, which Arrow would store a second time in its own key.
        writer.add_key_value_metadata({_TABLE: table.name, **metadata})
        for group in _groups(table, data):
            writer.write_table(group, ROWS_PER_GROUP)
            del group
            if data.nbytes > BYTES_PER_GROUP:
                release()
    return sink.getvalue()


def decode(table: Table, source: pa.NativeFile, columns: Sequence[str] | None) -> tuple[Rows, dict[str, str] | None]:
    """The rows of one file, with all columns of `table` or the given ones, and the file's metadata.

    The metadata is None if another program has written the file. With `columns=()` only the end of the file is read,
    and the rows have a number, but no columns.

    Raises:
        UnreadableError: the file is broken or lacks a requested column; with `columns=()`, any column of the table.
    """
    schema = table.schema if columns is None else pa.schema([table.schema.field(name) for name in columns])
    rows = Rows(schema)
    try:
        # A day's file is so small that reading it takes less time than handing it to Arrow's threads. So don't prefetch
        # (`pre_buffer`) and don't use threads.
        with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as file:
            if missing := sorted({*(schema.names or table.schema.names)} - {*file.schema_arrow.names}):
                # Also checked if only the metadata is read, so that a file from before a column was added is replaced.
                raise UnreadableError(f"without {', '.join(missing)}")
            for group in range(file.num_row_groups) if schema.names else ():
                part = file.read_row_group(group, columns=schema.names, use_threads=False)
                rows.add(part.select(schema.names).cast(schema))
            rows.num_rows = file.metadata.num_rows
            stored = {key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UnreadableError(" ".join(str(error).split())[:200]) from error
    stored.pop("ARROW:schema", None)
    return rows, stored if stored.pop(_TABLE, None) == table.name else None


def load(store: Store, table: Table, key: str, columns: Sequence[str] | None) -> Stored | None:
    """The stored file at `key`; None if there is none. See `Lake.load`.

    Raises:
        BrokenError: it is not a readable Parquet file of this table.
        LakeError: it is a file of `raw_sessions` that another program has written.
    """
    try:
        source, version = store.open(key, whole=columns != ())
    except FileNotFoundError:
        return None
    try:
        with source:
            rows, metadata = decode(table, source, columns)
    except UnreadableError as error:
        again = _OR_DELETE if table in FROM_API else "materialize {} again, from stored data"
        advice = _RESTORE if table is RAW_SESSIONS else again.format(table.name)
        text = f"{store.uri(key)}: not a readable Parquet file of this table ({error}); {advice}"
        raise BrokenError(text, version) from error
    if metadata is None and table is RAW_SESSIONS:
        # Without the readings in its metadata, which its rows refer to, they are useless.
        raise LakeError(
            f"{store.uri(key)}: another program wrote it, without the metadata that says what was read when; {_RESTORE}"
        )
    return Stored(rows, metadata or {}, version)


def joined(table: Table, days: Iterable[tuple[Day, pa.Table]], columns: Sequence[str] | None) -> pa.Table:
    """The rows of several days of a partitioned table, with the partition column last (date32).

    Peaks at little more memory than their size.
    """
    partition = pa.field(table.partition_column, pa.date32())
    fields = table.schema if columns is None else [table.schema.field(name) for name in columns]
    joined, parts = [pa.schema([*fields, partition]).empty_table()], list[pa.Table]()
    for day, rows in days:
        parts.append(rows.append_column(partition, pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows)))
        if len(parts) == DAYS_AT_ONCE:
            joined.append(pa.concat_tables(parts).combine_chunks())
            parts.clear()
    return pa.concat_tables([*joined, *parts])


def _groups(table: Table, rows: Rows) -> Iterator[pa.Table]:
    """The sorted rows, one row group at a time; a single empty group if there are no rows."""
    group, size = list[pa.Table](), 0
    for part in rows.in_order(*table.order):
        if size and size + part.nbytes > BYTES_PER_GROUP:
            yield pa.concat_tables(group)
            group, size = [], 0
        group.append(part)
        # Rows that fit into one group are not measured again, which would take a twentieth of a small day's time.
        size += part.nbytes if rows.nbytes > BYTES_PER_GROUP else 0
    yield pa.concat_tables(group or [table.schema.empty_table()])


@cache
def _options(table: Table) -> dict[str, Any]:
    """The options for `pyarrow.parquet.ParquetWriter`."""
    return {
        "compression": "zstd",
        "compression_level": COMPRESSION_LEVEL,
        "use_dictionary": False,
        "write_statistics": list(table.order),
        "write_page_checksum": True,
        "sorting_columns": pq.SortingColumn.from_ordering(table.schema, [(name, "ascending") for name in table.order]),
    }
