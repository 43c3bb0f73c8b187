"""What evaluators have spent on each experiment so far, as the project that they trace to says by its name.

Rules:

- Measured are experiments that ran in the last two days, and those that never were and are younger than 14: what the
  API keeps no longer can't be told from what was never spent.
- Where not all can be measured in a night, those come first that never were, then those that were longest ago; of
  these the oldest. So each gets its turn.
- Experiments of one workspace that share a name can't be told apart by it, and what was spent on both would count
  twice. None of them is measured; what was read before another had the name stays.
- What retention has emptied never replaces what was read.
- An experiment whose start time has changed stands on two days. It is measured where it stands now, and what its judges
  have spent counts there alone: its row on the other day says zero.
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
from sessions_pipeline.tables.retention import SHORTLIVED, Version, known_runs, stats_of
from sessions_pipeline.tables.sessions import OWNER, SESSIONS
from sessions_pipeline.tables.table import CheckResult, DayTables, Table, check
from sessions_pipeline.validation.types import TIMESTAMP

JUDGE_COST_BY_EXPERIMENT = Table(
    "judge_cost_by_experiment",
    "What evaluators have spent on each experiment so far. No row: not measured; null: asked, and unknown.",
    (
        column.SESSION,
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        column.count("run_count", "Traces of its judges; null when unknown"),
        column.count("total_tokens", "Tokens that its judges used; null when unknown"),
        *column.COSTS,
        column.time("stats_as_of", "The reading that the counts and costs come from", nullable=False),
        column.time(
            "read_at", "The latest reading; later than `stats_as_of` when retention has emptied it", nullable=False
        ),
    ),
    order=("tenant_id", "id"),
    group="costs",
)
TIMES = ("start_time", "last_run_start_time", "last_run_start_time_live")
NEEDED = (*OWNER, "name", *TIMES, "fetched_at", "missing_since")
"""The columns of `sessions` that say which experiments are to be measured."""
RECENT = timedelta(days=2)
# The shorter time that the API keeps traces for; judges' traces are seldom kept for longer.
YOUNG = SHORTLIVED
# Servers refuse addresses from 8,000 characters on, and a letter takes up to 12.
LONGEST_NAME = 500
TOO_LONG = f"the name has over {LONGEST_NAME} characters"
UNASKABLE = "the name can't be asked for"
SHARED = "another experiment has the same name"
OF_NAMES = (TOO_LONG, UNASKABLE, SHARED)
"""The reasons that stay until an experiment has another name."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Due(NamedTuple):
    """Experiments to measure, in order; and how many others will have no row, or an old one, by the reason."""

    rows: list[dict[str, Any]]
    skipped: Counter[str]


def due(experiments: pa.Table, measured: Mapping[str, datetime], *, now: datetime, most: int, young: timedelta) -> Due:
    """Which of a workspace's experiments, all that are known with the columns `NEEDED`, are to be measured now.

    `measured` tells by id when those that have been were last, `most` is how many may be, `young` the age of rule 1.
    """
    named = experiments.group_by("name").aggregate([("id", "count_distinct")])
    shared = set(named.filter(pc.greater(named["id_count_distinct"], 1)).column("name").to_pylist())
    since = pa.scalar(now - max(young, RECENT), TIMESTAMP)
    is_recent = reduce(pc.or_kleene, (pc.greater_equal(experiments.column(name), since) for name in TIMES))
    ids = experiments.filter(is_recent).column("id")
    # Of an experiment's rows the last counts: one that is not missing (nulls come last), and of these the newest.
    rows = experiments.filter(pc.is_in(experiments.column("id"), ids))
    rows = rows.sort_by([(name, "ascending") for name in ("missing_since", "fetched_at", "start_time")])
    recent, chosen, skipped = {row["id"]: row for row in rows.to_pylist()}, list[dict[str, Any]](), Counter[str]()
    never = set(experiments.column("id").to_pylist()).difference(measured, recent)
    for row in recent.values():
        ran = max(row[name] or EPOCH for name in TIMES)
        started = row["start_time"] or ran
        if ran < now - RECENT and (started <= now - young or row["id"] in measured):
            never |= {row["id"]} - measured.keys()
        elif len(row["name"] or "") > LONGEST_NAME:
            skipped[TOO_LONG] += 1
        elif not row["name"] or _CONTROL.search(row["name"]):
            skipped[UNASKABLE] += 1
        elif row["name"] in shared:
            skipped[SHARED] += 1
        else:
            chosen.append({**row, "started": started})
    chosen.sort(key=lambda row: (measured.get(row["id"], EPOCH), row["started"], row["id"]))
    if len(chosen) > most:
        skipped["more than SESSIONS_PIPELINE_JUDGE_REQUESTS"] = len(chosen) - most
    if never:
        skipped[f"never measured, and older than {young.days} days"] = len(never)
    return Due(chosen[:most], skipped)


def merge_judges(stored: pa.Table | None, read: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows of a day after a reading of some of its experiments, whose rows have their `start_time`, too."""
    rows = {(row["tenant_id"], row["id"]): row for row in (stored.to_pylist() if stored else ())}
    for row in read:
        held = rows.get(key := (row["tenant_id"], row["id"]))
        both = sorted([row, *([held] if held else [])], key=itemgetter("read_at"))
        runs = (known_runs(one["run_count"], (one[name] for name in column.MEASURES)) for one in both)
        versions = [Version(at, both[at]["read_at"], count, None, row["start_time"]) for at, count in enumerate(runs)]
        source, _ = stats_of(versions)
        rows[key] = {**both[source.row], "read_at": both[-1]["read_at"]}
    return pa.Table.from_pylist(list(rows.values()), JUDGE_COST_BY_EXPERIMENT.schema)


@check(
    JUDGE_COST_BY_EXPERIMENT,
    "Judges are counted for experiments of the day alone, once each, and never cost less than nothing.",
    "Costs with judges may be wrong, experiments' own are not; read these days again, then run measure_judge_costs.",
    reads={JUDGE_COST_BY_EXPERIMENT: (*OWNER, *column.MEASURES), SESSIONS: OWNER},
)
def judges_have_experiments(day: DayTables) -> CheckResult:
    """By id, workspace and dataset; null is unknown, and all right."""
    known, broken = set(tuples(day[SESSIONS], *OWNER)), list[str]()
    for row in tuples(day[JUDGE_COST_BY_EXPERIMENT], *OWNER, *column.MEASURES):
        if row[:3] not in known or any(value is not None and value < 0 for value in row[3:]):
            broken.append(row[0])
        known.discard(row[:3])
    return CheckResult(tuple(broken), {"experiments": day[JUDGE_COST_BY_EXPERIMENT].num_rows})
