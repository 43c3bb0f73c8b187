"""`GET /api/v2/sessions`: pages by cursor, other names, costs as numbers."""

import base64
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sessions_pipeline.sandbox.parameters import InvalidParametersError, Parameters, parse_parameters

_SORTABLE = {
    name.upper(): name
    for name in ("name", "start_time", "last_run_start_time", "error_rate", "latency_p50", "latency_p99", "feedback")
}
# Other names for the parameters of the first version.
_NAMES = {"reference_dataset_id": "reference_dataset", "include_facets": "facets"}
_TIERS = {"longlived": "LONG_LIVED", "shortlived": "SHORT_LIVED"}
_COSTS = ("total_cost", "prompt_cost", "completion_cost")


class _Number(float):
    """A float that is written as it was read: the API keeps a cost's exact digits."""

    text: str

    def __repr__(self) -> str:
        return self.text


def read_second_version(
    pairs: list[tuple[str, str]], now: datetime, page: Callable[[Parameters], tuple[list[str], int]]
) -> dict[str, Any]:
    """The body `{items, next_cursor}`.

    Raises:
        InvalidParametersError: a parameter is wrong.
    """
    given = dict(pairs)
    offset = _offset(given.pop("cursor", None))
    size = given.pop("page_size", "20")
    sort_by, order = given.pop("sort_by", "START_TIME"), given.pop("sort_order", "desc")
    kind = given.pop("type", None)
    if sort_by not in _SORTABLE or order.lower() not in ("asc", "desc"):
        raise InvalidParametersError([{"loc": ["query", "sort_by"], "msg": "unknown sort", "type": "value_error"}])
    first = [
        *((_NAMES.get(name, name), _spell(name, value)) for name, value in pairs if name in given),
        ("offset", str(offset)),
        ("limit", size),
        ("sort_by", _SORTABLE[sort_by]),
        ("sort_by_desc", str(order.lower() == "desc")),
        *([("reference_free", str(kind != "EXPERIMENT"))] if kind else []),
    ]
    asked = parse_parameters(first, now)
    texts, total = page(asked)
    after = offset + len(texts)
    cursor = base64.urlsafe_b64encode(str(after).encode()).decode() if texts and after < total else None
    return {"items": [_item(json.loads(text)) for text in texts], "next_cursor": cursor}


def _spell(name: str, value: str) -> str:
    return value.lower() if name == "sort_by_feedback_source" else value


def _offset(cursor: str | None) -> int:
    if not cursor:
        return 0
    try:
        return int(base64.urlsafe_b64decode(cursor.encode()))
    except ValueError:
        raise InvalidParametersError(
            [{"loc": ["query", "cursor"], "msg": "not a cursor of this API", "type": "value_error"}]
        ) from None


def _item(record: dict[str, Any]) -> dict[str, Any]:
    item = dict(record)
    item["trace_tier"] = _TIERS.get(record["trace_tier"], record["trace_tier"])
    item["type"] = "EXPERIMENT" if record["reference_dataset_id"] else "PROJECT"
    for name in _COSTS:
        try:
            number = _Number(record[name])
        except (TypeError, ValueError):
            continue
        number.text = record[name]
        item[name] = number
    for name in ("feedback_stats", "session_feedback_stats"):
        if record[name] is not None:
            nothing = {"min": None, "max": None, "median": None, "values": None}
            item[name] = {key: {**nothing, **scores} for key, scores in record[name].items()}
    return item
