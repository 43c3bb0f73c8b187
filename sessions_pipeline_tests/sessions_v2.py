"""The sandbox's `GET /api/v2/sessions`, made from its version 1.

Version 2 pages by cursor, names some parameters differently, and sends costs as numbers, with version 1's digits.
"""

import base64
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import Field

from sessions_pipeline.sandbox import SORTS, Id, Pairs, SessionsQuery
from sessions_pipeline.sandbox.listing import COSTS

_DECODER = msgspec.json.Decoder(float_hook=Decimal)
# A `Decimal` becomes a number with all its digits.
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_NO_SCORES: dict[str, Any] = dict.fromkeys(("avg", "max", "median", "min", "stdev")) | {
    "contains_thread_feedback": False,
    **dict.fromkeys(("errors", "n"), 0),
    "type": "PRIMARY",
    "values": {},
}


class CursorError(ValueError):
    """The cursor is not one of this server's, or belongs to a request with other parameters."""


class SessionsV2Query(SessionsQuery):
    """The parameters of version 2. Those that only version 1 has are accepted and have no effect."""

    arrays: ClassVar[frozenset[str]] = SessionsQuery.arrays | {"reference_dataset_id", "type"}

    type: tuple[Literal["PROJECT", "AGENT", "EXPERIMENT"], ...] | None = None
    reference_dataset_id: tuple[Id, ...] | None = None
    include_facets: bool = False
    sort_by: str = Field("START_TIME", pattern=f"^({SORTS.upper()}|FEEDBACK)$")
    sort_order: Literal["asc", "desc"] = "desc"
    sort_by_feedback_source: Literal["SESSION", "RUN"] = "RUN"
    cursor: str = ""
    page_size: int = Field(20, ge=1, le=100)

    def as_version_1(self, offset: int) -> SessionsQuery:
        """The same query with the parameters of version 1."""
        # An experiment is a session with a reference dataset. The made-up company has no sessions of type AGENT.
        is_narrowed = self.type and ("EXPERIMENT" in self.type) is not ("PROJECT" in self.type)
        renamed: dict[str, Any] = {
            "reference_free": "PROJECT" in self.type if self.type and is_narrowed else None,
            "reference_dataset": self.reference_dataset_id,
            "facets": self.include_facets,
            "sort_by": self.sort_by.lower(),
            "sort_by_desc": self.sort_order == "desc",
            "sort_by_feedback_source": self.sort_by_feedback_source.lower(),
        }
        same = {name: getattr(self, name) for name in SessionsQuery.model_fields}
        return SessionsQuery.model_construct(**{**same, **renamed, "offset": offset, "limit": self.page_size})


def read_page(pairs: Pairs, now: datetime, page: Callable[[SessionsQuery], tuple[list[str], int]]) -> str:
    """The JSON text of the answer to a request: `{items, next_cursor}`.

    Raises:
        pydantic.ValidationError: a parameter is wrong.
        CursorError: the cursor is wrong.
    """
    query = SessionsV2Query.read(pairs, now)
    offset = _offset(query.cursor, pairs)
    texts, total = page(query.as_version_1(offset))
    after = offset + len(texts)
    cursor = cursor_at(after, pairs) if texts and after < total else None
    return _ENCODER.encode({"items": [_item(_DECODER.decode(text)) for text in texts], "next_cursor": cursor}).decode()


def cursor_at(offset: int, pairs: Pairs) -> str:
    """A cursor is valid only with the same query parameters as the request that returned it."""
    digest = sha256(repr(sorted(pair for pair in pairs if pair[0] != "cursor")).encode()).hexdigest()[:12]
    return base64.urlsafe_b64encode(f"{offset}.{digest}".encode()).decode()


def _offset(cursor: str, pairs: Pairs) -> int:
    if not cursor:
        return 0
    try:
        offset = int(base64.urlsafe_b64decode(cursor.encode()).split(b".")[0])
    except ValueError:
        raise CursorError("is not a cursor of this API") from None
    if cursor != cursor_at(offset, pairs):
        raise CursorError("belongs to a request with other parameters")
    return offset


def _item(record: Any) -> Any:
    if not isinstance(record, dict):
        return record
    tier = {"longlived": "LONG_LIVED", "shortlived": "SHORT_LIVED"}.get(str(record.get("trace_tier")))
    item = record | ({"trace_tier": tier} if tier else {})
    item["type"] = "PROJECT" if record.get("reference_dataset_id") is None else "EXPERIMENT"
    for name in COSTS:
        if isinstance(cost := record.get(name), str):
            try:
                item[name] = Decimal(cost)
            except InvalidOperation:
                continue
    for name in ("feedback_stats", "session_feedback_stats"):
        if isinstance(record.get(name), dict):
            item[name] = {key: {**_NO_SCORES, **scores} for key, scores in record[name].items()}
    return item
