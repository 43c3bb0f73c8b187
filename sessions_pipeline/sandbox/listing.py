"""Filters, sorts and pages sessions and datasets by the API's query parameters."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter, itemgetter
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Json, PlainValidator, ValidationInfo

from sessions_pipeline.sandbox.company import Dataset, Session, company, datasets, dumps, microseconds
from sessions_pipeline.sandbox.stats import STATS, as_json, stats_of, time_text

SEED = 7
# `stats_start_time` reaches this far back.
REACH = timedelta(days=31)
_STRING = r"""(?P<quote>["'])(?P<value>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)"""
_NAME = re.compile(rf"\s*eq\(\s*name\s*,\s*{_STRING}\s*\)\s*", re.DOTALL)
_EXPERIMENT = re.compile(
    rf"""\s*and\(\s*eq\(\s*metadata_key\s*,\s*["']experiment["']\s*\)\s*,"""
    rf"""\s*eq\(\s*metadata_value\s*,\s*{_STRING}\s*\)\s*\)\s*""",
    re.DOTALL,
)
SORTS = "name|start_time|last_run_start_time|latency_p50|latency_p99|error_rate"
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?")

Pairs = Sequence[tuple[str, str]]


def _value_in(expression: re.Pattern[str], example: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        match = expression.fullmatch(text)
        if not match:
            raise ValueError(f"Only {example} is understood")
        return re.sub(r"\\(.)", r"\1", match["value"], flags=re.DOTALL)

    return read


def _moment(text: str, info: ValidationInfo[datetime]) -> datetime:
    if not _DATE_TIME.fullmatch(text):
        raise ValueError("Input should be a valid datetime")
    moment = datetime.fromisoformat(text.upper())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if info.context - moment > REACH:
        raise ValueError("stats_start_time reaches 31 days back at most")
    return moment


Id = Annotated[str, BeforeValidator(lambda text: str(UUID(text)))]
Name = Annotated[str, BeforeValidator(_value_in(_NAME, 'eq(name, "value")'))]
Experiment = Annotated[
    str, BeforeValidator(_value_in(_EXPERIMENT, 'and(eq(metadata_key, "experiment"), eq(metadata_value, "value"))'))
]


class Query(BaseModel):
    """The parameters of `GET /api/v1/datasets`, which the list of sessions has, too. Others are ignored, as in the API.

    Parameters in `arrays` may be given several times.
    """

    model_config = ConfigDict(frozen=True)
    arrays: ClassVar[frozenset[str]] = frozenset(["id", "tag_value_id", "stats_select", "reference_dataset"])

    id: tuple[Id, ...] | None = None
    name: str | None = None
    name_contains: str | None = None
    offset: int = Field(0, ge=0)
    limit: int = Field(100, ge=1, le=100)

    @classmethod
    def read(cls, pairs: Pairs, now: datetime) -> Self:
        """Parse a request's parameters; `now` limits `stats_start_time`.

        Raises:
            pydantic.ValidationError: one or more are wrong.
        """
        values: dict[str, Any] = dict(pairs)
        for name in values.keys() & cls.arrays:
            values[name] = [value for key, value in pairs if key == name]
        return cls.model_validate(values, context=now)


class SessionsQuery(Query):
    """The parameters of `GET /api/v1/sessions`."""

    dataset_version: str | None = None
    metadata: Json[dict[str, Any]] | None = None
    tag_value_id: tuple[Id, ...] | None = None
    filter: Name | None = None
    include_stats: bool = False
    use_approx_stats: bool = False
    stats_start_time: Annotated[datetime, PlainValidator(_moment)] | None = None
    stats_select: tuple[str, ...] | None = None
    stats_filter: Experiment | None = None
    sort_by_feedback_key: str = "correctness"
    reference_free: bool | None = None
    reference_dataset: tuple[Id, ...] | None = None
    facets: bool = False
    sort_by: str = Field("start_time", pattern=f"^({SORTS}|feedback|runs_count)$")
    sort_by_desc: bool = True
    sort_by_feedback_source: Literal["session", "run"] = "run"


class CompanyData:
    """A made-up company's data, which end at `now`. Tests may change `sessions` and `datasets` between requests.

    As in the real API, a few records break the schema, a few have no start time, and times have no UTC `offset`.
    """

    def __init__(self, now: datetime, seed: int = SEED) -> None:
        self.now = now
        self.datasets = datasets()
        self.sessions = company(seed, now, self.datasets)
        self.offset = ""
        self._records: dict[str, dict[str, Any]] = {}

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        """The JSON texts of one page of sessions, and the number of all that match."""
        chosen = self.ordered(asked, workspace)
        return [self._text(one, asked) for one in chosen[asked.offset : asked.offset + asked.limit]], len(chosen)

    def datasets_page(self, asked: Query, workspace: str) -> tuple[list[str], int]:
        """The JSON texts of one page of datasets, and the number of all that match."""
        chosen = [one for one in self.datasets if one.tenant_id == workspace and _is_asked(one, asked)]
        page = chosen[asked.offset : asked.offset + asked.limit]
        return [dumps(self._dataset_json(one)) for one in page], len(chosen)

    def forget(self, session: Session) -> None:
        """Drop the cached JSON of a session that was changed."""
        self._records.pop(session.id, None)

    def ordered(self, asked: SessionsQuery, workspace: str) -> list[Session]:
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
        if session.id not in self._records:
            self._records[session.id] = as_json(session, self.offset, stats_of(session, session.runs, self.now))
        return self._records[session.id]

    def _text(self, session: Session, asked: SessionsQuery) -> str:
        record = self._record(session)
        if not asked.include_stats:
            record = record | dict.fromkeys(STATS)
        elif (asked.stats_start_time, asked.stats_filter, asked.stats_select) != (None, None, None):
            record = record | dict.fromkeys(STATS) | self._stats(session, asked)
        # A stat that was not asked for stays null, even if it is broken.
        broken = session.broken.items()
        return dumps(record | {name: value for name, value in broken if name not in STATS or record[name] is not None})

    def _stats(self, session: Session, asked: SessionsQuery) -> dict[str, Any]:
        runs = session.runs
        if asked.stats_filter is not None:
            runs = session.runs_by_experiment.get(asked.stats_filter, [])
        if asked.stats_start_time is not None:
            runs = runs[bisect_left(runs, microseconds(asked.stats_start_time), key=attrgetter("start_us")) :]
        # If no run was left out, as in most sessions, the cached stats are right.
        whole = self._record(session) if len(runs) == len(session.runs) else stats_of(session, runs, self.now)
        return {name: whole[name] for name in asked.stats_select or STATS if name in STATS}

    def _matches(self, session: Session, asked: SessionsQuery) -> bool:
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


def _is_asked(one: Session | Dataset, asked: Query) -> bool:
    return (
        (asked.id is None or one.id in asked.id)
        and (asked.name is None or one.name == asked.name)
        and (asked.name_contains is None or asked.name_contains.lower() in one.name.lower())
    )


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and _contains(whole[name], part[name]) for name in part)
    return bool(whole == part)


def _sort_key(record: dict[str, Any], asked: SessionsQuery) -> Any:
    if asked.sort_by == "feedback":
        scores = record["feedback_stats"] if asked.sort_by_feedback_source == "run" else {}
        return scores.get(asked.sort_by_feedback_key, {}).get("avg")
    return record.get("run_count" if asked.sort_by == "runs_count" else asked.sort_by)
