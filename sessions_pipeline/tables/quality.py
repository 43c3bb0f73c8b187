"""The promises that a day's tables keep, examined on what was written. Pure: tables in, findings out."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.readings import Reading
from sessions_pipeline.validation.arrays import int64_array, value_array
from sessions_pipeline.validation.types import TIMESTAMP

# Scalars out of an array: made from Python's numbers they would import pandas, which takes 0.4 s.
_ZERO, _ONE = int64_array([0, 1], pa.int64())


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a promise is kept, and the numbers that show it."""

    passed: bool
    numbers: Mapping[str, Any]

    @classmethod
    def joined(cls, parts: Sequence["Finding"]) -> "Finding":
        """One finding about several parts: kept when all are, numbers added."""
        names = ", ".join(part.numbers["which"] for part in parts if not part.passed)
        numbers = {
            name: sum(part.numbers[name] for part in parts)
            for name in (parts[0].numbers if parts else ())
            if name != "which"
        }
        return cls(all(part.passed for part in parts), {**numbers, **({"which": names} if names else {})})

    @classmethod
    def of(cls, broken: Sequence[object], **numbers: Any) -> "Finding":
        """Kept when nothing is broken; names at most twenty of the broken things."""
        return cls(not broken, {**numbers, "broken": len(broken), **({"which": _names(broken)} if broken else {})})


def session_ids_are_unique(sessions: pa.Table) -> Finding:
    """Every session is in the given days once. `sessions` has `id`."""
    ids = sessions.column("id")
    endings = pc.utf8_slice_codeunits(ids, start=-1)
    twice: list[str] = []
    # By their last letter, because a count of all ids at once takes 200 bytes for each.
    for ending in pc.unique(endings):
        counts = pc.value_counts(ids.filter(pc.equal(endings, ending)))
        twice += counts.filter(pc.greater(counts.field("counts"), _ONE)).field("values").to_pylist()
    return Finding.of(twice, sessions=sessions.num_rows)


def sessions_start_on_their_day(sessions: pa.Table) -> Finding:
    """Every session lies under the UTC day it started. `sessions` has `id`, `start_time` and `start_date`."""
    day = pc.cast(sessions.column("start_time"), pa.timestamp("us")).cast(pa.date32(), safe=False)
    elsewhere = pc.or_kleene(pc.is_null(day), pc.not_equal(day, sessions.column("start_date")))
    return Finding.of(sessions.filter(elsewhere).column("id").to_pylist(), sessions=sessions.num_rows)


def every_record_is_accounted_for(
    readings: Sequence[Reading], sessions: pa.Table, rejected: pa.Table
) -> tuple[int, int, int, int]:
    """What the latest reading of a day received, and what became of it: valid, rejected, repeated.

    `sessions` has `fetched_at` and `missing_since`; `rejected` has `fetched_at`.
    """
    newest = max(reading.fetched_at for reading in readings)
    # The workspaces of one run are read under times a microsecond apart.
    latest = [reading for reading in readings if newest - reading.fetched_at < timedelta(milliseconds=1)]
    times = value_array([reading.fetched_at for reading in latest], TIMESTAMP)
    present = pc.is_null(sessions.column("missing_since"))
    valid = pc.sum(pc.and_(pc.is_in(sessions.column("fetched_at"), times), present))
    return (
        sum(reading.received for reading in latest),
        valid.as_py() or 0,
        pc.sum(pc.is_in(rejected.column("fetched_at"), times)).as_py() or 0,
        sum(reading.repeated for reading in latest),
    )


def costs_add_up(daily: pa.Table, sessions: pa.Table | Iterable[pa.Table]) -> Finding:
    """The daily sums equal sums made again in Python. All tables have `start_date` and a day's columns."""
    expected: dict[tuple[Any, ...], tuple[int, Decimal | None]] = {}
    for part in [sessions] if isinstance(sessions, pa.Table) else sessions:
        _add_again(part, expected)
    summed = ("start_date", "tenant_id", "reference_dataset_id", "session_count", "total_cost")
    found = {
        tuple(key): (count, total)
        for *key, count, total in zip(*(daily.column(name).to_pylist() for name in summed), strict=True)
    }
    broken = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    known = [total for _, total in found.values() if total is not None]
    return Finding.of(sorted(broken, key=str), rows=daily.num_rows, total_cost=str(sum(known, Decimal(0))))


def _add_again(sessions: pa.Table, sums: dict[tuple[Any, ...], tuple[int, Decimal | None]]) -> None:
    names = ("start_date", "tenant_id", "reference_dataset_id", "total_cost")
    experiments = sessions.filter(pc.is_valid(sessions.column("reference_dataset_id")))
    costs: dict[tuple[Any, ...], list[Decimal | None]] = defaultdict(list)
    for *key, cost in zip(*(experiments.column(name).to_pylist() for name in names), strict=True):
        costs[tuple(key)].append(cost)
    for group, of_group in costs.items():
        count, total = sums.get(group, (0, None))
        known = [cost for cost in of_group if cost is not None]
        sums[group] = count + len(of_group), sum(known, total or Decimal(0)) if known else total


def no_cost_is_invented(daily: pa.Table) -> Finding:
    """A sum is null exactly where no session has a cost, and priced and unpriced sessions are all sessions."""
    none_priced = pc.equal(daily.column("priced_session_count"), _ZERO)
    honest = pc.equal(none_priced, pc.is_null(daily.column("total_cost")))
    priced = pc.add(daily.column("priced_session_count"), daily.column("unpriced_session_count"))
    complete = pc.equal(priced, daily.column("session_count"))
    broken = daily.filter(pc.invert(pc.and_(honest, complete))).column("reference_dataset_id").to_pylist()
    unpriced = pc.sum(daily.column("unpriced_session_count")).as_py() or 0
    return Finding.of(broken, rows=daily.num_rows, unpriced_sessions=unpriced)


def recent_days_are_fresh(latest: Mapping[date, datetime | None], now: datetime, allowed: timedelta) -> Finding:
    """Every given day was read, and its latest reading is not older than `allowed`."""
    stale = [day for day, read_at in latest.items() if read_at is None or now - read_at > allowed]
    oldest = min((read_at for read_at in latest.values() if read_at is not None), default=None)
    return Finding.of(sorted(stale), days=len(latest), oldest_reading=str(oldest))


def schema_has_not_drifted(drift: Mapping[str, tuple[int, date]]) -> Finding:
    """The API sent nothing that the schema does not name. `drift`: name to count and the first day seen."""
    seen = {name: f"{count} records, first on {day}" for name, (count, day) in sorted(drift.items())}
    return Finding(not drift, {"drift": seen})


def rejected_share_is_low(valid: int, rejected: int, reasons: Counter[str], limit: float) -> Finding:
    """At most `limit` of the records are rejected."""
    share = rejected / (valid + rejected) if valid + rejected else 0.0
    numbers = {"rejected": rejected, "share": share, "limit": limit, "reasons": dict(reasons.most_common(10))}
    return Finding(share <= limit, numbers)


def _names(things: Sequence[object]) -> str:
    return ", ".join(str(thing) for thing in things[:20])
