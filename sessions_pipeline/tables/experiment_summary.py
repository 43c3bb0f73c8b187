"""One row per experiment: what it cost, how fast it was and how it scored."""

from itertools import starmap
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import cost_per_run, tuples
from sessions_pipeline.tables.session_feedback import SESSION_FEEDBACK
from sessions_pipeline.tables.sessions import SESSIONS, experiments
from sessions_pipeline.tables.table import ALL, DayTables, Table, derived

_SCORE = pa.struct({"feedback_key": pa.string(), "scope": pa.string(), "average": pa.float64(), "count": pa.int64()})

EXPERIMENT_SUMMARY = Table(
    "experiment_summary",
    "One row per experiment: what it cost, how fast it was and how it scored.",
    (
        column.SESSION,
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        column.text("name", "The experiment's name"),
        column.time("start_time", "When it started"),
        column.number("duration_seconds", "From start to end, or else to its latest run's start; null when unknown"),
        column.RUN_COUNT,
        column.TOTAL_TOKENS,
        column.money("total_cost", "Total cost"),
        column.money("cost_per_run", "Total cost divided by traces, rounded half-even to 18 digits"),
        column.number("latency_p50", "Median latency of a run, seconds"),
        column.number("latency_p99", "99th percentile of a run's latency, seconds"),
        column.number("error_rate", "Share of runs that failed, 0 to 1"),
        column.number("run_progress", "Share of the expected runs that are done, 0 to 1"),
        column.Column("scores", pa.list_(_SCORE), "Its feedback with an average, by key and scope", repeats=True),
    ),
    order=("start_time", "id"),
    group="experiments",
)

_COPIED = tuple(name for name in EXPERIMENT_SUMMARY.schema.names if name in SESSIONS.schema.names)
NEEDED = (*_COPIED, "end_time", "last_run_start_time", "experiment_progress")


class _Progress(msgspec.Struct):
    run_progress: float


# As the validation lets no other through.
_PROGRESS = msgspec.json.Decoder(list[_Progress | None])


@derived(EXPERIMENT_SUMMARY, reads={SESSIONS: NEEDED, SESSION_FEEDBACK: ALL}, by_session=True)
def experiment_summary(day: DayTables) -> pa.Table:
    """The sessions of a day that ran against a dataset, with their scores."""
    found = experiments(day, NEEDED)
    progress = ",".join(text or "null" for text in found.column("experiment_progress").to_pylist())
    ends = pc.coalesce(found.column("end_time"), found.column("last_run_start_time"))
    made = {
        "duration_seconds": _seconds(found.column("start_time"), ends),
        "cost_per_run": list(starmap(cost_per_run, tuples(found, "total_cost", "run_count"))),
        "run_progress": [one and one.run_progress for one in _PROGRESS.decode(f"[{progress}]")],
        "scores": _scores(found.column("id"), day[SESSION_FEEDBACK]),
    }
    columns = [made[name] if name in made else found.column(name) for name in EXPERIMENT_SUMMARY.schema.names]
    return pa.table(columns, EXPERIMENT_SUMMARY.schema)


def _seconds(starts: Any, ends: Any) -> Any:
    """Seconds from start to end; null where one is unknown or the end lies before the start."""
    microseconds = pc.subtract(ends, starts).cast(pa.int64())
    seconds = pc.divide(microseconds.cast(pa.float64(), safe=False), 1e6)
    return pc.if_else(pc.greater_equal(microseconds, 0), seconds, pa.scalar(None, pa.float64()))


def _scores(ids: pa.ChunkedArray, feedback: pa.Table) -> pa.ListArray:
    """For each session its feedback that has an average, ordered by key and scope."""
    places = pc.index_in(feedback.column("session_id"), value_set=ids.combine_chunks())
    scored = feedback.select([field.name for field in _SCORE]).append_column("place", places)
    scored = scored.filter(pc.and_(places.is_valid(), scored.column("average").is_valid()))
    scored = scored.sort_by([(name, "ascending") for name in ("place", "feedback_key", "scope")]).combine_chunks()
    scores = scored.drop_columns("place").to_struct_array().combine_chunks()
    starts = pc.search_sorted(scored.column("place").combine_chunks(), pa.array(range(len(ids) + 1), pa.int32()))
    return pa.ListArray.from_arrays(starts.cast(pa.int32()), scores.cast(_SCORE))
