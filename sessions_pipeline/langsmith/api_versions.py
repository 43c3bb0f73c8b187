"""The API's two versions: their parameters and pages, and the choice of the version that a run uses.

Version 1 pages by offset and answers with an array. Version 2 pages by cursor, answers with `{items, next_cursor}` and
uses other names. Records of both leave the client in version 1's spelling, so that no other code has to distinguish
them. Only what differs is rewritten, in the JSON text, so that no digit passes through a float. The rest of a record
stays as it was sent, and each change can be undone (see docs/api-versions.md):

- costs, which are numbers in version 2, are put in quotes;
- `trace_tier` becomes `longlived` or `shortlived` again;
- `type` is removed if it only repeats what `reference_dataset_id` shows, and kept if it says more (an AGENT);
- the fixed fields of a feedback key are removed if they hold nothing, and put in version 1's order.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from sessions_pipeline.errors import ApiError, BadBodyError, GoneError, NotFoundError, UsageError
from sessions_pipeline.langsmith import Parameters, SessionsQuery
from sessions_pipeline.langsmith.page import Page, http_date
from sessions_pipeline.langsmith.records import Record, read_page
from sessions_pipeline.validation.json_text import split_record

COSTS = ("total_cost", "prompt_cost", "completion_cost")
FEEDBACK = ("feedback_stats", "session_feedback_stats")
TIERS = {'"LONG_LIVED"': '"longlived"', '"SHORT_LIVED"': '"shortlived"'}
# Fields of feedback, with the values that version 2 sends where version 1 omits the field.
OMITTED_IN_V1 = {
    "min": "null",
    "max": "null",
    "median": "null",
    "values": "{}",
    "contains_thread_feedback": "false",
    "type": '"PRIMARY"',
}
FEEDBACK_ORDER = ("n", "avg", "stdev", "errors", "values")


def read_v2_page(body: bytes) -> tuple[list[Record], str | None]:
    """The records of an answer `{items, next_cursor}` in version 1's spelling, and the next cursor, "" at the end.

    `"items": null` is an empty page, because Go writes an empty list that way.

    Raises:
        ValueError: the body is something else: it is truncated, or not from this API.
    """
    members = _texts(body.decode())
    items = members.get("items", "")
    cursor = msgspec.json.decode(members.get("next_cursor", "null"), type=str | None) or ""
    records = [] if items == "null" else read_page(items.encode())
    return [msgspec.structs.replace(record, payload=as_v1(record.payload)) for record in records], cursor


def as_v1(payload: str) -> str:
    """A record of version 2 as version 1 would have sent it; unchanged if it can't be read or is not an object."""
    try:
        sent = _texts(payload)
        converted = {name: _converted(name, text) for name, text in sent.items()}
        kind = '"PROJECT"' if converted.get("reference_dataset_id", "null") == "null" else '"EXPERIMENT"'
        if converted.get("type") == kind:
            del converted["type"]
        return payload if converted == sent else _object(converted)
    except ValueError:
        return payload


def _converted(name: str, text: str) -> str:
    if name in COSTS:
        return f'"{text}"' if text[-1] in "0123456789" else text  # NaN and -Infinity get no quotes
    if name == "trace_tier":
        return TIERS.get(text, text)
    if name in FEEDBACK and text.startswith("{"):
        return _object({key: _feedback(stats) for key, stats in _texts(text).items()})
    return text


def _feedback(text: str) -> str:
    if not text.startswith("{"):
        return text
    kept = {name: value for name, value in _texts(text).items() if OMITTED_IN_V1.get(name) != value}
    return _object({name: kept[name] for name in (*FEEDBACK_ORDER, *kept) if name in kept})


def _texts(text: str) -> dict[str, str]:
    return {name: bytes(value).decode() for name, value in split_record(text).items()}


def _object(texts: Mapping[str, str]) -> str:
    return "{" + ",".join([f"{msgspec.json.encode(name).decode()}:{text}" for name, text in texts.items()]) + "}"


_RENAMED = {"limit": "page_size", "reference_dataset": "reference_dataset_id", "facets": "include_facets"}
_UPPER_CASE = ("sort_by", "sort_by_feedback_source")
_REPLACED = ("offset", "sort_by_desc", "reference_free")


def v2_parameters(query: SessionsQuery, cursor: str | None) -> Parameters:
    """The query's parameters in version 2's names.

    Raises:
        UsageError: the query has an offset or a sort order that version 2 does not support.
    """
    if query.offset and cursor is None:
        raise UsageError("version 2 of the API has no offset; narrow the list instead, such as by name")
    if query.sort_by == "runs_count":
        raise UsageError("version 2 of the API does not sort by runs_count; choose another order")
    kinds = {None: (), True: ("PROJECT", "AGENT"), False: ("EXPERIMENT",)}[query.reference_free]
    pairs = [
        (_RENAMED.get(name, name), value.upper() if name in _UPPER_CASE else value)
        for name, value in query.to_parameters()
        if name not in _REPLACED
    ]
    pairs += [("sort_order", "desc" if query.sort_by_desc else "asc"), *(("type", kind) for kind in kinds)]
    return pairs if cursor is None else [*pairs, ("cursor", cursor)]


class Endpoint(NamedTuple):
    """A list of the API.

    `read` turns a body into records and the next page's cursor (see `Page`). `parameters` turns a query and a cursor
    into the parameters to send.
    """

    path: str
    read: Callable[[bytes], tuple[list[Record], str | None]]
    parameters: Callable[[SessionsQuery, str | None], Parameters] = lambda query, _cursor: query.to_parameters()


V1 = Endpoint("/api/v1/sessions", lambda body: (read_page(body), None))
V2 = Endpoint("/api/v2/sessions", read_v2_page, v2_parameters)
# By their names in SESSIONS_PIPELINE_API_VERSION, which also has `auto`.
VERSIONS = {"v1": V1, "v2": V2}
# By name, because names are unique. The default order, by the start of the last experiment, changes with every
# experiment, and all datasets without one are equal in it, so that offsets could skip some.
DATASETS = Endpoint(
    "/api/v1/datasets", V1.read, lambda query, _: query.model_copy(update={"sort_by": "name"}).to_parameters()
)


def choose_version(ask: Callable[[Endpoint], Page]) -> tuple[Endpoint, Page, str | None]:
    """Choose the API version to use; return it, its page from `ask`, and a warning unless version 1 is used as usual.

    It is version 1, unless that is gone or its announced end has passed, and version 2 answers. A 404 alone does not
    show that version 1 is gone: a wrong address gives one too, and then version 2 is not there either.

    Raises:
        ApiError: neither version answered; this is version 1's error if version 2 does not exist.
    """
    try:
        first = ask(V1)
    except GoneError as error:
        try:
            return V2, ask(V2), "Version 1 of the API is gone: version 2 is read"
        except (NotFoundError, BadBodyError):
            raise error from None
    sunset = http_date(first.headers.get("sunset", ""))
    if sunset is None or sunset > (first.server_time or datetime.now(UTC)):
        return V1, first, None
    ended = f"Version 1 of the API was to end on {sunset:%Y-%m-%d}"
    try:
        return V2, ask(V2), f"{ended}: version 2 is read"
    except ApiError as error:
        return V1, first, f"{ended}, but version 2 does not answer: version 1 is read ({error})"
