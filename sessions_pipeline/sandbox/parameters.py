"""The query parameters of `GET /api/v1/sessions`, checked as the API checks them: what is wrong is a 422."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

SORTABLE = (
    "name",
    "start_time",
    "last_run_start_time",
    "latency_p50",
    "latency_p99",
    "error_rate",
    "feedback",
    "runs_count",
)
# `stats_start_time` reaches this far back.
REACH = timedelta(days=31)
_TRUE, _FALSE = {"true", "1", "yes", "on", "t", "y"}, {"false", "0", "no", "off", "f", "n"}
_EQ = re.compile(r'^\s*eq\(\s*(\w+)\s*,\s*"((?:[^"\\]|\\.)*)"\s*\)\s*$')
_DATE_TIME = re.compile(r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?$")


@dataclass(frozen=True)
class Parameters:
    """A valid request."""

    reference_free: bool | None = None
    reference_dataset: tuple[str, ...] | None = None
    id: tuple[str, ...] | None = None
    name: str | None = None
    name_contains: str | None = None
    dataset_version: str | None = None
    sort_by: str = "start_time"
    sort_by_desc: bool = True
    metadata: dict[str, Any] | None = None
    sort_by_feedback_key: str | None = None
    sort_by_feedback_source: str | None = None
    offset: int = 0
    limit: int = 100
    tag_value_id: tuple[str, ...] | None = None
    facets: bool = False
    filter: tuple[str, str] | None = None
    include_stats: bool = False
    use_approx_stats: bool = False
    stats_start_time: datetime | None = None
    stats_select: tuple[str, ...] | None = None
    stats_filter: tuple[str, str] | None = None


class InvalidParametersError(Exception):
    """What is wrong, as the API's 422 body says it."""

    def __init__(self, detail: list[dict[str, Any]]) -> None:
        self.detail = detail
        super().__init__("invalid parameters")


def _flag(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("Input should be a valid boolean, unable to interpret input")


def _whole(low: int, high: int | None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,4000}", text.strip()):
            raise ValueError("Input should be a valid integer, unable to parse string as an integer")
        value = int(text)
        if value < low:
            raise ValueError(f"Input should be greater than or equal to {low}")
        if high is not None and value > high:
            raise ValueError(f"Input should be less than or equal to {high}")
        return value

    return parse


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"Input should be {', '.join(map(repr, allowed))}")
        return text

    return parse


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError("Input should be a valid UUID") from None


def _equation(*fields: str) -> Callable[[str], tuple[str, str]]:
    def parse(text: str) -> tuple[str, str]:
        match = _EQ.match(text)
        if not match or match[1] not in fields:
            raise ValueError(f'Only eq(field, "value") is understood, for {", ".join(fields)}')
        return match[1], re.sub(r"\\(.)", r"\1", match[2])

    return parse


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError("Input should be a JSON object")  # noqa: TRY004 - it is the value that is wrong
    return value


def _moment(now: datetime) -> Callable[[str], datetime]:
    def parse(text: str) -> datetime:
        text = text.replace(" ", "+") if re.search(r" \d\d:\d\d$", text) and "T" in text.upper() else text
        try:
            moment = datetime.fromisoformat(text.upper() if _DATE_TIME.match(text) else "")
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise ValueError("Input should be a valid datetime") from None
        if now - moment > REACH:
            raise ValueError("stats_start_time reaches 31 days back at most")
        return moment

    return parse


@dataclass
class _Reader:
    pairs: Sequence[tuple[str, str]]
    detail: list[dict[str, Any]] = field(default_factory=list)

    def one(self, name: str, parse: Callable[[str], Any] = str) -> dict[str, Any]:
        values = [value for key, value in self.pairs if key == name]
        return {name: value} if values and (value := self._parse(name, values[-1], parse)) is not None else {}

    def many(self, name: str, parse: Callable[[str], Any] = str) -> dict[str, Any]:
        values = [value for key, value in self.pairs if key == name]
        parsed = [self._parse(name, value, parse, index) for index, value in enumerate(values)]
        return {name: tuple(parsed)} if values else {}

    def _parse(self, name: str, value: str, parse: Callable[[str], Any], *index: int) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            self.detail.append({"loc": ["query", name, *index], "msg": str(error), "type": "value_error"})
            return None


def parse_parameters(pairs: Sequence[tuple[str, str]], now: datetime) -> Parameters:
    """The request in typed form; parameters that the schema does not name are ignored, as the API does.

    Raises:
        InvalidParametersError: one or more are wrong.
    """
    read = _Reader(pairs)
    values = {
        **read.one("reference_free", _flag),
        **read.many("reference_dataset", _uuid),
        **read.many("id", _uuid),
        **read.one("name"),
        **read.one("name_contains"),
        **read.one("dataset_version"),
        **read.one("sort_by", _one_of(*SORTABLE)),
        **read.one("sort_by_desc", _flag),
        **read.one("metadata", _json_object),
        **read.one("sort_by_feedback_key"),
        **read.one("sort_by_feedback_source", _one_of("session", "run")),
        **read.one("offset", _whole(0, None)),
        **read.one("limit", _whole(1, 100)),
        **read.many("tag_value_id", _uuid),
        **read.one("facets", _flag),
        **read.one("filter", _equation("name")),
        **read.one("include_stats", _flag),
        **read.one("use_approx_stats", _flag),
        **read.one("stats_start_time", _moment(now)),
        **read.many("stats_select"),
        **read.one("stats_filter", _equation("status")),
    }
    if read.detail:
        raise InvalidParametersError(read.detail)
    return Parameters(**values)
