"""What is worth telling of a day that was settled, as plain values: they cross from process to process. Pure."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS
from sessions_pipeline.tables.history import DayVerdict
from sessions_pipeline.tables.readings import Reading

SAMPLE_ROWS = 5
SAMPLE_COLUMNS = {
    RAW_SESSIONS.name: ("session_id", "start_time", "payload"),
    SESSIONS.name: ("name", "start_time", "run_count", "total_tokens", "total_cost"),
    REJECTED_SESSIONS.name: ("session_id", "reasons"),
}


def of_readings(readings: Sequence[Reading]) -> dict[str, Any]:
    """What the latest reading of each workspace came to."""
    latest = {reading.asked: reading for reading in readings}.values()
    return {
        "requests": sum(reading.requests for reading in latest),
        "received": sum(reading.received for reading in latest),
        "repeated": sum(reading.repeated for reading in latest),
        "new_or_changed": sum(reading.added for reading in latest),
        "readings_kept": len(readings),
    }


def of_sessions(verdict: DayVerdict) -> dict[str, Any]:
    """What the sessions cost, how many are unpriced or gone, and what rests on earlier readings."""
    sessions = verdict.sessions
    unpriced = sessions.column("total_cost").null_count
    kept = sessions.filter(rests_on_kept_readings(sessions))
    return {
        "rejected": verdict.rejected.num_rows,
        "unpriced": unpriced,
        "unpriced_share": unpriced / sessions.num_rows if sessions.num_rows else 0.0,
        "missing": sessions.num_rows - sessions.column("missing_since").null_count,
        "rests_on_kept_readings": kept.num_rows,
        "kept_cost": str(total(kept.column("total_cost")) or 0),
        **({"drift": dict(verdict.drift)} if verdict.drift else {}),
        **money(total(sessions.column("total_cost"))),
    }


def of_rejected(verdict: DayVerdict) -> dict[str, Any]:
    """The commonest reasons."""
    reasons = Counter(reason for row in verdict.rejected.column("reasons").to_pylist() for reason in row)
    return {"reasons": dict(reasons.most_common(20))} if reasons else {}


def sample(table: str, rows: pa.Table) -> list[dict[str, str]]:
    """The first rows of a table in a few of its columns, as texts, long ones cut."""
    columns = SAMPLE_COLUMNS[table]
    head = rows.select(list(columns)).slice(0, SAMPLE_ROWS)
    if "start_time" in columns:
        # As text, because Python's times out of Arrow import pandas, which takes 0.4 s.
        place = head.schema.get_field_index("start_time")
        head = head.set_column(place, "start_time", head.column("start_time").cast(pa.string()))
    return [{name: _short(value) for name, value in row.items()} for row in head.to_pylist()]


def total(column: pa.ChunkedArray) -> Decimal | None:
    """An exact sum; None when nothing is known. 256 bits wide, since Arrow's 128-bit sums wrap silently."""
    value: Decimal | None = pc.sum(column.cast(pa.decimal256(76, 18))).as_py()
    return value


def money(amount: Decimal | None) -> dict[str, Any]:
    """A cost as exact text, and as a float for the UI's plots; nothing where it is unknown."""
    if amount is None:
        return {"total_cost": "unknown"}
    return {"total_cost": f"{amount.normalize():f}", "total_cost_usd": float(amount)}


def rests_on_kept_readings(sessions: pa.Table) -> pa.ChunkedArray:
    """Which sessions' numbers the API no longer gives: emptied by retention, or the session is gone. Null is no."""
    emptied = pc.less(sessions.column("stats_as_of"), sessions.column("fetched_at"))
    return pc.or_kleene(emptied, pc.is_valid(sessions.column("missing_since")))


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."  # noqa: PLR2004
