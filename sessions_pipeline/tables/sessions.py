"""One row per valid session: the 30 properties of the API's schema, and where each row comes from."""

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.table import CheckResult, DayTables, Table, check
from sessions_pipeline.validation.model import session_columns

REPEATING = frozenset(["tenant_id", "default_dataset_id", "reference_dataset_id", "trace_tier"])
LONG = frozenset(
    ["description", "extra", "feedback_stats", "session_feedback_stats", "run_facets", "experiment_progress"]
)

SESSIONS = Table(
    "sessions",
    "One row per valid session, with exact costs and the time that its numbers come from.",
    (
        *(
            column.Column(name, kind, description, nullable, repeats=name in REPEATING, long_text=name in LONG)
            for name, kind, nullable, description in session_columns()
        ),
        column.text(
            "unknown_fields",
            "Properties that the schema does not name, JSON text; null when there are none",
            long_text=True,
        ),
        column.time("fetched_at", "The reading that first brought what this row says", nullable=False),
        column.time(
            "stats_as_of",
            "The reading that counts, tokens, costs, latencies, rates and feedback come from; another than "
            "`fetched_at` when retention has emptied them since",
        ),
        column.Column(
            "problems",
            pa.list_(pa.string()),
            "Why a cost of this valid session is null, as `total_cost: is negative (-0.0012)`; null when there is "
            "nothing to report",
            long_text=True,
        ),
        column.time(
            "missing_since", "The first reading of its day that no longer contained it; null while the API has it"
        ),
    ),
    order=("start_time", "id"),
    sample=("name", "start_time", "run_count", "total_tokens", "total_cost"),
)
# Names in its file's metadata: what was found while the day was made.
SHRUNK, DRIFT = "shrunk", "drift"
OWNER = ("id", "tenant_id", "reference_dataset_id")
"""The columns that say whose a row is."""


def experiments(day: DayTables, columns: Sequence[str]) -> pa.Table:
    """These columns of the sessions that ran against a dataset."""
    sessions = day[SESSIONS].select(columns)
    return sessions.filter(sessions.column("reference_dataset_id").is_valid())


@check(
    SESSIONS,
    "Every session is in the lake once.",
    "Costs count twice; read their days again.",
    reads={SESSIONS: ("id",)},
)
def session_ids_are_unique(day: DayTables) -> CheckResult:
    """On all days together."""
    ids = day[SESSIONS].column("id")
    return CheckResult(counts={"sessions": len(ids)}, once=ids)


@check(
    SESSIONS,
    "Every session lies under the UTC day it started.",
    "Their costs stand on a wrong day; materialize the days again.",
    reads={SESSIONS: ("id", "start_time")},
)
def sessions_start_on_their_day(day: DayTables) -> CheckResult:
    """Where the day is none, without a start."""
    sessions = day[SESSIONS]
    started = pc.cast(sessions.column("start_time"), pa.timestamp("us")).cast(pa.date32(), safe=False)
    same = pc.equal(started, day.day) if day.day else pc.is_null(started)
    elsewhere = pc.invert(pc.fill_null(same, fill_value=False))
    return CheckResult(tuple(sessions.filter(elsewhere).column("id").to_pylist()), {"sessions": sessions.num_rows})


@check(
    SESSIONS,
    "No session's newest reading says less than an earlier one without retention to explain it.",
    "Costs may have fallen, as the newest reading counts; compare these sessions with LangSmith's own pages.",
    reads={SESSIONS: ()},
    severity="warn",
)
def no_reading_shrinks(day: DayTables) -> CheckResult:
    """As it was found when the day was made."""
    return CheckResult(tuple(json.loads(day.metadata(SESSIONS).get(SHRUNK, "[]"))))


@check(
    SESSIONS,
    "The API sends no property or value that its schema does not name.",
    "No cost changes by it, and all is kept in raw_sessions; a newer version of this package may name it.",
    reads={SESSIONS: ()},
    severity="warn",
)
def schema_has_not_drifted(day: DayTables) -> CheckResult:
    """By name and day, as it was found when the day was made."""
    drift = json.loads(day.metadata(SESSIONS).get(DRIFT, "{}"))
    return CheckResult(tuple(f"{name} ({count} records on {day.day})" for name, count in drift.items()), drift)


@check(
    SESSIONS,
    "Every cost that the API sends can be used.",
    "These costs are unknown and in no sum; the column problems of sessions has the reasons.",
    reads={SESSIONS: ("id", "problems")},
    severity="warn",
)
def costs_are_usable(day: DayTables) -> CheckResult:
    """A cost that can't be is null, and its session says why."""
    sessions = day[SESSIONS].filter(day[SESSIONS].column("problems").is_valid())
    rows = zip(sessions.column("id").to_pylist(), sessions.column("problems").to_pylist(), strict=True)
    return CheckResult(
        tuple(f"{session}: {'; '.join(problems)}" for session, problems in rows),
        {"sessions": day[SESSIONS].num_rows},
    )
