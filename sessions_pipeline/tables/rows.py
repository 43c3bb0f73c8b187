"""Holds the rows of a table in parts of a few thousand, so that a large day does not need much more memory.

A usual day is kept uncompressed. The further parts of a large day are compressed, to a quarter of their size.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import ceil
from typing import Any, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

# Rows in a part, which is also how many are turned into Python values at a time.
PART = 4096
# Bytes kept uncompressed, some 10,000 sessions. A larger limit would add 50 MB to the peak of a day of 200,000.
PLAIN = 16 * 1024 * 1024
_PACKED = pa.ipc.IpcWriteOptions(compression="zstd")

Constants: TypeAlias = "Mapping[str, pa.Scalar[Any]]"
_DRAINED: tuple[pa.Table, Constants] = pa.table({}), {}


class Rows:
    """Rows of one schema, in order. The texts of a part fit into one Arrow array (2 GB); those of all need not.

    Rows beyond `plain` bytes are compressed, and more than `plain` bytes are sorted `plain` bytes at a time.
    """

    def __init__(self, schema: pa.Schema, tables: Iterable[pa.Table] = (), *, plain: int = PLAIN) -> None:
        self.schema = schema
        self.num_rows = 0
        self.nbytes = 0
        self._plain = plain
        self._parts: list[tuple[pa.Table | pa.Buffer, Constants]] = []
        for table in tables:
            self.add(table)

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table that has the schema's columns, in any order."""
        for batch in table.select(self.schema.names).to_batches(max_chunksize=PART):
            self.num_rows += batch.num_rows
            self.nbytes += batch.nbytes
            is_plain = self.nbytes <= self._plain
            part = pa.Table.from_arrays(batch.columns, schema=self.schema) if is_plain else _pack(batch)
            self._parts.append((part, {}))

    def joined(self, more: "Rows", **constants: "pa.Scalar[Any]") -> Self:
        """These rows followed by those of `more`, to which constant columns are added. Nothing is copied."""
        both = type(self)(self.schema)
        both.num_rows, both.nbytes = self.num_rows + more.num_rows, self.nbytes + more.nbytes
        added = ((part, {**known, **constants}) for part, known in more._parts)  # noqa: SLF001
        both._parts = [*self._parts, *added]  # noqa: SLF001
        return both

    def parts(self, *names: str, drain: bool = False) -> Iterator[pa.Table]:
        """Yield the rows part by part, with these columns (default: all). `drain` frees each part after use."""
        names = names or tuple(self.schema.names)
        for index, (part, constants) in enumerate(self._parts):
            rows = part if isinstance(part, pa.Table) else _unpack(part, names)
            for name in constants.keys() & {*names}:
                rows = rows.append_column(name, pa.repeat(constants[name], rows.num_rows))
            rows = rows.select(names)
            if constants or not isinstance(part, pa.Table):
                rows = pa.Table.from_arrays(rows.columns, schema=pa.schema(map(self.schema.field, names)))
            yield rows
            if drain:
                self._parts[index] = _DRAINED

    def only(self, is_wanted: Callable[[int], bool]) -> Self:
        """The rows whose index, counted from 0, is wanted."""
        kept, first = type(self)(self.schema), 0
        for part in self.parts():
            kept.add(part.filter(pa.array(map(is_wanted, range(first, first + part.num_rows)), pa.bool_())))
            first += part.num_rows
        return kept

    def in_order(self, *order: str, drain: bool = False) -> Iterator[pa.Table]:
        """Yield the rows part by part, sorted stably by these columns, nulls last. `drain` frees the rows."""
        keys = self.table(*order)
        if _is_ascending(keys):
            yield from self.parts(drain=drain)
            return
        indices = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.schema.names])
        if self.nbytes <= self._plain:
            yield self.table().take(indices)
        else:
            yield from self._by_rank(pc.sort_indices(indices), drain=drain)

    def _by_rank(self, ranks: "pa.Array[Any]", *, drain: bool) -> Iterator[pa.Table]:
        """Bucket sort: distribute the rows over ranges of ranks, reading each part once, then sort range by range."""
        schema = pa.schema([*self.schema, pa.field("rank", ranks.type)])
        starts = range(0, self.num_rows, ceil(self.num_rows / ceil(self.nbytes / self._plain)))
        buckets, first = [Rows(schema, plain=0) for _ in starts], 0
        for part in self.parts(drain=drain):
            ranked = part.append_column("rank", ranks.slice(first, part.num_rows)).sort_by("rank")
            first += part.num_rows
            sorted_ranks = ranked.column("rank").to_pylist()
            cuts = [bisect_left(sorted_ranks, start) for start in starts]
            for bucket, start, end in zip(buckets, cuts, [*cuts[1:], part.num_rows], strict=True):
                bucket.add(ranked.slice(start, end - start))
        for bucket in buckets:
            yield pa.concat_tables(bucket.parts(drain=True)).sort_by("rank").select(self.schema.names)
            release()

    def table(self, *names: str) -> pa.Table:
        """All rows as one table. To save memory, name few columns."""
        parts = list(self.parts(*names))
        return pa.concat_tables(parts or [self.schema.empty_table().select(names or self.schema.names)])

    def tuples(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows' values in these columns. No more than one part of them is in memory as Python values."""
        for part in self.parts(*names):
            yield from zip(*(column.to_pylist() for column in part.columns), strict=True)


def _is_ascending(keys: pa.Table) -> bool:
    """Whether the rows are sorted by these columns. False if one of them has nulls."""
    is_equal: Any = True
    for column in keys.columns:
        before, after = column[:-1], column[1:]
        if column.null_count or pc.any(pc.and_not(is_equal, pc.less_equal(before, after))).as_py():
            return False
        is_equal = pc.and_(is_equal, pc.equal(before, after))
    return True


def release() -> None:
    """Return freed memory to the system at once; the allocator would keep it, which doubles the peak of a large day."""
    pa.default_memory_pool().release_unused()


def _pack(batch: pa.RecordBatch) -> pa.Buffer:
    release()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema.remove_metadata(), options=_PACKED) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def _unpack(part: pa.Buffer, names: Iterable[str]) -> pa.RecordBatch:
    schema = pa.ipc.read_schema(part)
    options = pa.ipc.IpcReadOptions(included_fields=[index for index, name in enumerate(schema.names) if name in names])
    with pa.ipc.open_stream(part, options=options) as stream:
        return stream.read_next_batch()
