"""What all readings of a day say about its sessions now, or said at an earlier time. Pure.

The newest reading of a session decides, with one exception: what was spent stays spent (see `retention`). A session
that the API no longer returns stays, with `missing_since`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.readings import PART, Reading, gone_since, raw_rows
from sessions_pipeline.tables.rejected_sessions import REJECTED_SESSIONS
from sessions_pipeline.tables.retention import STATS, Version, stats_of, superseded
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.validation.types import TIMESTAMP
from sessions_pipeline.validation.validate import Validated, validate


@dataclass(frozen=True, slots=True)
class History:
    """A day's `sessions` and `rejected_sessions`, with what is worth knowing about them.

    `drift` counts properties and values that the schema does not name, and properties of it that no record has;
    `shrunk` names sessions whose newest reading says less than an earlier one although retention can't explain it;
    `rounded` counts costs that had digits beyond the 18th. `superseded` are raw rows that nothing rests on any more.
    """

    sessions: pa.Table
    rejected: pa.Table
    drift: Counter[str]
    rounded: int
    shrunk: tuple[str, ...]
    superseded: frozenset[int]


def history(
    raw: pa.Table, readings: Sequence[Reading], *, as_of: datetime | None = None, kept_from: datetime | None = None
) -> History:
    """Validate a day's raw rows and tell what they come to.

    Args:
        raw: rows of `raw_sessions` of one day.
        readings: the day's readings, in their order.
        as_of: only what was read by then counts; None counts everything.
        kept_from: what was replaced by then may be forgotten; None keeps everything.
    """
    if as_of is not None:
        raw = raw.filter(pc.less_equal(raw.column("fetched_at"), pa.scalar(as_of, TIMESTAMP)))
        readings = [reading for reading in readings if reading.fetched_at <= as_of]
    by_key: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    foreign_to: dict[int, str] = {}
    for place, row in enumerate(raw_rows(raw, readings)):
        by_key[row.key].append((row.reading, place))
        if row.foreign_to:
            foreign_to[place] = row.foreign_to
    versions = {key: [place for _, place in sorted(of_key)] for key, of_key in by_key.items()}
    payloads = raw.select(["payload"]).to_batches(max_chunksize=PART)
    validated = validate(payload for part in payloads for payload in part.column(0).to_pylist())
    several = _versions([places for places in versions.values() if len(places) > 1], raw, validated)
    newest = {places[-1]: key for key, places in versions.items()}
    reasons = {row: list(validated.rejected[row]) for row in newest if row in validated.rejected}
    for place in foreign_to.keys() & newest:
        reasons.setdefault(place, []).append(f"tenant_id: is not the workspace asked for ({foreign_to[place]})")
    valid = sorted(newest.keys() - reasons.keys())
    sessions, shrunk = _sessions(raw, validated.sessions, valid, several)
    gone = gone_since(readings)
    missing = pa.array([gone.get(newest[row]) for row in valid], TIMESTAMP)
    return History(
        sessions.append_column("missing_since", missing).select(SESSIONS.schema.names),
        _rejected(raw, reasons),
        validated.drift + Counter({f"without {name}": len(valid) for name in validated.absent}),
        validated.rounded,
        shrunk,
        frozenset().union(*(superseded(rows, kept_from) for rows in several.values() if kept_from)),
    )


def _versions(groups: Iterable[Sequence[int]], raw: pa.Table, validated: Validated) -> dict[int, list[Version]]:
    """The versions of sessions with several rows, oldest first, by their newest row."""
    groups = list(groups)
    wanted = pa.array([row for group in groups for row in group], pa.int64())
    columns = ["row", "run_count", "trace_tier", "start_time"]
    known = validated.sessions.select(columns)
    said = {row["row"]: row for row in known.filter(pc.is_in(known.column("row"), wanted)).to_pylist()}
    times = dict(zip(wanted.to_pylist(), raw.column("fetched_at").take(wanted).to_pylist(), strict=True))
    nothing = dict.fromkeys(columns)

    def version(row: int) -> Version:
        values = said.get(row, nothing)
        return Version(row, times[row], values["run_count"] or 0, values["trace_tier"], values["start_time"])

    return {group[-1]: [version(row) for row in group] for group in groups}


def _sessions(
    raw: pa.Table, validated: pa.Table, valid: Sequence[int], several: Mapping[int, Sequence[Version]]
) -> tuple[pa.Table, tuple[str, ...]]:
    """The sessions of these raw rows with their times, and the ids of those that shrank."""
    rows = pa.array(valid, pa.int64())
    place = validated.column("row").combine_chunks()
    source, shrunk = list(valid), set[int]()
    if several:
        known = set(place.to_pylist())
        for index, row in enumerate(valid):
            if row in several:
                stats, shrinks = stats_of([version for version in several[row] if version.row in known])
                source[index] = stats.row
                shrunk |= {row} if shrinks else set()
    # Both are in the order of the rows. Filtering, unlike taking, can't overflow the offsets of long texts.
    sessions = validated if len(valid) == len(place) else validated.filter(pc.is_in(place, value_set=rows))
    stats_rows = pa.array(source, pa.int64())
    if source != valid:
        kept = validated.select(STATS).take(pc.index_in(stats_rows, value_set=place))
        for name in STATS:
            sessions = sessions.set_column(sessions.schema.get_field_index(name), name, kept.column(name))
    times = raw.column("fetched_at")
    sessions = sessions.append_column("fetched_at", times.take(rows))
    sessions = sessions.append_column("stats_as_of", times.take(stats_rows))
    less = sessions.filter(pc.is_in(sessions.column("row"), pa.array(sorted(shrunk), pa.int64())))
    return sessions, tuple(less.column("id").to_pylist())


def _rejected(raw: pa.Table, reasons: Mapping[int, Sequence[str]]) -> pa.Table:
    rows = sorted(reasons)
    # Filtered, because taking would first put all payloads into one piece.
    found = raw.filter(pc.is_in(pa.arange(0, raw.num_rows), pa.array(rows, pa.int64())))
    said = pa.array([reasons[row] for row in rows], pa.list_(pa.string()))
    return found.append_column("reasons", said).select(REJECTED_SESSIONS.schema.names).cast(REJECTED_SESSIONS.schema)
