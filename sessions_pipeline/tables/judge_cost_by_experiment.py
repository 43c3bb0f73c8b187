"""What evaluators (judges) have spent on each experiment so far, found by the experiment's name in their project.

Rules:

- Measured are the experiments that ran in the last two days, and those that were never measured and started in the
  last 14 days. Traces of earlier judges may be deleted, which looks as if they had never spent anything.
- If one night's limit is too low for all, experiments that were never measured come first, then those measured longest
  ago; among equals, the one that started first. So each gets its turn.
- Experiments of one workspace that share a name can't be told apart: each would be given the costs of both. None of
  them is measured, and a row read before another experiment got the name stays.
- Where no judge has run (`run_count` is 0), an amount that the API gives as null is zero.
- Numbers that retention has emptied never replace earlier ones.
- An experiment whose start time has changed has rows on two days. Only the row on its present day is measured again;
  the other one stays, as the experiment's own cost does.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import EPOCH
from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import tuples
from sessions_pipeline.tables.retention import SHORTLIVED, SessionState, known_runs, stats_of
from sessions_pipeline.tables.sessions import OWNER, SESSIONS
from sessions_pipeline.tables.table import CheckResult, DayTables, Table, check
from sessions_pipeline.validation.types import TIMESTAMP

JUDGE_COST_BY_EXPERIMENT = Table(
    "judge_cost_by_experiment",
    "What evaluators have spent on each experiment so far. No row: not measured; null: measured, but unknown.",
    (
        column.SESSION,
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        column.count("run_count", "Traces of its judges; null when unknown"),
        column.count("total_tokens", "Tokens that its judges used; null when unknown"),
        *column.COSTS,
        column.time("stats_as_of", "Time of the reading that the counts and costs come from", nullable=False),
        column.time(
            "read_at", "Time of the latest reading; after `stats_as_of` if retention has emptied it", nullable=False
        ),
    ),
    order=("tenant_id", "id"),
    group="costs",
)
TIMES = ("start_time", "last_run_start_time", "last_run_start_time_live")
NEEDED = (*OWNER, "name", *TIMES, "fetched_at", "missing_since")
"""The columns of `sessions` that `due` needs."""
RECENT = timedelta(days=2)
# The API's shorter retention time: judges' traces are seldom kept for longer.
YOUNG = SHORTLIVED
# Servers refuse URLs of 8,000 characters or more, and an encoded letter takes up to 12.
LONGEST_NAME = 500
TOO_LONG = f"the name has over {LONGEST_NAME} characters"
UNUSABLE = "the name is empty or has control characters"
SHARED = "another experiment has the same name"
NAME_PROBLEMS = (TOO_LONG, UNUSABLE, SHARED)
"""The reasons that last until the experiment is renamed."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Due(NamedTuple):
    """The experiments to measure now, in order; and by reason, how many others keep an old row or get none."""

    rows: list[dict[str, Any]]
    skipped: Counter[str]


def due(experiments: pa.Table, measured: Mapping[str, datetime], *, now: datetime, most: int, young: timedelta) -> Due:
    """The experiments of a workspace to measure now, by the rules above.

    Args:
        experiments: all known experiments of the workspace, with the columns `NEEDED`.
        measured: when experiments were last measured, by id.
        now: the current time.
        most: how many experiments may be measured.
        young: the age until which experiments that were never measured are due.
    """
    ids_by_name = experiments.group_by("name").aggregate([("id", "count_distinct")])
    shared = set(ids_by_name.filter(pc.greater(ids_by_name["id_count_distinct"], 1)).column("name").to_pylist())
    since = pa.scalar(now - max(young, RECENT), TIMESTAMP)
    is_recent = reduce(pc.or_kleene, (pc.greater_equal(experiments.column(name), since) for name in TIMES))
    ids = experiments.filter(is_recent).column("id")
    # Of an experiment on two days the last row counts: one that is not missing (nulls are last), else the newest.
    rows = experiments.filter(pc.is_in(experiments.column("id"), ids))
    rows = rows.sort_by([(name, "ascending") for name in ("missing_since", "fetched_at", "start_time")])
    recent, chosen, skipped = {row["id"]: row for row in rows.to_pylist()}, list[dict[str, Any]](), Counter[str]()
    too_old = set(experiments.column("id").to_pylist()).difference(measured, recent)
    for row in recent.values():
        last_active = max(row[name] or EPOCH for name in TIMES)
        started = row["start_time"] or last_active
        if last_active < now - RECENT and (started <= now - young or row["id"] in measured):
            too_old |= {row["id"]} - measured.keys()
        elif len(row["name"] or "") > LONGEST_NAME:
            skipped[TOO_LONG] += 1
        elif not row["name"] or _CONTROL.search(row["name"]):
            skipped[UNUSABLE] += 1
        elif row["name"] in shared:
            skipped[SHARED] += 1
        else:
            chosen.append({**row, "started": started})
    chosen.sort(key=lambda row: (measured.get(row["id"], EPOCH), row["started"], row["id"]))
    if len(chosen) > most:
        skipped["more than SESSIONS_PIPELINE_JUDGE_REQUESTS"] = len(chosen) - most
    if too_old:
        skipped[f"never measured, and older than {young.days} days"] = len(too_old)
    return Due(chosen[:most], skipped)


def merge_judges(stored: pa.Table, read: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Merge a reading of some experiments into the stored rows of their day.

    `read`: rows of this table with the experiment's `start_time` added.
    """
    rows = {(row["tenant_id"], row["id"]): row for row in stored.to_pylist()}
    for row in read:
        old = rows.get(key := (row["tenant_id"], row["id"]))
        both = sorted([row, *([old] if old else [])], key=itemgetter("read_at"))
        known = (known_runs(one["run_count"], (one[name] for name in column.MEASURES)) for one in both)
        states = [SessionState(at, both[at]["read_at"], runs, None, row["start_time"]) for at, runs in enumerate(known)]
        source, _ = stats_of(states)
        rows[key] = {**both[source.row], "read_at": both[-1]["read_at"]}
    return pa.Table.from_pylist(list(rows.values()), JUDGE_COST_BY_EXPERIMENT.schema)


@check(
    JUDGE_COST_BY_EXPERIMENT,
    "Each row belongs to an experiment of its day, each experiment has one row at most, and no number is negative.",
    "Costs with judges may be wrong, experiments' own are not; read these days again, then run measure_judge_costs.",
    reads={JUDGE_COST_BY_EXPERIMENT: (*OWNER, *column.MEASURES), SESSIONS: OWNER},
)
def judges_have_experiments(day: DayTables) -> CheckResult:
    """Compares ids, workspaces and datasets. Null is allowed: it means unknown."""
    known, broken = set(tuples(day[SESSIONS], *OWNER)), list[str]()
    for row in tuples(day[JUDGE_COST_BY_EXPERIMENT], *OWNER, *column.MEASURES):
        if row[:3] not in known or any(value is not None and value < 0 for value in row[3:]):
            broken.append(row[0])
        known.discard(row[:3])
    return CheckResult(tuple(broken), {"experiments": day[JUDGE_COST_BY_EXPERIMENT].num_rows})
