"""The API's two versions: what each calls its parameters and its pages, and which of them a run speaks.

Version 1 pages by offset and answers an array; version 2 pages by cursor, answers `{items, next_cursor}` and has other
names. Records come out of both in version 1's spelling.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sessions_pipeline.errors import ApiError, BadBodyError, GoneError, NotFoundError, UsageError
from sessions_pipeline.langsmith.query import SessionSortableColumns, SessionsQuery
from sessions_pipeline.langsmith.second_version import read_second_page
from sessions_pipeline.validation.records import Record, read_page

Parameters = list[tuple[str, str]]
_RENAMED = {"limit": "page_size", "reference_dataset": "reference_dataset_id", "facets": "include_facets"}
_IN_CAPITALS = ("sort_by", "sort_by_feedback_source")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A list of the API: its `path`, what its `page` is in words, and how that is `read`: records, cursor."""

    path: str
    page: str
    read: Callable[[bytes], tuple[list[Record], str | None]]


@dataclass(frozen=True, slots=True)
class ApiVersion(Endpoint):
    """The list of sessions in one version of the API: its `name` in settings and its `parameters`."""

    name: str
    parameters: Callable[[SessionsQuery, str | None], Parameters]


@dataclass(frozen=True, slots=True)
class Answer:
    """One page.

    `records` are without what is private. `total` is what `X-Pagination-Total` says, None where it is absent;
    `asked_at` and `received_at` are this machine's UTC times of the request and of the complete body, `server_time` the
    server's, where it tells; `size` counts the body's bytes on the wire; `next_cursor` asks for the next page, None at
    the list's end and in version 1; `sunset` is this version's end.
    """

    records: list[Record]
    total: int | None
    asked_at: datetime
    received_at: datetime
    size: int
    server_time: datetime | None
    next_cursor: str | None = None
    sunset: datetime | None = None

    @property
    def clock_error_seconds(self) -> float:
        """By how much this machine's clock differs from the server's at least; 0 where that can't be told."""
        if self.server_time is None:
            return 0.0
        early, late = self.asked_at - self.server_time, self.server_time - self.received_at
        return max(early.total_seconds(), late.total_seconds(), 0.0)


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


def _read_array(body: bytes) -> tuple[list[Record], str | None]:
    return read_page(body), None


ARRAY = "a complete JSON array"
FIRST = ApiVersion("/api/v1/sessions", ARRAY, _read_array, "v1", lambda query, _cursor: query.to_parameters())
SECOND = ApiVersion(
    "/api/v2/sessions", "a complete JSON object with items and next_cursor", read_second_page, "v2", second_parameters
)
DATASETS = Endpoint("/api/v1/datasets", ARRAY, _read_array)


def decide(ask: Callable[[ApiVersion], Answer]) -> tuple[ApiVersion, Answer, str | None]:
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
