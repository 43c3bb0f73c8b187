"""The API's two versions: what each calls its parameters and its pages, and which of them a run speaks.

Version 1 pages by offset and answers an array; version 2 pages by cursor, answers `{items, next_cursor}` and has other
names. Records come out of both in version 1's spelling.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from sessions_pipeline.errors import ApiError, BadBodyError, GoneError, NotFoundError, UsageError
from sessions_pipeline.langsmith.page import Page
from sessions_pipeline.langsmith.query import SessionSortableColumns, SessionsQuery
from sessions_pipeline.langsmith.second_version import read_second_page
from sessions_pipeline.validation.records import Record, read_page

Parameters = list[tuple[str, str]]
_RENAMED = {"limit": "page_size", "reference_dataset": "reference_dataset_id", "facets": "include_facets"}
_IN_CAPITALS = ("sort_by", "sort_by_feedback_source")


class Endpoint(NamedTuple):
    """A list of the API: its `path`, what its `page` is in words, and how that is `read`: records, next cursor."""

    path: str
    page: str
    read: Callable[[bytes], tuple[list[Record], str | None]]


ARRAY = "a complete JSON array"
FIRST = Endpoint("/api/v1/sessions", ARRAY, lambda body: (read_page(body), None))
SECOND = Endpoint("/api/v2/sessions", "a complete JSON object with items and next_cursor", read_second_page)
DATASETS = Endpoint("/api/v1/datasets", ARRAY, FIRST.read)


def second_parameters(query: SessionsQuery, cursor: str | None) -> Parameters:
    """The query in version 2's names.

    Raises:
        UsageError: it asks for what version 2 does not have, an offset or an order.
    """
    if query.offset:
        raise UsageError("version 2 of the API has no offset; narrow the list instead, such as by name")
    if query.sort_by is SessionSortableColumns.runs_count:
        raise UsageError("version 2 of the API does not sort by runs_count; choose another order")
    pairs: Parameters = []
    for name, value in query.to_parameters():
        match name:
            case "offset":
                continue
            case "sort_by_desc":
                pairs.append(("sort_order", "desc" if query.sort_by_desc else "asc"))
            case "reference_free":
                kinds = ("PROJECT", "AGENT") if query.reference_free else ("EXPERIMENT",)
                pairs += [("type", kind) for kind in kinds]
            case _:
                pairs.append((_RENAMED.get(name, name), value.upper() if name in _IN_CAPITALS else value))
    return pairs if cursor is None else [*pairs, ("cursor", cursor)]


def decide(ask: Callable[[Endpoint], Page]) -> tuple[Endpoint, Page, str | None]:
    """The version to speak, its answer to the same question, and why, where there is something to say.

    Version 1, unless it is gone or its announced end has passed, and version 2 answers. A 404 alone does not say that
    version 1 is gone: a wrong address answers so too, and then version 2 is not there either.

    Raises:
        ApiError: neither answered; version 1's own error if version 2 is not there.
    """
    try:
        first = ask(FIRST)
    except GoneError as error:
        try:
            second = ask(SECOND)
        except (NotFoundError, BadBodyError):
            raise error from None
        return SECOND, second, "Version 1 of the API is gone: version 2 is read"
    if first.sunset is None or first.sunset > (first.server_time or datetime.now(UTC)):
        return FIRST, first, None
    ended = f"Version 1 of the API was to end on {first.sunset:%Y-%m-%d}"
    try:
        return SECOND, ask(SECOND), f"{ended}: version 2 is read"
    except ApiError as error:
        return FIRST, first, f"{ended}, but version 2 does not answer: version 1 is read ({error})"
