"""What datasets are called: `GET /api/v1/datasets`, by offset, with no word on its order."""

from collections.abc import Sequence

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.coverage import identity
from sessions_pipeline.langsmith.query import IDS_PER_REQUEST
from sessions_pipeline.langsmith.versions import DATASETS, Answer
from sessions_pipeline.validation.records import Record

PAGE_SIZE = 100
# Readings that a list which keeps changing is given.
TRIES = 5
# A million datasets: more than any workspace has, so the list does not end.
MOST_PAGES = 10_000


def read_datasets(
    client: SessionsClient, *, workspace: str | None, ids: Sequence[str] | None = None
) -> tuple[Record, ...]:
    """All datasets of a workspace, to the list's proven end; or those of these ids that are there.

    Raises:
        ApiError: a page could not be read; 403 or 404 where the API does not let this key read datasets.
        PagingError: the list kept changing, or does not end; what is missing from it can't be told then.
    """
    if ids is not None:
        some = (ids[first : first + IDS_PER_REQUEST] for first in range(0, len(ids), IDS_PER_REQUEST))
        return tuple(record for part in some for record in _page(client, workspace, 0, part).records)
    for _ in range(TRIES):
        found = _read_all(client, workspace)
        if found is not None:
            return found
    raise PagingError(f"The list of datasets kept changing during {TRIES} readings; nothing was replaced")


def _read_all(client: SessionsClient, workspace: str | None) -> tuple[Record, ...] | None:
    """Each page begins with the last record of the one before; None where it does not, as the list has changed."""
    found: dict[str, Record] = {}
    last, offset = None, 0
    for _ in range(MOST_PAGES):
        answer = _page(client, workspace, offset)
        names = [identity(record) for record in answer.records]
        if last is not None and names[:1] != [last]:
            return None
        fresh = [name for name in names if name not in found]
        found.update(zip(names, answer.records, strict=True))
        end = offset + len(names)
        if answer.total == end or (not fresh and not _page(client, workspace, end).records):
            return tuple(found.values())
        if not fresh:
            return None
        last, offset = names[-1], end - 1
    raise PagingError(f"The list of datasets did not end after {MOST_PAGES} pages; nothing was replaced")


def _page(client: SessionsClient, workspace: str | None, offset: int, ids: Sequence[str] = ()) -> Answer:
    parameters = [("offset", str(offset)), ("limit", str(PAGE_SIZE)), *(("id", name) for name in ids)]
    return client.answer(DATASETS, parameters, workspace)
