"""What all readings of a day say about its sessions now, or said at an earlier time. Pure.

The newest reading of a session decides, with one exception: what was spent stays spent (see `retention`). A session
that the API no longer returns stays, with `missing_since`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

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
    """A day's `sessions` and `rejected_sessions`, with what is worth knowing about them.

    `drift` counts properties and values that the schema does not name, and properties of it that no record has;
    `shrunk` names sessions whose newest reading says less than an earlier one although retention can't explain it;
    `rounded` counts costs that had digits beyond the 18th. `superseded` are raw rows that nothing rests on any more.
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
    """Validate a day's raw rows and tell what they come to.

    Args:
        raw: rows of `raw_sessions` of one day.
        readings: the day's readings that count, in their order.
        as_of: only rows that were read by then count; None counts all.
        kept_from: what was replaced by then may be forgotten; None keeps everything.
    """
    if as_of is not None:
        raw = Rows(raw.schema, _known_at(raw, as_of))
    asked = asked_for(raw, readings)
    keys = record_keys(raw, asked)
    foreign_to = foreign_rows(raw, asked)
    several = _several(keys, raw)
    validator = Validator()
    texts = (part.column(0).to_pylist() for part in raw.parts("payload"))
    validated = Rows(SCHEMA, (validator.sessions(some).combine_chunks() for some in texts))
    result = validator.result(SCHEMA.empty_table())
    older = {row for rows in several for row in rows[:-1]}
    reasons = {row: list(said) for row, said in result.rejected.items() if row not in older}
    for place in foreign_to.keys() - older:
        reasons.setdefault(place, []).append(f"tenant_id: is not the workspace asked for ({foreign_to[place]})")
    times = raw.table("fetched_at").column(0)
    versions = _versions(several, validated, times)
    valid = {row: [one for one in all_ if one.is_valid] for row, all_ in versions.items() if row not in reasons}
    stats = {newest: stats_of(of_session) for newest, of_session in valid.items()}
    sources = {newest: source.row for newest, (source, _) in stats.items() if source.row != newest}
    gone, shrunk, sessions = gone_since(readings), list[str](), Rows(SESSIONS.schema)
    missing = {place: gone[key] for place, key in enumerate(keys) if key in gone} if gone else {}
    for part in _with_sources(validated, {*older, *reasons}, sources):
        sessions.add(_with_times(part, times, sources, missing))
        if stats:
            shrunk += _only(part, lambda row: row in stats and stats[row][1]).column("id").to_pylist()
    return History(
        sessions,
        Rows(REJECTED_SESSIONS.schema, _rejected(raw, reasons)),
        result.drift + Counter({f"without {name}": sessions.num_rows for name in result.absent}),
        result.rounded,
        tuple(shrunk),
        frozenset().union(*(superseded(of_session, kept_from) for of_session in versions.values() if kept_from)),
    )


def _known_at(raw: Rows, as_of: datetime) -> Iterator[pa.Table]:
    for part in raw.parts():
        yield part.filter(pc.less_equal(part.column("fetched_at"), pa.scalar(as_of, TIMESTAMP)))


def _several(keys: Sequence[str], raw: Rows) -> list[list[int]]:
    """The rows of each session that has more than one, by their readings."""
    if len(set(keys)) == len(keys):
        return []
    counts, found = Counter(keys), defaultdict[str, list[int]](list)
    for row, key in enumerate(keys):
        if counts[key] > 1:
            found[key].append(row)
    numbers = raw.table("reading").column(0).to_pylist()
    return [sorted(rows, key=lambda row: (numbers[row], row)) for rows in found.values()]


def _versions(
    several: Sequence[Sequence[int]], validated: Rows, times: "pa.ChunkedArray[pa.TimestampScalar]"
) -> dict[int, list[Version]]:
    """The versions of sessions with several rows, oldest first, by their newest row."""
    wanted = {row for rows in several for row in rows}
    columns = validated.tuples("row", "trace_tier", "start_time", "run_count", *USED) if wanted else ()
    said = {row: values for row, *values in columns if row in wanted}

    def version(row: int) -> Version:
        tier, start_time, runs, *used = said.get(row, (None, None, None))
        return Version(row, times[row].as_py(), known_runs(runs, used), tier, start_time, row in said)

    return {rows[-1]: [version(row) for row in rows] for rows in several}


def _with_sources(validated: Rows, left_out: set[int], sources: Mapping[int, int]) -> Iterator[pa.Table]:
    """The sessions but for some rows, with the stats of other rows where they come from those."""
    needed, named = set(sources.values()), [*STATS, "row"]
    found = (_only(part, needed.__contains__) for part in validated.parts(*named) if sources)
    kept = pa.concat_tables([SCHEMA.empty_table().select(named), *found])
    for part in validated.parts(drain=True):
        rows = _only(part, lambda row: row not in left_out) if left_out else part
        if sources:
            pool = pa.concat_tables([rows.select(named), kept])
            wanted = pa.array([sources.get(row, row) for row in rows.column("row").to_pylist()], pa.int64())
            places = pc.index_in(wanted, value_set=pool.column("row").combine_chunks())
            for name in STATS:
                rows = rows.set_column(rows.schema.get_field_index(name), name, pool.column(name).take(places))
        yield rows


def _with_times(
    part: pa.Table,
    times: "pa.ChunkedArray[pa.TimestampScalar]",
    sources: Mapping[int, int],
    missing: Mapping[int, datetime],
) -> pa.Table:
    rows = part.column("row").to_pylist()
    sources_of = pa.array([sources.get(row, row) for row in rows], pa.int64())
    part = part.append_column("fetched_at", times.take(part.column("row")))
    part = part.append_column("stats_as_of", times.take(sources_of))
    return part.append_column("missing_since", pa.array(map(missing.get, rows), TIMESTAMP))


def _only(part: pa.Table, is_wanted: Callable[[int], bool]) -> pa.Table:
    return part.filter(pa.array(map(is_wanted, part.column("row").to_pylist()), pa.bool_()))


def _rejected(raw: Rows, reasons: Mapping[int, Sequence[str]]) -> Iterator[pa.Table]:
    first, names = 0, [name for name in REJECTED_SESSIONS.schema.names if name != "reasons"]
    for part in raw.parts(*names) if reasons else ():
        rows = [row for row in range(first, first + part.num_rows) if row in reasons]
        said = pa.array([reasons[row] for row in rows], pa.list_(pa.string()))
        yield part.take(pa.array([row - first for row in rows], pa.int64())).append_column("reasons", said)
        first += part.num_rows
