"""A session's JSON: its numbers are sums over its runs from some time on."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sessions_pipeline.sandbox.company import DATASETS, Run, Session

STATS = (
    "run_count",
    "latency_p50",
    "latency_p99",
    "first_token_p50",
    "first_token_p99",
    "total_tokens",
    "prompt_tokens",
    "completion_tokens",
    "total_cost",
    "prompt_cost",
    "completion_cost",
    "feedback_stats",
    "session_feedback_stats",
    "run_facets",
    "error_rate",
    "streaming_rate",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_json(
    session: Session,
    *,
    now: datetime,
    include_stats: bool,
    facets: bool = False,
    since_us: int | None = None,
    only_errors: bool | None = None,
    select: Collection[str] | None = None,
    offset: str = "",
) -> dict[str, Any]:
    """The `TracerSession` of the schema.

    `since_us` and `only_errors` choose the runs, `select` the stats; `offset` is written after every time.
    """
    record: dict[str, Any] = {
        "id": session.id,
        "tenant_id": session.tenant_id,
        "name": session.name,
        "description": f"{session.team}: {session.model}",
        "end_time": _time(session.end, offset),
        "extra": session.extra,
        "default_dataset_id": None,
        "reference_dataset_id": DATASETS[session.dataset] if session.dataset else None,
        "trace_tier": "longlived" if session.dataset else "shortlived",
        "test_run_number": session.seed % 1000 if session.dataset else None,
        "last_run_start_time": _time(latest_run(session), offset),
        "last_run_start_time_live": None,
        "experiment_progress": _progress(session) if session.dataset else None,
        **dict.fromkeys(STATS),
    }
    if session.start is not None:
        record["start_time"] = _time(session.start, offset)
    if session.seed % 4 == 0:
        record["longlived_ttl_days"] = 400
    if include_stats:
        runs = [
            run
            for run in session.runs
            if (since_us is None or run.start_us >= since_us) and (only_errors is None or run.is_error is only_errors)
        ]
        stats = {**of_runs(runs, session), "feedback_stats": session.feedback(now), "session_feedback_stats": {}}
        stats["run_facets"] = [{"key": "model", "value": session.model, "n": len(runs)}] if facets else []
        record |= {name: value for name, value in stats.items() if select is None or name in select}
    return record | session.broken


def of_runs(runs: Sequence[Run], session: Session) -> dict[str, Any]:
    """Counts, tokens, exact costs, latencies and rates of some runs; a model without a price costs 0 or is unknown."""
    prompt, completion = sum(run.prompt_tokens for run in runs), sum(run.completion_tokens for run in runs)
    prompt_cost, completion_cost = sum(run.prompt_cost for run in runs), sum(run.completion_cost for run in runs)
    unknown = session.model == "in-house-7b" and session.seed % 2 == 0
    latencies, first_tokens = sorted(run.latency for run in runs), sorted(run.first_token for run in runs)
    return {
        "run_count": len(runs),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_cost": None if unknown else dollars(prompt_cost),
        "completion_cost": None if unknown else dollars(completion_cost),
        "total_cost": None if unknown else dollars(prompt_cost + completion_cost),
        "latency_p50": _percentile(latencies, 0.5),
        "latency_p99": _percentile(latencies, 0.99),
        "first_token_p50": _percentile(first_tokens, 0.5),
        "first_token_p99": _percentile(first_tokens, 0.99),
        "error_rate": round(sum(run.is_error for run in runs) / len(runs), 6) if runs else None,
        "streaming_rate": round(sum(run.is_streamed for run in runs) / len(runs), 6) if runs else None,
    }


def latest_run(session: Session) -> datetime | None:
    """When its latest run started, whatever runs are counted."""
    return _EPOCH + timedelta(microseconds=session.runs[-1].start_us) if session.runs else None


def dollars(billionths: int) -> str:
    """An exact decimal text, such as 0.000123."""
    text = f"{billionths // 10**9}.{billionths % 10**9:09}".rstrip("0")
    return text.removesuffix(".")


def _percentile(values: Sequence[float], share: float) -> float | None:
    return values[min(int(len(values) * share), len(values) - 1)] if values else None


def _progress(session: Session) -> dict[str, Any]:
    return {"expected_run_count": session.run_count, "run_progress": 1.0, "evaluator_progress": {"correctness": 1.0}}


def _time(time: datetime | None, offset: str) -> str | None:
    return None if time is None else f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}{offset}"
