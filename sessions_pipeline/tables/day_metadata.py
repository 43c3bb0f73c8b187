"""What is worth knowing of a day that was made, as plain values: they cross from process to process. Pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables.aggregate import EXACT, known_sum
from sessions_pipeline.tables.history import History
from sessions_pipeline.tables.merge import Merged
from sessions_pipeline.tables.raw_sessions import RAW_SESSIONS
from sessions_pipeline.tables.rejected_sessions import REJECTED_SESSIONS
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.tables.table import DERIVED, Table
from sessions_pipeline.validation.rows import Rows

SAMPLE_ROWS = 5
_LONGEST = 120
# Names in a file's metadata.
AS_OF, ATTRIBUTES, IS_DAY_OVER, FACTS = "as_of", "attributes", "is_day_over", "facts"


def basis(table: Table, as_of: datetime | None, attributes: Sequence[str]) -> dict[str, str]:
    """What a file follows from, beside the raw sessions: a time that it is as of, and keys that it is summed by."""
    return {
        **({AS_OF: as_of.isoformat()} if as_of else {}),
        **({ATTRIBUTES: json.dumps(attributes)} if _is_by_attributes(table) else {}),
    }


def _is_by_attributes(table: Table) -> bool:
    return table in DERIVED and DERIVED[table].by_attributes


def was_over(rows: pa.Table, metadata: Mapping[str, str]) -> bool:
    """Whether a day was over when each workspace was read last, by its file of daily costs.

    A day without a row says it in the metadata alone, and a file of another program in its rows alone.
    """
    return metadata.get(IS_DAY_OVER) != "false" and all(rows.column("is_day_over").to_pylist())


def of_table(table: Table, rows: Rows, told: History, merged: Merged) -> dict[str, Any]:
    """What is worth knowing of a table: its rows, what is of its kind, what all of it costs, and the first of them.

    Kept in the file (`FACTS`), so that it is told again of a day that stays as it is.
    """
    of_kind: dict[str, Any] = {}
    if table is RAW_SESSIONS:
        of_kind = of_readings(merged)
    elif table is SESSIONS:
        of_kind = _of_sessions(told)
    elif table is REJECTED_SESSIONS:
        of_kind = _of_rejected(told)
    # Of daily_cost_by_attribute it would be the day's cost once for each attribute.
    has_cost = "total_cost" in rows.schema.names and not _is_by_attributes(table)
    cost = money(known_sum(rows.table("total_cost").column(0))) if has_cost else {}
    head = next((part.slice(0, SAMPLE_ROWS) for part in rows.parts(*table.sample)), None) if table.sample else None
    sample = [{name: _short(value) for name, value in row.items()} for row in head.to_pylist()] if head else []
    return {"rows": rows.num_rows, **of_kind, **cost, **({"sample": sample} if sample else {})}


def of_readings(merged: Merged) -> dict[str, Any]:
    """What was heard of a day in this run, and how many readings are kept of it."""
    return {
        "requests": sum(reading.requests for reading in merged.heard),
        "received": sum(reading.received for reading in merged.heard),
        "repeated": sum(reading.repeated for reading in merged.heard),
        "new_or_changed": sum(reading.added for reading in merged.heard),
        "readings_kept": len(merged.readings),
    }


def _of_sessions(day: History) -> dict[str, Any]:
    """What the sessions cost, how many are unpriced or gone, and what rests on earlier readings."""
    sessions = day.sessions.table("total_cost", "missing_since", "fetched_at", "stats_as_of", "problems")
    unpriced = sessions.column("total_cost").null_count
    kept = sessions.column("total_cost").filter(rests_on_kept_readings(sessions))
    return {
        "rejected": day.rejected.num_rows,
        "unpriced": unpriced,
        "unpriced_share": unpriced / sessions.num_rows if sessions.num_rows else 0.0,
        "missing": sessions.num_rows - sessions.column("missing_since").null_count,
        "rests_on_kept_readings": len(kept),
        "kept_cost": str(known_sum(kept) or 0),
        "costs_with_problems": sessions.num_rows - sessions.column("problems").null_count,
        "costs_rounded": day.rounded,
        **({"drift": dict(day.drift)} if day.drift else {}),
    }


def _of_rejected(day: History) -> dict[str, Any]:
    """The commonest reasons."""
    reasons = Counter(reason for (row,) in day.rejected.tuples("reasons") for reason in row)
    return {"reasons": dict(reasons.most_common(20))} if reasons else {}


def money(amount: Decimal | None) -> dict[str, Any]:
    """A cost as exact text, and as a float for the UI's plots; nothing where it is unknown."""
    if amount is None:
        return {"total_cost": "unknown"}
    return {"total_cost": f"{amount.normalize(EXACT):f}", "total_cost_usd": float(amount)}


def rests_on_kept_readings(sessions: pa.Table) -> pa.ChunkedArray:
    """Which sessions' numbers the API no longer gives: emptied by retention, or the session is gone. Null is no."""
    emptied = pc.not_equal(sessions.column("stats_as_of"), sessions.column("fetched_at"))
    return pc.or_kleene(emptied, pc.is_valid(sessions.column("missing_since")))


def _short(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
