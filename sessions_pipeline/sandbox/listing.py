"""A company's sessions and datasets as the API's JSON: filtered, sorted and in pages. Stats are computed from runs."""

import random
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from sessions_pipeline.days import EPOCH, microseconds
from sessions_pipeline.sandbox.company import LABELS, PRICES, Dataset, Run, Session, company, datasets, feedback

if TYPE_CHECKING:
    from sessions_pipeline.sandbox import Query, SessionsQuery

SEED = 7
COUNTS = ("run_count", "prompt_tokens", "completion_tokens", "total_tokens")
COSTS = ("prompt_cost", "completion_cost", "total_cost")
STATS = (
    *(*COUNTS, *COSTS, "latency_p50", "latency_p99", "first_token_p50", "first_token_p99"),
    *("error_rate", "streaming_rate", "feedback_stats", "session_feedback_stats", "run_facets"),
)


class CompanyData:
    """A made-up company's data, which end at a given time. Tests may change `sessions` and `datasets` between requests.

    `records` caches the JSON of each session by its id; a test that changes a session has to remove its entry.
    As in the real API, a few records break the schema, a few have no start time, and times have no UTC `offset`.
    """

    def __init__(self, now: datetime, seed: int = SEED) -> None:
        self.datasets = datasets()
        self.sessions = company(seed, now, self.datasets)
        self.offset = ""
        self.records: dict[str, dict[str, Any]] = {}

    def page(self, asked: "SessionsQuery", workspace: str) -> tuple[list[str], int]:
        """The JSON texts of one page of sessions, and the number of all that match."""
        chosen = self.ordered(asked, workspace)
        return [self._text(one, asked) for one in chosen[asked.offset : asked.offset + asked.limit]], len(chosen)

    def datasets_page(self, asked: "Query", workspace: str) -> tuple[list[str], int]:
        """The JSON texts of one page of datasets, and the number of all that match."""
        chosen = [one for one in self.datasets if one.tenant_id == workspace and _is_asked(one, asked)]
        page = chosen[asked.offset : asked.offset + asked.limit]
        return [dumps(self._dataset_json(one)) for one in page], len(chosen)

    def ordered(self, asked: "SessionsQuery", workspace: str) -> list[Session]:
        """All sessions that match, sorted as PostgreSQL does: nulls last if ascending, first if descending."""
        # Filter by id and name first: in the demo, the pipeline does so a thousand times.
        ids = set(asked.id or ())
        some = self.sessions if asked.id is None else [one for one in self.sessions if one.id in ids]
        some = some if asked.name is None else [one for one in some if one.name == asked.name]
        sessions = [one for one in some if one.tenant_id == workspace and self._matches(one, asked)]
        keyed = [(_sort_key(self._record(session), asked), session.id, session) for session in sessions]
        known = sorted((one for one in keyed if one[0] is not None), key=itemgetter(0, 1), reverse=asked.sort_by_desc)
        unknown = sorted((one for one in keyed if one[0] is None), key=itemgetter(1))
        return [one for *_, one in ([*unknown, *known] if asked.sort_by_desc else [*known, *unknown])]

    def _record(self, session: Session) -> dict[str, Any]:
        """The session's JSON with all stats, without its `broken` fields."""
        if session.id not in self.records:
            self.records[session.id] = as_json(session, self.offset, stats_of(session, session.runs))
        return self.records[session.id]

    def _text(self, session: Session, asked: "SessionsQuery") -> str:
        record = self._record(session)
        if not asked.include_stats:
            record = record | dict.fromkeys(STATS)
        elif (asked.stats_start_time, asked.stats_filter, asked.stats_select) != (None, None, None):
            record = record | dict.fromkeys(STATS) | self._stats(session, asked)
        # A stat that was not asked for stays null, even if it is broken.
        broken = session.broken.items()
        return dumps(record | {name: value for name, value in broken if name not in STATS or record[name] is not None})

    def _stats(self, session: Session, asked: "SessionsQuery") -> dict[str, Any]:
        runs = session.runs
        if asked.stats_filter is not None:
            runs = session.runs_by_experiment.get(asked.stats_filter, [])
        if asked.stats_start_time is not None:
            runs = runs[bisect_left(runs, microseconds(asked.stats_start_time), key=attrgetter("start_us")) :]
        # If no run was left out, as in most sessions, the cached stats are right.
        whole = self._record(session) if len(runs) == len(session.runs) else stats_of(session, runs)
        return {name: whole[name] for name in asked.stats_select or STATS if name in STATS}

    def _matches(self, session: Session, asked: "SessionsQuery") -> bool:
        dataset = session.dataset.id if session.dataset else None
        wanted = (asked.metadata or {}) | ({"dataset_version": asked.dataset_version} if asked.dataset_version else {})
        return (
            _is_asked(session, asked)
            and (not wanted or _contains((self._record(session)["extra"] or {}).get("metadata"), wanted))
            and (asked.reference_free is None or asked.reference_free == (dataset is None))
            and (asked.reference_dataset is None or dataset in asked.reference_dataset)
            and not asked.tag_value_id  # no session is tagged
            and (asked.filter is None or session.name == asked.filter)
        )

    def _dataset_json(self, dataset: Dataset) -> dict[str, Any]:
        experiments = [session for session in self.sessions if session.dataset is dataset]
        return {
            "id": dataset.id,
            "tenant_id": dataset.tenant_id,
            "name": dataset.name,
            "data_type": "kv",
            "description": None if dataset.name == dataset.prefix else f"Called {dataset.prefix} until it was renamed.",
            "created_at": f"2025-06-02T09:30:00.000000{self.offset}",
            "modified_at": f"2025-08-31T14:05:00.000000{self.offset}",
            "example_count": 20 + 5 * len(dataset.name),
            "session_count": len(experiments),
            "last_session_start_time": time_text(max((one.start for one in experiments), default=None), self.offset),
            "baseline_experiment_id": experiments[0].id if experiments and len(dataset.name) % 2 else None,
            "metadata": {"team": dataset.team},
            **dict.fromkeys(("inputs_schema_definition", "outputs_schema_definition")),
        }


def _is_asked(one: Session | Dataset, asked: "Query") -> bool:
    return (
        (asked.id is None or one.id in asked.id)
        and (asked.name is None or one.name == asked.name)
        and (asked.name_contains is None or asked.name_contains.lower() in one.name.lower())
    )


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and _contains(whole[name], part[name]) for name in part)
    return bool(whole == part)


def _sort_key(record: dict[str, Any], asked: "SessionsQuery") -> Any:
    if asked.sort_by == "feedback":
        scores = record["feedback_stats"] if asked.sort_by_feedback_source == "run" else {}
        return scores.get(asked.sort_by_feedback_key, {}).get("avg")
    return record.get("run_count" if asked.sort_by == "runs_count" else asked.sort_by)


def dumps(value: Any) -> str:
    """Encode as the API does."""
    return msgspec.json.encode(value).decode()


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
        "longlived_ttl_days": None,
        **stats,
    }


def stats_of(session: Session, runs: Sequence[Run]) -> dict[str, Any]:
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
        "feedback_stats": feedback(session),
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


def _percentile(values: Sequence[float], part: int) -> float | None:
    return values[min(len(values) * part // 100, len(values) - 1)] if values else None


def _progress(session: Session) -> dict[str, Any]:
    done = round(len(session.runs) / session.run_count, 4)
    evaluators = {"correctness": done, "conciseness": done}
    return {"expected_run_count": session.run_count, "run_progress": done, "evaluator_progress": evaluators}
