"""A day's sessions, as all its readings together show them now or showed them at an earlier time. Pure.

A session's newest version counts, with one exception: spent money stays spent (see `retention`). A session that the
API no longer returns stays, with `missing_since` set.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.readings import Reading, asked_for, foreign_rows, gone_since, record_keys
from sessions_pipeline.tables.rejected_sessions import REJECTED_SESSIONS
from sessions_pipeline.tables.retention import STATS, USED, Version, known_runs, stats_of, superseded
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.validation.rows import Rows
from sessions_pipeline.validation.types import TIMESTAMP
from sessions_pipeline.validation.validate import SCHEMA, Validator


@dataclass(frozen=True, slots=True)
class History:
    """A day's `sessions` and `rejected_sessions`, with findings about them.

    `drift`: how often properties or values came that the schema does not name, and, as `without <property>`, the
    number of sessions if none of them has a property of the schema.
    `rounded`: how many costs had more than 18 decimal places and were rounded.
    `shrunk`: ids of sessions whose numbers have fallen although retention can't explain it.
    `superseded`: indices of raw rows that may be deleted (see `retention.superseded`).
    """

    sessions: Rows
    rejected: Rows
    drift: Counter[str]
    rounded: int
    shrunk: tuple[str, ...]
    superseded: frozenset[int]


def history(
    raw: Rows, readings: Sequence[Reading], *, as_of: datetime | None = None, kept_from: datetime | None = None
) -> History:
    """Validate a day's raw rows and derive its sessions from them.

    Args:
        raw: the rows of `raw_sessions` of one day. Below, rows are identified by their index in it.
        readings: the day's readings up to `as_of`, in their order.
        as_of: only rows read at or before this time count; None counts all.
        kept_from: versions superseded by this time may be deleted; None keeps everything.
    """
    if as_of is not None:
        until = pa.scalar(as_of, TIMESTAMP)
        raw = Rows(raw.schema, (part.filter(pc.less_equal(part.column("fetched_at"), until)) for part in raw.parts()))
    asked = asked_for(raw, readings)
    keys = record_keys(raw, asked)
    foreign = foreign_rows(raw, asked)
    repeated = _rows_of_repeated(keys, raw)
    validator = Validator()
    payloads = (part.column(0).to_pylist() for part in raw.parts("payload"))
    validated = Rows(SCHEMA, (validator.sessions(texts).combine_chunks() for texts in payloads))
    older = {row for rows in repeated for row in rows[:-1]}
    reasons = {row: list(rejections) for row, rejections in validator.rejected.items() if row not in older}
    for row in foreign.keys() - older:
        reasons.setdefault(row, []).append(f"tenant_id: is not the workspace asked for ({foreign[row]})")
    times = raw.table("fetched_at").column(0)
    versions = _versions(repeated, validated, times)
    valid = {newest: [version for version in all_ if version.is_valid] for newest, all_ in versions.items()}
    stats = {newest: stats_of(all_) for newest, all_ in valid.items() if newest not in reasons}
    sources = {newest: source.row for newest, (source, _) in stats.items() if source.row != newest}
    gone, shrunk, sessions = gone_since(readings), list[str](), Rows(SESSIONS.schema)
    missing = {row: gone[key] for row, key in enumerate(keys) if key in gone} if gone else {}
    for part in _with_sources(validated, {*older, *reasons}, times, sources):
        missing_since = pa.array(map(missing.get, part.column("row").to_pylist()), TIMESTAMP)
        sessions.add(part.append_column("missing_since", missing_since))
        if stats:
            shrunk += _only(part, lambda row: row in stats and stats[row][1]).column("id").to_pylist()
    return History(
        sessions,
        Rows(REJECTED_SESSIONS.schema, _rejected(raw, reasons)),
        validator.drift + Counter({f"without {name}": sessions.num_rows for name in validator.absent}),
        validator.rounded,
        tuple(shrunk),
        frozenset().union(*(superseded(all_, kept_from) for all_ in versions.values() if kept_from)),
    )


def _rows_of_repeated(keys: Sequence[str], raw: Rows) -> list[list[int]]:
    """For each session with several rows, these rows in the order of their readings."""
    if len(set(keys)) == len(keys):
        return []
    counts, rows_by_key = Counter(keys), defaultdict[str, list[int]](list)
    for row, key in enumerate(keys):
        if counts[key] > 1:
            rows_by_key[key].append(row)
    numbers = raw.table("reading").column(0).to_pylist()
    return [sorted(rows, key=lambda row: (numbers[row], row)) for rows in rows_by_key.values()]


def _versions(
    repeated: Sequence[Sequence[int]], validated: Rows, times: "pa.ChunkedArray[pa.TimestampScalar]"
) -> dict[int, list[Version]]:
    """The versions of each session with several rows, oldest first, keyed by its newest row."""
    needed = {row for rows in repeated for row in rows}
    columns = validated.tuples("row", "trace_tier", "start_time", "run_count", *USED) if needed else ()
    valid = {row: values for row, *values in columns if row in needed}

    def version(row: int) -> Version:
        tier, start_time, runs, *used = valid.get(row, (None, None, None))
        return Version(row, times[row].as_py(), known_runs(runs, used), tier, start_time, row in valid)

    return {rows[-1]: [version(row) for row in rows] for rows in repeated}


def _with_sources(validated: Rows, left_out: set[int], times: Any, sources: Mapping[int, int]) -> Iterator[pa.Table]:
    """The valid sessions without the rows `left_out`, with the times of their readings.

    A row in `sources` takes its stats from the row given there. `times`: when each raw row was read.
    """
    needed, names = set(sources.values()), [*STATS, "row"]
    parts = (_only(part, needed.__contains__) for part in validated.parts(*names) if sources)
    source_rows = pa.concat_tables([SCHEMA.empty_table().select(names), *parts])
    for part in validated.parts(drain=True):
        rows = _only(part, lambda row: row not in left_out) if left_out else part
        stats_rows = pa.array([sources.get(row, row) for row in rows.column("row").to_pylist()], pa.int64())
        if sources:
            pool = pa.concat_tables([rows.select(names), source_rows])
            indices = pc.index_in(stats_rows, value_set=pool.column("row").combine_chunks())
            for name in STATS:
                rows = rows.set_column(rows.schema.get_field_index(name), name, pool.column(name).take(indices))
        rows = rows.append_column("fetched_at", times.take(rows.column("row")))
        yield rows.append_column("stats_as_of", times.take(stats_rows))


def _only(part: pa.Table, is_wanted: Callable[[int], bool]) -> pa.Table:
    return part.filter(pa.array(map(is_wanted, part.column("row").to_pylist()), pa.bool_()))


def _rejected(raw: Rows, reasons: Mapping[int, Sequence[str]]) -> Iterator[pa.Table]:
    first, names = 0, [name for name in REJECTED_SESSIONS.schema.names if name != "reasons"]
    for part in raw.parts(*names) if reasons else ():
        rows = [row for row in range(first, first + part.num_rows) if row in reasons]
        reason_lists = pa.array([reasons[row] for row in rows], pa.list_(pa.string()))
        yield part.take(pa.array([row - first for row in rows], pa.int64())).append_column("reasons", reason_lists)
        first += part.num_rows
