"""Builds a session's JSON; its stats are computed from its runs."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sessions_pipeline.sandbox.company import EPOCH, LABELS, PRICES, Run, Session

COUNTS = ("run_count", "prompt_tokens", "completion_tokens", "total_tokens")
COSTS = ("prompt_cost", "completion_cost", "total_cost")
STATS = (
    *(*COUNTS, *COSTS, "latency_p50", "latency_p99", "first_token_p50", "first_token_p99"),
    *("error_rate", "streaming_rate", "feedback_stats", "session_feedback_stats", "run_facets"),
)
# A model's lowest average score for correctness.
QUALITY = {"gpt-5-mini": 0.55, "gpt-5.2": 0.75, "claude-sonnet-5": 0.78, "claude-opus-5": 0.85, "in-house-7b": 0.45}


def as_json(session: Session, offset: str, stats: dict[str, Any]) -> dict[str, Any]:
    """A `TracerSession` of the schema. `offset` is appended to every time."""
    latest = EPOCH + timedelta(microseconds=session.runs[-1].start_us) if session.runs else None
    is_experiment = session.dataset is not None
    return {
        "id": session.id,
        "tenant_id": session.tenant_id,
        "name": session.name,
        "description": None,
        **({} if session.undated else {"start_time": time_text(session.start, offset)}),
        "end_time": time_text(session.end, offset) if session.end and session.end <= session.until else None,
        "extra": _extra(session, offset),
        "default_dataset_id": None,
        "reference_dataset_id": session.dataset.id if session.dataset else None,
        "trace_tier": "longlived" if is_experiment else "shortlived",
        "test_run_number": session.seed % 500 + 1 if is_experiment else None,
        "last_run_start_time": time_text(latest, offset),
        "last_run_start_time_live": None,
        "experiment_progress": _progress(session) if is_experiment else None,
        **({"longlived_ttl_days": 400} if is_experiment and session.seed % 4 == 0 else {}),
        **stats,
    }


def stats_of(session: Session, runs: Sequence[Run], now: datetime) -> dict[str, Any]:
    """Counts, tokens, exact costs, latencies, rates and scores over some of a session's runs."""
    prompt, completion = sum(run.prompt_tokens for run in runs), sum(run.completion_tokens for run in runs)
    costs = sum(run.prompt_cost for run in runs), sum(run.completion_cost for run in runs)
    times = {"latency": sorted(run.latency for run in runs), "first_token": sorted(run.first_token for run in runs)}
    # Of the sessions with a model without a price, half have no cost, and half cost 0.
    known = PRICES[session.model] is not None or session.seed % 2
    return {
        **dict(zip(COUNTS, (len(runs), prompt, completion, prompt + completion), strict=True)),
        **{name: dollars(cost) if known else None for name, cost in zip(COSTS, (*costs, sum(costs)), strict=True)},
        **{f"{name}_p{part}": _percentile(values, part) for name, values in times.items() for part in (50, 99)},
        "error_rate": round(sum(run.is_error for run in runs) / len(runs), 6) if runs else None,
        "streaming_rate": round(sum(run.is_streamed for run in runs) / len(runs), 6) if runs else None,
        "feedback_stats": _feedback(session, now),
        "session_feedback_stats": {},
        "run_facets": [],
    }


def dollars(billionths: int) -> str:
    """An exact decimal text, such as 0.000123."""
    return f"{billionths // 10**9}.{billionths % 10**9:09}".rstrip("0").removesuffix(".")


def time_text(time: datetime | None, offset: str) -> str | None:
    """A time as the API writes it, to the microsecond."""
    return None if time is None else f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}{offset}"


def _extra(session: Session, offset: str) -> dict[str, Any] | None:
    """The metadata that the SDK's `evaluate` sends, and the lists that its documentation recommends."""
    if session.dataset is None:
        return None
    choose, repository = random.Random(session.seed + 1), f"{session.dataset.team}-agents"
    author, commit = choose.choice(("Ana Ruiz", "Bob Okafor", "Chen Li")), f"{choose.getrandbits(160):040x}"
    git = {
        "remote_url": f"https://git.example.com/{repository}.git",
        "repo_name": repository,
        "commit": commit,
        "branch": session.branch,
        "author_name": author,
        "author_email": f"{author.split()[0].lower()}@example.com",
        "dirty": choose.random() < 0.2,  # noqa: PLR2004
        "tags": None,
    }
    metadata = {
        "git": git,
        "revision_id": commit[:7],
        "__ls_runner": "py_sdk_evaluate",
        "num_repetitions": 1,
        "dataset_version": time_text(session.start.replace(day=1, hour=9, minute=0, second=0, microsecond=0), offset),
        "dataset_splits": ["base"],
        "models": [session.model],
        "prompts": [f"{session.dataset.prefix}:{choose.choice(LABELS[:4])}"],
        "tools": choose.sample(["search", "calculator", "crm"], choose.randrange(3)),
    }
    return {"metadata": metadata}


def _feedback(session: Session, now: datetime) -> dict[str, Any]:
    """Scores of an experiment's runs. For a fifth of the experiments they arrive a day late."""
    choose, n = random.Random(session.seed + 3), len(session.runs)
    late = timedelta(days=1) if choose.random() < 0.2 else timedelta(minutes=40)  # noqa: PLR2004
    if session.dataset is None or n == 0 or session.start + late > now:
        return {}
    scores: dict[str, Any] = {}
    for key, least in (("correctness", QUALITY[session.model]), ("conciseness", 0.6)):
        average, spread = round(least + 0.15 * choose.random(), 4), round(0.05 + choose.random() / 4, 4)
        scores[key] = {"n": n, "avg": average, "stdev": spread, "errors": 0}
    values = {"pass": n - n // 8, "fail": n // 8}
    return scores | {"verdict": {"n": n, "avg": None, "stdev": None, "errors": 0, "values": values}}


def _percentile(values: Sequence[float], part: int) -> float | None:
    return values[min(len(values) * part // 100, len(values) - 1)] if values else None


def _progress(session: Session) -> dict[str, Any]:
    done = round(len(session.runs) / session.run_count, 4)
    evaluators = {"correctness": done, "conciseness": done}
    return {"expected_run_count": session.run_count, "run_progress": done, "evaluator_progress": evaluators}
