"""A whole list, page after page, by offset or by cursor: for lists that need no proof of being complete."""

from collections.abc import Iterator

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.query import SessionsQuery
from sessions_pipeline.langsmith.versions import SECOND
from sessions_pipeline.validation.records import Record

# 100,000 sessions with runs since the last look: more than any workspace, so the server repeats itself.
MOST_PAGES = 1000


def pages(client: SessionsClient, query: SessionsQuery, *, workspace: str | None) -> Iterator[list[Record]]:
    """The pages of the query's list, in its order.

    Raises:
        ApiError: a page could not be read.
        PagingError: the list does not end.
    """
    offset, cursor = 0, None
    for _ in range(MOST_PAGES):
        answer = client.fetch(query.model_copy(update={"offset": offset}), workspace=workspace, cursor=cursor)
        yield answer.records
        if client.version is SECOND:
            cursor, is_last = answer.next_cursor, answer.next_cursor is None
        else:
            offset, is_last = offset + len(answer.records), not answer.records
        if is_last:
            return
    raise PagingError(f"The list of sessions did not end after {MOST_PAGES} pages; nothing was asked for")
