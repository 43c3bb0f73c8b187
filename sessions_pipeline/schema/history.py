"""What all readings of a day say about its sessions now, or said at an earlier time. Pure.

The newest reading of a session decides, with one exception: what was spent stays spent. Retention deletes traces
after 14 or 400 days and the API then reports less, or nothing, so numbers that retention has emptied never replace
those read before; `stats_as_of` says which reading they come from. A session that the API no longer returns stays,
with `missing_since`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.schema.batch import judge_batch
from sessions_pipeline.schema.columns import REJECTED_SESSIONS, SESSIONS, TIMESTAMP
from sessions_pipeline.schema.readings import Reading, row_key, row_workspaces

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

    `drift` counts properties and values that the schema does not name; `shrunk` names sessions whose newest reading
    says less than an earlier one although retention can't explain it.
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
    raw = raw.sort_by("fetched_at")
    versions = _Versions(raw, readings)
    judged = judge_batch(raw.column("payload").to_pylist())
    valid_rows = judged.sessions.column("row").to_pylist()
    foreign = {
        row: f"tenant_id: is not the workspace asked for ({versions.workspaces[row]})" for row in versions.foreign
    }
    newest = set(versions.newest)
    keep = [row in newest and row not in foreign for row in valid_rows]
    sessions = judged.sessions.filter(pa.array(keep, pa.bool_()))
    current = sessions.column("row").to_pylist()
    seen = [versions.last_seen(row) for row in current]
    sessions = sessions.drop_columns("row")
    for name, values in (("fetched_at", seen), ("stats_as_of", seen)):
        sessions = sessions.append_column(name, pa.array(values, TIMESTAMP))
    missing = [versions.missing_since(row) for row in current]
    sessions = sessions.append_column("missing_since", pa.array(missing, TIMESTAMP)).select(SESSIONS.schema.names)
    reasons = {row: list(judged.rejected[row]) for row in judged.rejected}
    for row, reason in foreign.items():
        reasons.setdefault(row, []).append(reason)
    rejected = _rejected(raw, {row: reasons[row] for row in sorted(reasons) if row in newest}, versions)
    sessions, shrunk = _keep_what_was_spent(sessions, current, judged.sessions, valid_rows, versions)
    return DayVerdict(sessions.cast(SESSIONS.schema), rejected, judged.drift, shrunk)


class _Versions:
    """Which raw rows are readings of the same session, oldest first, and when each was seen."""

    def __init__(self, raw: pa.Table, readings: Sequence[Reading]) -> None:
        ids, payloads = raw.column("session_id").to_pylist(), raw.column("payload").to_pylist()
        tenants = raw.column("tenant_id").to_pylist()
        asked = {reading.fetched_at: reading.asked for reading in readings}
        self.times: list[datetime] = raw.column("fetched_at").to_pylist()
        self.workspaces = row_workspaces(raw, readings)
        self.foreign = [
            row
            for row, tenant in enumerate(tenants)
            if tenant is not None and asked.get(self.times[row]) not in (None, tenant.lower())
        ]
        strange = set(self.foreign)
        self.keys = [row_key(id_, payload) for id_, payload in zip(ids, payloads, strict=True)]
        groups: dict[tuple[str, bool], list[int]] = defaultdict(list)
        for row, key in enumerate(self.keys):
            groups[key, row in strange].append(row)
        self.newest = [rows[-1] for rows in groups.values()]
        self.several = {rows[-1]: rows for rows in groups.values() if len(rows) > 1}
        self._readings = sorted(readings, key=lambda reading: reading.fetched_at)
        self._gone = {key for reading in readings for key in reading.gone}
        self._latest: dict[str, datetime] = {}
        for reading in self._readings:
            self._latest.update(dict.fromkeys(reading.workspaces, reading.fetched_at))

    def last_seen(self, row: int, *, before: datetime | None = None) -> datetime:
        """The latest reading that contained the row's session (before a time, if given)."""
        if before is None and self.keys[row] not in self._gone:
            return max(self.times[row], self._latest.get(self.workspaces[row], self.times[row]))
        seen = [reading.fetched_at for reading in self._about(row) if self.keys[row] not in reading.gone]
        return max([self.times[row], *(time for time in seen if before is None or time < before)])

    def missing_since(self, row: int) -> datetime | None:
        """The first of the readings up to the latest that no longer contained the row's session."""
        since = None
        if self.keys[row] in self._gone:
            for reading in self._about(row):
                since = (since or reading.fetched_at) if self.keys[row] in reading.gone else None
        return since

    def _about(self, row: int) -> list[Reading]:
        return [
            reading
            for reading in self._readings
            if self.workspaces[row] in reading.workspaces and reading.fetched_at >= self.times[row]
        ]


def _rejected(raw: pa.Table, reasons: Mapping[int, Sequence[str]], versions: _Versions) -> pa.Table:
    taken = raw.take(pa.array(list(reasons), pa.int64()))
    columns = {
        **{name: taken.column(name) for name in ("session_id", "tenant_id", "start_time", "payload")},
        "reasons": pa.array(list(reasons.values()), pa.list_(pa.string())),
        "fetched_at": pa.array([versions.last_seen(row) for row in reasons], TIMESTAMP),
    }
    return pa.table([columns[name] for name in REJECTED_SESSIONS.schema.names], schema=REJECTED_SESSIONS.schema)


def _keep_what_was_spent(
    sessions: pa.Table, current: Sequence[int], judged: pa.Table, valid_rows: Sequence[int], versions: _Versions
) -> tuple[pa.Table, tuple[str, ...]]:
    """Replace stats that retention has emptied by those of the latest reading that still had them."""
    place = {row: index for index, row in enumerate(valid_rows)}
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
                stats_as_of = versions.last_seen(other, before=since)
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
        sessions = sessions.set_column(position, name, pa.array(values, sessions.schema.field(name).type))
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
