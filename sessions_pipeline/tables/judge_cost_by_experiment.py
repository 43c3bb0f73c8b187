"""What evaluators have spent on each experiment so far, as the project that they trace to says by its name.

Rules:

- Measured are experiments that ran in the last two days, and those that never were and are younger than 14: what the
  API keeps no longer can't be told from what was never spent.
- Experiments of one workspace that share a name can't be told apart by it, and what was spent on both would count
  twice. None of them is measured; what was read before another had the name stays.
- What retention has emptied never replaces what was read.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import EPOCH
from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import tuples
from sessions_pipeline.tables.retention import SHORTLIVED, Version, stats_of
from sessions_pipeline.tables.sessions import SESSIONS
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
MEASURES = JUDGE_COST_BY_EXPERIMENT.schema.names[3:8]
NEEDED = (
    *("id", "tenant_id", "reference_dataset_id", "name", "start_time"),
    *("last_run_start_time", "last_run_start_time_live"),
)
"""The columns of `sessions` that say which experiments are to be measured."""
RECENT = timedelta(days=2)
# The shorter time that the API keeps traces for; judges' traces are seldom kept for longer.
YOUNG = SHORTLIVED
Key: TypeAlias = tuple[str, str]
"""A workspace and an experiment."""
Row: TypeAlias = Mapping[str, Any]


class Due(NamedTuple):
    """Experiments to measure, newest first; and how many of each workspace can't be, by the reason."""

    rows: list[dict[str, Any]]
    skipped: Counter[tuple[str, str]]


def due(
    experiments: pa.Table,
    measured: Collection[Key],
    *,
    now: datetime,
    most: int,
    young: timedelta,
    can_be_asked_for: Callable[[str | None], bool],
) -> Due:
    """Which of all known experiments, with the columns `NEEDED`, are to be measured now, `most` at most."""
    known_by = experiments.group_by(["tenant_id", "name"]).aggregate([("id", "count_distinct")])
    shared = set(tuples(known_by.filter(pc.greater(known_by["id_count_distinct"], 1)), "tenant_id", "name"))
    since = pa.scalar(now - max(young, RECENT), TIMESTAMP)
    chosen, skipped = list[dict[str, Any]](), Counter[tuple[str, str]]()
    recent = reduce(pc.or_kleene, (pc.greater_equal(experiments.column(name), since) for name in NEEDED[4:]))
    for row in experiments.filter(recent).to_pylist():
        ran = max(row[name] or EPOCH for name in NEEDED[4:])
        started = row["start_time"] or ran
        is_new = started > now - young and (row["tenant_id"], row["id"]) not in measured
        if not is_new and ran < now - RECENT:
            continue
        if not can_be_asked_for(row["name"]):
            skipped[row["tenant_id"], "the name can't be asked for"] += 1
        elif (row["tenant_id"], row["name"]) in shared:
            skipped[row["tenant_id"], "another experiment has the same name"] += 1
        else:
            chosen.append({**row, "started": started})
    chosen.sort(key=itemgetter("started", "id"), reverse=True)
    for row in chosen[most:]:
        skipped[row["tenant_id"], "more than SESSIONS_PIPELINE_JUDGE_REQUESTS"] += 1
    return Due(chosen[:most], skipped)


def merge_judges(stored: pa.Table | None, read: Sequence[Row]) -> pa.Table:
    """The rows of a day after a reading of some of its experiments, whose rows have their `start_time`, too."""
    rows = {(row["tenant_id"], row["id"]): row for row in (stored.to_pylist() if stored else ())}
    for row in read:
        held = rows.get(key := (row["tenant_id"], row["id"]))
        both = sorted([row, *([held] if held else [])], key=itemgetter("read_at"))
        versions = [
            Version(place, one["read_at"], one["run_count"] or 0, None, row["start_time"])
            for place, one in enumerate(both)
        ]
        source, _ = stats_of(versions)
        rows[key] = {**both[source.row], "read_at": both[-1]["read_at"]}
    return pa.Table.from_pylist(list(rows.values()), JUDGE_COST_BY_EXPERIMENT.schema)


@check(
    JUDGE_COST_BY_EXPERIMENT,
    "Judges are counted for experiments of the day alone, once each.",
    reads={JUDGE_COST_BY_EXPERIMENT: NEEDED[:3], SESSIONS: NEEDED[:3]},
)
def judges_have_experiments(day: DayTables) -> CheckResult:
    """By id, workspace and dataset."""
    judged = Counter(tuples(day[JUDGE_COST_BY_EXPERIMENT], *NEEDED[:3]))
    known = set(tuples(day[SESSIONS], *NEEDED[:3]))
    broken = [key[0] for key, times in judged.items() if times > 1 or key not in known]
    return CheckResult(tuple(sorted(broken)), {"experiments": judged.total()})


@check(
    JUDGE_COST_BY_EXPERIMENT,
    "No count or cost of judges is negative.",
    reads={JUDGE_COST_BY_EXPERIMENT: ("id", *MEASURES)},
)
def judge_costs_are_not_negative(day: DayTables) -> CheckResult:
    """Null is unknown, and all right."""
    rows = list(tuples(day[JUDGE_COST_BY_EXPERIMENT], "id", *MEASURES))
    return CheckResult(tuple(key for key, *values in rows if any(value is not None and value < 0 for value in values)))
