"""One row per valid session: the properties of the API's schema, and which readings they come from."""

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.table import DRIFT, SHRUNK, CheckResult, DayTables, Table, Tables, check

SESSIONS = Table(
    "sessions",
    "One row per valid session, with exact costs and the time its numbers were read.",
    (
        *column.SENT.values(),
        column.text("unknown_fields", "Properties that the schema does not name, JSON text; null when there are none"),
        column.time("fetched_at", "When the reading began that first returned this state", nullable=False),
        column.time(
            "stats_as_of",
            "Time of the reading that the counts, tokens, costs, latencies, rates and feedback come from; earlier than "
            "`fetched_at` if retention has emptied them since",
        ),
        column.texts(
            "problems",
            "Why costs of this valid session are null, such as `total_cost: is negative (-0.0012)`; null when there is "
            "nothing to report",
        ),
        column.time(
            "missing_since", "Time of the first reading that no longer contained it; null while the API returns it"
        ),
    ),
    order=("start_time", "id"),
)
OWNER = ("id", "tenant_id", "reference_dataset_id")
"""The columns that identify a session, its workspace and its dataset."""
# Properties that the API is known to send although its schema lacks them (`type`: in version 2). If the check failed
# because of them, it would fail in every run, and nobody would notice what is new.
_KNOWN_DRIFT = {"longlived_ttl_days", "type"}


def experiments(tables: Tables, columns: Sequence[str]) -> pa.Table:
    """The sessions that ran against a dataset, with these columns (`reference_dataset_id` among them)."""
    sessions = tables[SESSIONS].select(columns)
    return sessions.filter(sessions.column("reference_dataset_id").is_valid())


@check(
    SESSIONS,
    "Every session is in the lake only once.",
    "The costs of these sessions count twice, usually because they have moved to another day; subtract the rows that "
    "have a missing_since, which stay when their days are read again.",
    reads={SESSIONS: ("id",)},
)
def session_ids_are_unique(day: DayTables) -> CheckResult:
    """Across all days."""
    ids = day[SESSIONS].column("id")
    return CheckResult(counts={"sessions": len(ids)}, unique=ids)


@check(
    SESSIONS,
    "Every session is stored under the UTC day it started on.",
    "The costs of these sessions count on a wrong day; materialize these days again.",
    reads={SESSIONS: ("id", "start_time")},
)
def sessions_start_on_their_day(day: DayTables) -> CheckResult:
    """Sessions stored without a day must have no start time."""
    sessions = day[SESSIONS]
    started = pc.cast(sessions.column("start_time"), pa.timestamp("us")).cast(pa.date32(), safe=False)
    is_right = pc.equal(started, day.day) if day.day else pc.is_null(started)
    is_wrong = pc.invert(pc.fill_null(is_right, fill_value=False))
    return CheckResult(tuple(sessions.filter(is_wrong).column("id").to_pylist()), {"sessions": sessions.num_rows})


@check(
    SESSIONS,
    "No session has fewer runs than in an earlier reading, unless retention explains it.",
    "Costs may have fallen too, since the newest reading counts; compare these sessions with LangSmith's own pages.",
    reads={SESSIONS: ()},
    severity="warn",
)
def no_reading_shrinks(day: DayTables) -> CheckResult:
    """As noted when the day was derived."""
    return CheckResult(tuple(json.loads(day.metadata(SESSIONS).get(SHRUNK, "[]"))))


@check(
    SESSIONS,
    "The API's records match its schema: no property or value is new, and no property is missing everywhere.",
    "No cost is affected, and raw_sessions keeps everything; a newer version of this package may know the new schema.",
    reads={SESSIONS: ()},
    severity="warn",
)
def schema_has_not_drifted(day: DayTables) -> CheckResult:
    """As noted when the day was derived, by property or value. The counts include what is known."""
    drift = json.loads(day.metadata(SESSIONS).get(DRIFT, "{}"))
    new = [f"{name} (records on {day.day}: {count})" for name, count in drift.items() if name not in _KNOWN_DRIFT]
    return CheckResult(tuple(new), drift)


@check(
    SESSIONS,
    "Every cost that the API sends is usable.",
    "These costs count as unknown and are in no sum; the column problems of sessions has the reasons.",
    reads={SESSIONS: ("id", "problems")},
    severity="warn",
)
def costs_are_usable(day: DayTables) -> CheckResult:
    """An unusable cost is stored as null, with the reason in the session's `problems`."""
    sessions = day[SESSIONS].filter(day[SESSIONS].column("problems").is_valid())
    rows = zip(sessions.column("id").to_pylist(), sessions.column("problems").to_pylist(), strict=True)
    broken = tuple(f"{session}: {'; '.join(problems)}" for session, problems in rows)
    return CheckResult(broken, {"sessions": day[SESSIONS].num_rows})
