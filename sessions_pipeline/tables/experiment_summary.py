"""One row per experiment: its cost, its speed and its scores."""

from collections import Counter
from itertools import accumulate, starmap
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import cost_per_run, tuples
from sessions_pipeline.tables.session_feedback import SESSION_FEEDBACK
from sessions_pipeline.tables.sessions import SESSIONS, experiments
from sessions_pipeline.tables.table import Table, Tables, derived

_SCORE = pa.struct({"feedback_key": pa.string(), "scope": pa.string(), "average": pa.float64(), "count": pa.int64()})

EXPERIMENT_SUMMARY = Table(
    "experiment_summary",
    "One row per experiment: its cost, its speed and its scores.",
    (
        column.SESSION,
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        column.text("name", "The experiment's name"),
        column.time("start_time", "When it started"),
        column.number("duration_seconds", "From start to end, or else to the latest run's start; null when unknown"),
        *(column.SENT[name] for name in ("run_count", "total_tokens")),
        column.money("total_cost", "Total cost"),
        column.money("cost_per_run", "Total cost divided by traces, rounded half to even to 18 decimal places"),
        *(column.SENT[name] for name in ("latency_p50", "latency_p99", "error_rate")),
        column.number("run_progress", "Share of the expected runs that are done, 0 to 1"),
        column.Column(pa.list_(_SCORE), "scores", "Its feedback that has an average, by key and scope"),
    ),
    order=("start_time", "id"),
    group="experiments",
)

_COPIED = tuple(name for name in EXPERIMENT_SUMMARY.schema.names if name in SESSIONS.schema.names)
_SCORED = tuple(field.name for field in _SCORE)
NEEDED = (*_COPIED, "end_time", "last_run_start_time", "experiment_progress")


class _Progress(msgspec.Struct):
    run_progress: float


# Validation lets no `experiment_progress` of another form through.
_PROGRESS = msgspec.json.Decoder(list[_Progress | None])


@derived(EXPERIMENT_SUMMARY, reads={SESSIONS: NEEDED, SESSION_FEEDBACK: ("session_id", *_SCORED)}, by_session=True)
def experiment_summary(tables: Tables) -> pa.Table:
    """The day's experiments with their scores."""
    rows = experiments(tables, NEEDED)
    progress = ",".join(text or "null" for text in rows.column("experiment_progress").to_pylist())
    ends = pc.coalesce(rows.column("end_time"), rows.column("last_run_start_time"))
    computed = {
        "duration_seconds": _seconds(rows.column("start_time"), ends),
        "cost_per_run": list(starmap(cost_per_run, tuples(rows, "total_cost", "run_count"))),
        "run_progress": [decoded and decoded.run_progress for decoded in _PROGRESS.decode(f"[{progress}]")],
        "scores": _scores(rows.column("id"), tables[SESSION_FEEDBACK]),
    }
    columns = [computed[name] if name in computed else rows.column(name) for name in EXPERIMENT_SUMMARY.schema.names]
    return pa.table(columns, EXPERIMENT_SUMMARY.schema)


def _seconds(starts: Any, ends: Any) -> Any:
    """Seconds from start to end; null if either is unknown or the end is before the start."""
    microseconds = pc.subtract(ends, starts).cast(pa.int64())
    seconds = pc.divide(microseconds.cast(pa.float64(), safe=False), 1e6)
    return pc.if_else(pc.greater_equal(microseconds, 0), seconds, pa.scalar(None, pa.float64()))


def _scores(ids: pa.ChunkedArray, feedback: pa.Table) -> pa.ListArray:
    """For each session, its feedback that has an average, sorted by key and scope."""
    indices = pc.index_in(feedback.column("session_id"), value_set=ids.combine_chunks())
    scored = feedback.select(_SCORED).append_column("index", indices)
    scored = scored.filter(pc.and_(indices.is_valid(), scored.column("average").is_valid()))
    scored = scored.sort_by([(name, "ascending") for name in ("index", "feedback_key", "scope")]).combine_chunks()
    scores = scored.drop_columns("index").to_struct_array().combine_chunks()
    counts = Counter(scored.column("index").to_pylist())
    offsets = accumulate((counts[index] for index in range(len(ids))), initial=0)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), scores.cast(_SCORE))
