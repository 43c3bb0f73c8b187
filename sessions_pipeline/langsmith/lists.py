"""Whole lists, page after page, by offset or by cursor: for what needs no proof that it held still meanwhile."""

from collections.abc import Callable, Iterator, Sequence

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.api_versions import DATASETS
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.page import Page, identity
from sessions_pipeline.langsmith.query import SessionsQuery, batches
from sessions_pipeline.validation.records import Record

# 100,000 datasets, or sessions with runs since the last look: more than any workspace has, so the list has no end.
MOST_PAGES = 1000
DATASETS_PER_PAGE = 100
# Readings that a list of datasets which keeps changing is given.
TRIES = 5


def session_pages(
    client: SessionsClient, query: SessionsQuery, *, workspace: str | None, cursor: str | None = None
) -> Iterator[tuple[int, Page]]:
    """The pages of the query's list, in its order, each with its offset, from the query's offset on, or from a cursor.

    Raises:
        ApiError: a page could not be read.
        PagingError: the list does not end.
    """

    def fetch(offset: int, cursor: str | None) -> Page:
        return client.fetch(query.model_copy(update={"offset": offset}), workspace=workspace, cursor=cursor)

    return _pages(fetch, query.offset, cursor)


def read_datasets(client: SessionsClient, *, workspace: str | None, ids: Sequence[str] | None = None) -> list[Record]:
    """All datasets of a workspace, from `GET /api/v1/datasets`, to the list's proven end; or those of some ids.

    Raises:
        ApiError: a page could not be read; 403 or 404 where the API does not let this key read datasets.
        PagingError: the list kept changing, or does not end; what is missing from it can't be told then.
    """

    def fetch(offset: int, some: Sequence[str] = ()) -> Page:
        parameters = [("offset", str(offset)), ("limit", str(DATASETS_PER_PAGE)), *(("id", name) for name in some)]
        return client.get_page(DATASETS, parameters, workspace)

    if ids is not None:
        return [record for some in batches(ids) for record in fetch(0, some).records]
    before: dict[str, Record] = {}
    for _ in range(TRIES):
        pages = [page.records for _, page in _pages(lambda offset, _: fetch(offset))]
        found = {identity(record): record for page in pages for record in page}
        # A change between two answers may hide a dataset from both, but hardly the same one from two readings.
        if len(pages[0]) == len(found) < DATASETS_PER_PAGE or found.keys() == before.keys():
            return list(found.values())
        before = found
    raise PagingError(f"The list of datasets kept changing during {TRIES} readings; nothing was replaced")


def _pages(
    fetch: Callable[[int, str | None], Page], offset: int = 0, cursor: str | None = None
) -> Iterator[tuple[int, Page]]:
    """Pages with their offsets, each by where the one before ends or by its cursor, until one says that it is the last.

    Where there are no cursors, that is an empty one, or one with which `X-Pagination-Total` adds up.
    """
    before: Sequence[Record] = ()
    for _ in range(MOST_PAGES):
        page = fetch(offset, cursor)
        if page.records and page.records == before:
            raise PagingError("The API gives the same page of its list again and again; nothing was replaced")
        before = page.records
        yield offset, page
        offset, cursor = offset + len(page.records), page.next_cursor
        if cursor == "" or (cursor is None and (not page.records or page.total == offset)):
            return
    raise PagingError(f"The API's list did not end after {MOST_PAGES} pages; nothing was replaced")
