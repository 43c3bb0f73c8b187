"""What all readings of a day say about its sessions now, or said at an earlier time. Pure.

The newest reading of a session decides, with one exception: what was spent stays spent. Retention deletes traces
after 14 or 400 days and the API then reports less, or nothing, so numbers that retention has emptied never replace
those read before; `stats_as_of` says which reading they come from. A session that the API no longer returns stays,
with `missing_since`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.columns import REJECTED_SESSIONS, SESSIONS
from sessions_pipeline.tables.readings import Reading
from sessions_pipeline.tables.versions import Versions, versions_of
from sessions_pipeline.validation.arrays import int64_array, text_array, value_array
from sessions_pipeline.validation.drift import absent_properties
from sessions_pipeline.validation.types import TIMESTAMP
from sessions_pipeline.validation.validate import validate

STATS = (
    "run_count",
    "total_tokens",
    "prompt_tokens",
    "completion_tokens",
    "total_cost",
    "prompt_cost",
    "completion_cost",
    "latency_p50",
    "latency_p99",
    "first_token_p50",
    "first_token_p99",
    "error_rate",
    "streaming_rate",
    "feedback_stats",
    "session_feedback_stats",
    "run_facets",
)
# How long the API keeps traces, by the session's tier; an unknown tier counts as the shorter.
LONGLIVED = timedelta(days=400)
SHORTLIVED = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class DayVerdict:
    """A day's `sessions` and `rejected_sessions`, with what is worth telling about them.

    `drift` counts properties and values that the schema does not name, and properties of it that no record has;
    `shrunk` names sessions whose newest reading says less than an earlier one although retention can't explain it.
    """

    sessions: pa.Table
    rejected: pa.Table
    drift: Counter[str]
    shrunk: tuple[str, ...]

    @property
    def rejected_ratio(self) -> float:
        """Rejected records as a share of all, 0 to 1."""
        total = self.sessions.num_rows + self.rejected.num_rows
        return self.rejected.num_rows / total if total else 0.0


def judge_day(raw: pa.Table, readings: Sequence[Reading], *, as_of: datetime | None = None) -> DayVerdict:
    """Judge a day's raw rows and settle their history.

    Args:
        raw: rows of `raw_sessions` of one day.
        readings: the day's readings.
        as_of: only what was read by then counts; None counts everything.
    """
    if as_of is not None:
        raw = raw.filter(pc.less_equal(raw.column("fetched_at"), pa.scalar(as_of, TIMESTAMP)))
        readings = [reading for reading in readings if reading.fetched_at <= as_of]
    versions = versions_of(raw, readings)
    payloads = raw.column("payload").to_pylist()
    judged, absent = validate(payloads), absent_properties(payloads)
    sessions = judged.sessions
    counts = versions.is_newest(sessions.column("row"))
    sessions = sessions if counts is None else sessions.filter(counts)
    rows = sessions.column("row")
    seen = versions.last_seen(rows)
    settled = pa.table(
        {
            **{name: sessions.column(name) for name in sessions.schema.names if name != "row"},
            "fetched_at": seen,
            "stats_as_of": seen,
            "missing_since": versions.missing_since(rows),
        }
    ).select(SESSIONS.schema.names)
    settled, shrunk = _keep_what_was_spent(settled, rows.to_pylist(), judged.sessions, versions)
    reasons = {row: list(said) for row, said in judged.rejected.items() if versions.is_newest_row(row)}
    for row, workspace in versions.foreign.items():
        reasons.setdefault(row, []).append(f"tenant_id: is not the workspace asked for ({workspace})")
    drift = judged.drift + Counter({f"without {name}": settled.num_rows for name in absent})
    return DayVerdict(settled.cast(SESSIONS.schema), _rejected(raw, reasons, versions), drift, shrunk)


def _rejected(raw: pa.Table, reasons: Mapping[int, Sequence[str]], versions: Versions) -> pa.Table:
    rows = pa.chunked_array([int64_array(sorted(reasons), pa.int64())])
    said = [reasons[row] for row in sorted(reasons)]
    taken = raw.take(rows)
    columns = {
        **{name: taken.column(name) for name in ("session_id", "tenant_id", "start_time", "payload")},
        "reasons": pa.ListArray.from_arrays(
            int64_array([0, *accumulate(map(len, said))], pa.int64()).cast(pa.int32()),
            text_array(list(chain.from_iterable(said))),
        ),
        "fetched_at": versions.last_seen(rows),
    }
    return pa.table([columns[name] for name in REJECTED_SESSIONS.schema.names], schema=REJECTED_SESSIONS.schema)


def _keep_what_was_spent(
    sessions: pa.Table, current: Sequence[int], judged: pa.Table, versions: Versions
) -> tuple[pa.Table, tuple[str, ...]]:
    """Replace stats that retention has emptied by those of the latest reading that still had them."""
    if not versions.several:
        return sessions, ()
    place = {row: index for index, row in enumerate(judged.column("row").to_pylist())}
    shrunk: list[str] = []
    changed: dict[int, dict[str, Any]] = {}
    for index, row in enumerate(current):
        earlier = [other for other in versions.several.get(row, ())[:-1] if other in place]
        if not earlier:
            continue
        newest = {**judged.slice(place[row], 1).to_pylist()[0], "at": versions.times[row]}
        for other in reversed(earlier):
            held = judged.slice(place[other], 1).to_pylist()[0]
            if is_emptied(newest, held):
                since = next(time for time in (versions.times[r] for r in versions.several[row] if r > other))
                stats_as_of = versions.last_seen_row(other, before=since)
                changed[index] = {**{name: held[name] for name in STATS}, "stats_as_of": stats_as_of}
                newest = {**newest, **{name: held[name] for name in STATS}}
            elif _runs(newest) < _runs(held):
                shrunk.append(newest["id"])
    if not changed:
        return sessions, tuple(dict.fromkeys(shrunk))
    for name in (*STATS, "stats_as_of"):
        values = sessions.column(name).to_pylist()
        for index, replacement in changed.items():
            values[index] = replacement[name]
        position = sessions.schema.get_field_index(name)
        sessions = sessions.set_column(position, name, value_array(values, sessions.schema.field(name).type))
    return sessions, tuple(dict.fromkeys(shrunk))


def is_emptied(newest: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    """Whether the newest reading's stats say less than earlier ones because traces were deleted, not corrected.

    They do when no runs are left, or when there are fewer than before and the session is older than its tier's
    retention (source: LangSmith's retention tiers, 14 and 400 days). `newest` also holds `at`, the time of its reading.
    """
    runs, runs_before = _runs(newest), _runs(held)
    if runs >= runs_before:
        return False
    if runs == 0:
        return True
    tier = (newest["trace_tier"] or "").lower().replace("_", "")
    start = newest["start_time"]
    return start is not None and newest["at"] - start >= (LONGLIVED if tier == "longlived" else SHORTLIVED)


def _runs(values: Mapping[str, Any]) -> int:
    runs = values["run_count"]
    return runs if isinstance(runs, int) else 0
