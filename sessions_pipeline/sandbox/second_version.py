"""`GET /api/v2/sessions`: pages by cursor, other names, costs as numbers with the digits that version 1 has in text."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from sessions_pipeline.sandbox.company import dumps
from sessions_pipeline.sandbox.parameters import InvalidParametersError, Parameters, parse_parameters

_SORTABLE = {
    name.upper(): name
    for name in ("name", "start_time", "last_run_start_time", "error_rate", "latency_p50", "latency_p99", "feedback")
}
_KINDS = ("PROJECT", "AGENT", "EXPERIMENT")
# Other names for the parameters of the first version.
_NAMES = {"reference_dataset_id": "reference_dataset", "include_facets": "facets"}
# Parameters of the first version that the second does not have.
_GONE = ("reference_dataset", "facets", "reference_free", "offset", "limit", "sort_by_desc")
_OWN = ("cursor", "page_size", "sort_by", "sort_order", "type", *_GONE)
_TIERS = {"longlived": "LONG_LIVED", "shortlived": "SHORT_LIVED"}
_COSTS = ("total_cost", "prompt_cost", "completion_cost")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_NO_SCORES: dict[str, Any] = {
    "avg": None,
    "contains_thread_feedback": False,
    "errors": 0,
    "max": None,
    "median": None,
    "min": None,
    "n": 0,
    "stdev": None,
    "type": "PRIMARY",
    "values": {},
}

Pairs = Sequence[tuple[str, str]]


class _Number(str):
    """A number that is written as it was read: the API keeps a cost's exact digits."""

    __slots__ = ()


class Body(NamedTuple):
    """The items' JSON texts, and the cursor of the page after them."""

    items: Sequence[str]
    cursor: str | None

    @property
    def text(self) -> str:
        """`{items, next_cursor}`."""
        return f'{{"items":[{",".join(self.items)}],"next_cursor":{json.dumps(self.cursor)}}}'


def read_second_version(pairs: Pairs, now: datetime, page: Callable[[Parameters], tuple[list[str], int]]) -> Body:
    """The answer to a request.

    Raises:
        InvalidParametersError: a parameter is wrong.
    """
    given = dict(pairs)
    offset = _offset(given.get("cursor"), pairs)
    sort_by, order = given.get("sort_by", "START_TIME"), given.get("sort_order", "desc")
    if sort_by not in _SORTABLE or order.lower() not in ("asc", "desc"):
        raise _wrong("sort_by", "unknown sort")
    kinds = {value for name, value in pairs if name == "type"}
    if not kinds <= set(_KINDS):
        raise _wrong("type", "unknown type")
    # An experiment is a session on a dataset; this company has no agents.
    is_narrowed = kinds and ("EXPERIMENT" in kinds) is not ("PROJECT" in kinds)
    first = [
        *((_NAMES.get(name, name), _spell(name, value)) for name, value in pairs if name not in _OWN),
        ("offset", str(offset)),
        ("limit", given.get("page_size", "20")),
        ("sort_by", _SORTABLE[sort_by]),
        ("sort_by_desc", str(order.lower() == "desc")),
        *([("reference_free", str("PROJECT" in kinds))] if is_narrowed else []),
    ]
    texts, total = page(parse_parameters(first, now))
    after = offset + len(texts)
    cursor = _cursor(after, pairs) if texts and after < total else None
    return Body([_written(_item(json.loads(text, **_VERBATIM))) for text in texts], cursor)


def first_cursor(pairs: Pairs) -> str:
    """The cursor of the list's beginning."""
    return _cursor(0, pairs)


def _wrong(name: str, problem: str) -> InvalidParametersError:
    return InvalidParametersError([{"loc": ["query", name], "msg": problem, "type": "value_error"}])


def _spell(name: str, value: str) -> str:
    return value.lower() if name == "sort_by_feedback_source" else value


def _cursor(offset: int, pairs: Pairs) -> str:
    return base64.urlsafe_b64encode(f"{offset}.{_digest(pairs)}".encode()).decode()


def _offset(cursor: str | None, pairs: Pairs) -> int:
    if not cursor:
        return 0
    try:
        offset, digest = base64.urlsafe_b64decode(cursor.encode()).decode().split(".")
        start = int(offset)
    except ValueError:
        raise _wrong("cursor", "not a cursor of this API") from None
    if digest != _digest(pairs):
        raise _wrong("cursor", "belongs to a request with other parameters")
    return start


def _digest(pairs: Pairs) -> str:
    """A cursor is valid only with the same query parameters as the request that returned it."""
    return sha256(repr(sorted(pair for pair in pairs if pair[0] != "cursor")).encode()).hexdigest()[:12]


def _item(record: Any) -> Any:
    if not isinstance(record, dict):
        return record
    item = dict(record)
    tier = record.get("trace_tier")
    if isinstance(tier, str):
        item["trace_tier"] = _TIERS.get(tier, tier)
    item["type"] = "EXPERIMENT" if record.get("reference_dataset_id") else "PROJECT"
    for name in _COSTS:
        cost = record.get(name)
        if isinstance(cost, str) and _NUMBER.fullmatch(cost):
            item[name] = _Number(cost)
    for name in ("feedback_stats", "session_feedback_stats"):
        if isinstance(record.get(name), dict):
            item[name] = {key: {**_NO_SCORES, **scores} for key, scores in record[name].items()}
    return item


_VERBATIM: dict[str, Any] = {"parse_float": _Number, "parse_int": _Number, "parse_constant": _Number}


def _written(value: Any) -> str:
    match value:
        case _Number():
            return str(value)
        case dict():
            return "{" + ",".join(f"{dumps(name)}:{_written(item)}" for name, item in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_written, value)) + "]"
        case _:
            return dumps(value)
