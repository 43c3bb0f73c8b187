"""Records that failed validation, nothing lost."""

from collections import Counter

import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import tuples
from sessions_pipeline.tables.raw_sessions import IDENTITY, RAW_SESSIONS
from sessions_pipeline.tables.readings import COMMIT, READINGS, gone_since, load_readings, record_key, unconfirmed
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.tables.table import DERIVED, CheckResult, DayTables, Table, check

# Rejected records below this share are everyday noise; the threshold in the settings guards against more.
REJECTED_SHARE = 0.05

REJECTED_SESSIONS = Table(
    "rejected_sessions",
    "Records that failed validation, with every reason and the payload as sent. Nothing is lost.",
    (
        *IDENTITY,
        column.Column(
            "reasons",
            pa.list_(pa.string()),
            "Every reason, as `field: what is wrong`",
            nullable=False,
            repeats=True,
            long_text=True,
        ),
        column.text("payload", "The record's JSON text, verbatim", nullable=False, long_text=True),
        column.time("fetched_at", "The reading that first brought the record", nullable=False),
    ),
    order=("session_id", "payload"),
    sample=("session_id", "reasons"),
)


@check(
    RAW_SESSIONS,
    "What the latest reading received is valid, rejected or repeated: nothing is lost.",
    "Costs may miss a session or hold a wrong one; materialize these days again.",
    reads={
        RAW_SESSIONS: (),
        SESSIONS: ("missing_since",),
        REJECTED_SESSIONS: ("session_id", "tenant_id", "payload"),
    },
)
def every_record_is_accounted_for(day: DayTables) -> CheckResult:
    """Of each workspace's latest reading, and without what late readings alone have seen.

    Tables that were made as of an earlier time are passed over.
    """
    if "as_of" in day.metadata(SESSIONS):
        return CheckResult()
    readings = load_readings(day.metadata(RAW_SESSIONS)[READINGS])
    gone = gone_since(readings).keys()
    rows = tuples(day[REJECTED_SESSIONS], "session_id", "tenant_id", "payload")
    # A record of another workspace than was asked for has a key that says so; which it is can't be seen from the row.
    keys = [{record_key(id_, tenant, payload, asked) for asked in (None, "")} for id_, tenant, payload in rows]
    counts = {
        "received": sum(reading.received for reading in day.last_read),
        "valid": day[SESSIONS].column("missing_since").null_count,
        "rejected": sum(gone.isdisjoint(either) for either in keys),
        "repeated": sum(reading.repeated for reading in day.last_read),
    }
    late = {"seen_late": count} if (count := len(unconfirmed(readings))) else {}
    found = counts["valid"] + counts["rejected"] + counts["repeated"] - sum(late.values())
    said = ", ".join(f"{name} {count}" for name, count in (counts | late).items())
    return CheckResult((f"{day.day}: {said}",) if counts["received"] != found else (), counts | late)


@check(
    SESSIONS,
    "All tables of a day come from the same readings.",
    "Costs may be older than their sessions; materialize these days again.",
    reads={RAW_SESSIONS: ()},
)
def tables_of_a_day_agree(day: DayTables) -> CheckResult:
    """By the commit that each was made from; what the day does not have is no disagreement."""
    commit = day.metadata(RAW_SESSIONS).get(COMMIT)
    made = [table for table in (SESSIONS, REJECTED_SESSIONS, *DERIVED) if day.has(table)]
    broken = [table.name for table in made if day.metadata(table).get(COMMIT) != commit]
    return CheckResult(tuple(f"{name} of {day.day}" for name in broken), {"tables": len(made)})


@check(
    REJECTED_SESSIONS,
    "At most one record in twenty of a day is rejected.",
    "Costs of rejected records are in no sum, so sums may be too low; see reasons in rejected_sessions.",
    reads={REJECTED_SESSIONS: ("reasons",), SESSIONS: ("missing_since",)},
    severity="warn",
)
def rejected_share_is_low(day: DayTables) -> CheckResult:
    """Named with the commonest reason."""
    rejected, valid = day[REJECTED_SESSIONS].num_rows, day[SESSIONS].num_rows
    broken: tuple[str, ...] = ()
    if rejected > REJECTED_SHARE * (rejected + valid):
        reasons = Counter(reason for row in day[REJECTED_SESSIONS].column("reasons").to_pylist() for reason in row)
        ((reason, _),) = reasons.most_common(1)
        broken = (f"{day.day}: {rejected} of {rejected + valid} ({reason})",)
    return CheckResult(broken, {"rejected": rejected, "valid": valid})
