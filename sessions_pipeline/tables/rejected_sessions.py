"""Records that failed validation, kept with the reasons."""

from collections import Counter

import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import tuples
from sessions_pipeline.tables.raw_sessions import IDENTITY, RAW_SESSIONS
from sessions_pipeline.tables.readings import gone_since, load_readings, plain_key, unconfirmed
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.tables.table import AS_OF, COMMIT, DERIVED, READINGS, CheckResult, DayTables, Table, check

# A smaller share of rejected records is everyday noise. The settings' rejection threshold guards against floods.
REJECTED_SHARE = 0.05

REJECTED_SESSIONS = Table(
    "rejected_sessions",
    "Records that failed validation, each with all reasons and the payload as sent.",
    (
        *IDENTITY,
        column.texts("reasons", "All reasons, each as `field: what is wrong`", nullable=False),
        column.text("payload", "The record's JSON text, verbatim", nullable=False),
        column.time("fetched_at", "When the reading began that first returned the record", nullable=False),
    ),
    order=("session_id",),
)


@check(
    RAW_SESSIONS,
    "Every record that the latest reading received is stored as valid or rejected, or was a repetition.",
    "Costs may lack a session or include a wrong one; materialize these days again.",
    reads={RAW_SESSIONS: (), SESSIONS: ("id", "missing_since"), REJECTED_SESSIONS: ("session_id", "payload")},
)
def every_record_is_accounted_for(day: DayTables) -> CheckResult:
    """Adds up the latest readings of all workspaces; sessions that only late readings have are subtracted.

    Tables that were made as of an earlier time are not checked, nor are those made from an earlier commit, which
    `tables_of_a_day_agree` reports.
    """
    if AS_OF in day.metadata(SESSIONS) or _outdated(day, SESSIONS, REJECTED_SESSIONS):
        return CheckResult()
    readings = load_readings(day.metadata(RAW_SESSIONS)[READINGS])
    missing = day[SESSIONS].filter(pc.is_valid(day[SESSIONS].column("missing_since"))).column("id").to_pylist()
    gone = gone_since(readings).keys() - {*missing}
    keys = Counter(plain_key(*row) for row in tuples(day[REJECTED_SESSIONS], "session_id", "payload"))
    # A row does not say in which workspace it was read, so of rows with the same plain key only the number is known.
    endings = ["", *(f" of {workspace}" for workspace in {reading.asked for reading in readings})]
    rejected = sum(max(0, rows - len(gone.intersection(map(key.__add__, endings)))) for key, rows in keys.items())
    counts = {
        "received": sum(reading.received for reading in day.last_readings),
        "valid": day[SESSIONS].column("missing_since").null_count,
        "rejected": rejected,
        "repeated": sum(reading.repeated for reading in day.last_readings),
    }
    late = {"seen_late": count} if (count := len(unconfirmed(readings))) else {}
    found = counts["valid"] + counts["rejected"] + counts["repeated"] - sum(late.values())
    # A reading of several workspaces stays the latest of those that are not read any more, when others are read again.
    # How many of its records are theirs is not known.
    surely, newer = 0, set[str]()
    for reading in reversed(day.last_readings):
        surely += reading.received if newer.isdisjoint(reading.workspaces) else 0
        newer.update(reading.workspaces)
    listed = ", ".join(f"{name} {count}" for name, count in (counts | late).items())
    is_complete = surely <= found <= counts["received"]
    return CheckResult(() if is_complete else (f"{day.day}: {listed}",), counts | late)


@check(
    SESSIONS,
    "All tables of a day come from the same readings.",
    "Costs may be older than their sessions; materialize these days again.",
    reads={RAW_SESSIONS: ()},
)
def tables_of_a_day_agree(day: DayTables) -> CheckResult:
    """Compares the raw commits that the tables were made from; tables that the day lacks don't count."""
    derived = [table for table in (SESSIONS, REJECTED_SESSIONS, *DERIVED) if day.load(table)]
    return CheckResult(_outdated(day, *derived), {"tables": len(derived)})


def _outdated(day: DayTables, *derived: Table) -> tuple[str, ...]:
    commit = day.metadata(RAW_SESSIONS).get(COMMIT)
    return tuple(f"{table.name} of {day.day}" for table in derived if day.metadata(table).get(COMMIT) != commit)


@check(
    REJECTED_SESSIONS,
    "At most one in twenty of a day's records is rejected.",
    "Costs of rejected records are in no sum, so sums may be too low; see the column reasons of rejected_sessions.",
    reads={REJECTED_SESSIONS: ("reasons",), SESSIONS: ("missing_since",)},
    severity="warn",
)
def rejected_share_is_low(day: DayTables) -> CheckResult:
    """Names the most common reason."""
    rejected, valid = day[REJECTED_SESSIONS].num_rows, day[SESSIONS].num_rows
    broken: tuple[str, ...] = ()
    if rejected > REJECTED_SHARE * (rejected + valid):
        reasons = Counter(reason for row in day[REJECTED_SESSIONS].column("reasons").to_pylist() for reason in row)
        ((reason, _),) = reasons.most_common(1)
        broken = (f"{day.day}: {rejected} of {rejected + valid} ({reason})",)
    return CheckResult(broken, {"rejected": rejected, "valid": valid})
