"""The API's two versions: what each calls its parameters and its pages, and which of them a run speaks.

Version 1 pages by offset and answers an array; version 2 pages by cursor, answers `{items, next_cursor}` and has other
names. Records come out of both in version 1's spelling, so that nothing behind the client tells them apart. Only what
differs is respelt, on the JSON text: no digit passes through a float. The rest of a record stays as it was sent, and
the way back is known for each change (see docs/api-versions.md):

- costs, numbers in version 2, are put in quotes;
- `trace_tier` is `longlived` or `shortlived` again;
- `type` goes where it says what `reference_dataset_id` says, and stays where it says more (an AGENT);
- a feedback key's fixed fields go where they hold nothing, and stand in version 1's order.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from sessions_pipeline.errors import ApiError, BadBodyError, GoneError, NotFoundError, UsageError
from sessions_pipeline.langsmith.page import Page
from sessions_pipeline.langsmith.query import Parameters, SessionsQuery
from sessions_pipeline.validation.json_text import split_record
from sessions_pipeline.validation.records import Record, read_page

COSTS = ("total_cost", "prompt_cost", "completion_cost")
FEEDBACK = ("feedback_stats", "session_feedback_stats")
TIERS = {'"LONG_LIVED"': '"longlived"', '"SHORT_LIVED"': '"shortlived"'}
# What version 1 leaves out, and version 2 sends when there is nothing to say.
NOTHING = {
    "min": "null",
    "max": "null",
    "median": "null",
    "values": "{}",
    "contains_thread_feedback": "false",
    "type": '"PRIMARY"',
}
FEEDBACK_ORDER = ("n", "avg", "stdev", "errors", "values")


def read_v2_page(body: bytes) -> tuple[list[Record], str | None]:
    """The records of an answer `{items, next_cursor}`, as version 1 spells them, and the next cursor, "" at the end.

    `"items": null` is an empty page: so Go spells an empty list.

    Raises:
        ValueError: the body is something else, because it is truncated or not this API's.
    """
    members = _texts(body.decode())
    items, cursor = members.get("items"), json.loads(members.get("next_cursor", "null"))
    if items is None or not isinstance(cursor, str | None):
        raise ValueError("has no items, or a cursor that is no text")
    records = [] if items == "null" else read_page(items.encode())
    return [msgspec.structs.replace(record, payload=as_v1(record.payload)) for record in records], cursor or ""


def as_v1(payload: str) -> str:
    """A record of version 2 as version 1 would have sent it; what can't be read, or is no object, stays as it is."""
    try:
        sent = _texts(payload)
        spelt = {name: _respelt(name, text) for name, text in sent.items()}
        kind = '"PROJECT"' if spelt.get("reference_dataset_id", "null") == "null" else '"EXPERIMENT"'
        if spelt.get("type") == kind:
            del spelt["type"]
        return payload if spelt == sent else _object(spelt)
    except ValueError:
        return payload


def _respelt(name: str, text: str) -> str:
    if name in COSTS:
        return f'"{text}"' if text[-1] in "0123456789" else text  # not NaN and -Infinity
    if name == "trace_tier":
        return TIERS.get(text, text)
    if name in FEEDBACK and text.startswith("{"):
        return _object({key: _feedback(stats) for key, stats in _texts(text).items()})
    return text


def _feedback(text: str) -> str:
    if not text.startswith("{"):
        return text
    sent = _texts(text)
    told = {name: value for name, value in sent.items() if NOTHING.get(name) != value}
    return _object({name: told[name] for name in (*FEEDBACK_ORDER, *told) if name in told})


def _texts(text: str) -> dict[str, str]:
    return {name: bytes(value).decode() for name, value in split_record(text).items()}


def _object(texts: Mapping[str, str]) -> str:
    return "{" + ",".join([f"{msgspec.json.encode(name).decode()}:{text}" for name, text in texts.items()]) + "}"


_RENAMED = {"limit": "page_size", "reference_dataset": "reference_dataset_id", "facets": "include_facets"}
_IN_CAPITALS = ("sort_by", "sort_by_feedback_source")
_SPELT_ANEW = ("offset", "sort_by_desc", "reference_free")


def v2_parameters(query: SessionsQuery, cursor: str | None) -> Parameters:
    """The query in version 2's names.

    Raises:
        UsageError: it asks for what version 2 does not have, an offset or an order.
    """
    if query.offset and cursor is None:
        raise UsageError("version 2 of the API has no offset; narrow the list instead, such as by name")
    if query.sort_by == "runs_count":
        raise UsageError("version 2 of the API does not sort by runs_count; choose another order")
    kinds = {None: (), True: ("PROJECT", "AGENT"), False: ("EXPERIMENT",)}[query.reference_free]
    pairs = [
        (_RENAMED.get(name, name), value.upper() if name in _IN_CAPITALS else value)
        for name, value in query.to_parameters()
        if name not in _SPELT_ANEW
    ]
    pairs += [("sort_order", "desc" if query.sort_by_desc else "asc"), *(("type", kind) for kind in kinds)]
    return pairs if cursor is None else [*pairs, ("cursor", cursor)]


class Endpoint(NamedTuple):
    """A list of the API: its `path`, how a page of it is `read`, and how it is asked for.

    `read` gives the records and the next page's cursor (see `Page`), `parameters` takes a query and a cursor.
    """

    path: str
    read: Callable[[bytes], tuple[list[Record], str | None]]
    parameters: Callable[[SessionsQuery, str | None], Parameters] = lambda query, _cursor: query.to_parameters()


V1 = Endpoint("/api/v1/sessions", lambda body: (read_page(body), None))
V2 = Endpoint("/api/v2/sessions", read_v2_page, v2_parameters)
DATASETS = Endpoint(
    "/api/v1/datasets",
    V1.read,
    lambda query, _cursor: [pair for pair in query.to_parameters() if pair[0] in ("id", "offset", "limit")],
)


def choose_version(ask: Callable[[Endpoint], Page]) -> tuple[Endpoint, Page, str | None]:
    """The version to speak, its answer to the same question, and why, where there is something to say.

    Version 1, unless it is gone or its announced end has passed, and version 2 answers. A 404 alone does not say that
    version 1 is gone: a wrong address answers so too, and then version 2 is not there either.

    Raises:
        ApiError: neither answered; version 1's own error if version 2 is not there.
    """
    try:
        first = ask(V1)
    except GoneError as error:
        try:
            return V2, ask(V2), "Version 1 of the API is gone: version 2 is read"
        except (NotFoundError, BadBodyError):
            raise error from None
    if first.sunset is None or first.sunset > (first.server_time or datetime.now(UTC)):
        return V1, first, None
    ended = f"Version 1 of the API was to end on {first.sunset:%Y-%m-%d}"
    try:
        return V2, ask(V2), f"{ended}: version 2 is read"
    except ApiError as error:
        return V1, first, f"{ended}, but version 2 does not answer: version 1 is read ({error})"
