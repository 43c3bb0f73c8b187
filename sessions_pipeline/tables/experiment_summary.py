"""One row per experiment: what it cost, how fast it was and how it scored."""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import conform
from sessions_pipeline.tables.session_feedback import SESSION_FEEDBACK
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.tables.table import ALL, DayTables, Table, derived
from sessions_pipeline.validation.types import MONEY

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
        column.money("cost_per_run", "Total cost divided by runs, rounded half-even to 18 digits"),
        column.number("latency_p50", "Median latency of a run, seconds"),
        column.number("latency_p99", "99th percentile of a run's latency, seconds"),
        column.number("error_rate", "Share of runs that failed, 0 to 1"),
        column.number("run_progress", "Share of the expected runs that are done, 0 to 1"),
        column.Column("scores", pa.list_(_SCORE), "Its feedback with an average, by key and scope", repeats=True),
    ),
    order=("start_time", "id"),
    group="insight",
)

_COPIED = tuple(name for name in EXPERIMENT_SUMMARY.schema.names if name in SESSIONS.schema.names)
NEEDED = (*_COPIED, "end_time", "last_run_start_time", "experiment_progress")
# A cost has 38 digits and a count of runs 19: with 80 digits a quotient is exact far beyond the last one kept.
_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)
_LAST_DIGIT = Decimal(1).scaleb(-MONEY.scale)
_SCORES = EXPERIMENT_SUMMARY.schema.field("scores").type


class _Progress(msgspec.Struct):
    run_progress: float | None = None


_PROGRESS = msgspec.json.Decoder(_Progress)


@derived(EXPERIMENT_SUMMARY, reads={SESSIONS: NEEDED, SESSION_FEEDBACK: ALL}, by_session=True)
def experiment_summary(day: DayTables) -> pa.Table:
    """The sessions of a day that ran against a dataset, with their scores."""
    sessions = day[SESSIONS].select(NEEDED)
    found = sessions.filter(sessions.column("reference_dataset_id").is_valid())
    ends = pc.coalesce(found.column("end_time"), found.column("last_run_start_time"))
    progress = [_progress(text) for text in found.column("experiment_progress").to_pylist()]
    found = found.append_column("duration_seconds", _seconds(found.column("start_time"), ends))
    found = found.append_column("cost_per_run", _cost_per_run(found.column("total_cost"), found.column("run_count")))
    found = found.append_column("run_progress", pa.array(progress, pa.float64()))
    found = found.append_column("scores", _scores(found.column("id"), day[SESSION_FEEDBACK]))
    return conform(found, EXPERIMENT_SUMMARY.schema)


def _seconds(starts: Any, ends: Any) -> Any:
    """Seconds from start to end; null where one is unknown or the end lies before the start."""
    microseconds = pc.subtract(ends, starts).cast(pa.int64())
    seconds = pc.divide(microseconds.cast(pa.float64(), safe=False), 1e6)
    return pc.if_else(pc.greater_equal(microseconds, 0), seconds, pa.scalar(None, pa.float64()))


def _cost_per_run(costs: Any, runs: Any) -> Any:
    """Cost divided by runs, rounded once, half to even; null where one is unknown or there are no runs.

    In Python, because Arrow's quotients of decimals are wrong near multiples of 2**32 (as of pyarrow 26). A quotient
    that is not a tie differs from it by at least 1 / (2 * 2**63) of the last kept digit, so that the digits that
    `_EXACT` cuts can't change the rounding.
    """
    pairs = zip(costs.to_pylist(), runs.to_pylist(), strict=True)
    return pa.array(
        [
            _EXACT.quantize(_EXACT.divide(cost, run), _LAST_DIGIT)
            if cost is not None and run is not None and run > 0
            else None
            for cost, run in pairs
        ],
        MONEY,
    )


def _progress(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return _PROGRESS.decode(text).run_progress
    except msgspec.DecodeError:
        return None


def _scores(ids: Any, feedback: pa.Table) -> Any:
    """For each id its feedback that has an average, ordered by key and scope; an empty list where there is none."""
    scored = feedback.filter(feedback.column("average").is_valid())
    # Which row of `ids` a score belongs to; feedback on sessions that are no experiments finds none.
    parents = pc.index_in(scored.column("session_id"), value_set=ids.combine_chunks())
    scored = scored.append_column("parent", parents.cast(pa.int64())).filter(parents.is_valid())
    scored = scored.sort_by([(name, "ascending") for name in ("parent", "feedback_key", "scope")]).combine_chunks()
    offsets = pc.search_sorted(_array(scored, "parent"), pa.arange(0, len(ids) + 1))
    structs = pa.StructArray.from_arrays(
        [_array(scored, field.name) for field in _SCORES.value_type], fields=list(_SCORES.value_type)
    )
    return pa.ListArray.from_arrays(offsets.cast(pa.int32()), structs, type=_SCORES)


def _array(table: pa.Table, name: str) -> Any:
    return table.column(name).combine_chunks()
