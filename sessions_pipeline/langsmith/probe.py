"""Tests assumptions about the real API by read-only requests. The results contain no data of the workspace.

The assumptions come from the schema, from other clients and from the embedded API; see docs/api-versions.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias
from uuid import uuid4

from sessions_pipeline.errors import ApiError, NotFoundError, RefusedError
from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.langsmith.api_versions import DATASETS, V1, V2, VERSIONS
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.lists import CHEAPEST_STATS, read_judges, runs_that_judge
from sessions_pipeline.langsmith.page import Page, identity, last_active
from sessions_pipeline.validation.validate import Validator

MOST_REQUESTS, MOST_SECONDS = 30, 90.0
BEYOND_ANY_LIST = 10_000_000
Result: TypeAlias = tuple[str, str, bool | None, str]
"""A version of the API, an assumption about it, whether that holds (None: undecided), and what was seen."""


class UndecidedError(Exception):
    """An assumption can't be tested on this workspace; the text says why."""


@dataclass(frozen=True)
class _Api:
    client: SessionsClient
    workspace: str | None
    project: str

    def page(self, cursor: str | None = None, **values: Any) -> Page:
        if self.client.requests >= MOST_REQUESTS:
            raise UndecidedError("not asked")
        return self.client.fetch(SessionsQuery(**values), workspace=self.workspace, cursor=cursor)

    @cached_property
    def newest(self) -> Page:
        return self.page(include_stats=True)


def _newest_first(api: _Api) -> tuple[bool, str]:
    starts = [record.start_us for record in api.newest.records if record.start_us is not None]
    return starts == sorted(starts, reverse=True), _require(len(starts) > 1, f"{len(starts)} sessions")


def _ties(api: _Api) -> tuple[bool, str]:
    starts = {identity(record): record.start_us for record in api.newest.records if record.start_us is not None}
    tied = [id_ for id_, start in starts.items() if list(starts.values()).count(start) > 1]
    seen = _require(bool(tied), f"{len(tied)} sessions")
    return [id_ for record in api.page(include_stats=True).records if (id_ := identity(record)) in tied] == tied, seen


def _undated(api: _Api) -> tuple[bool, str]:
    pages = [[record.undated for record in page.records] for page in (api.newest, api.page(sort_by_desc=False))]
    _require(any(map(any, pages)))
    if all(page in (sorted(page), sorted(page, reverse=True)) for page in pages):
        return True, "first" if pages[0][0] else "last"
    return False, "in between"


def _past_the_end(api: _Api) -> tuple[bool, str]:
    is_empty = not api.page(offset=BEYOND_ANY_LIST, limit=1).records
    return is_empty, "an empty page" if is_empty else "sessions"


def _total(api: _Api) -> tuple[bool, str]:
    if (total := api.newest.total) is None:
        raise UndecidedError("not sent")
    around = [len(api.page(offset=offset, limit=1).records) for offset in (max(0, total - 1), total)]
    return around == [min(1, total), 0], "sent"


def _run_times(api: _Api, **values: Any) -> tuple[bool, str]:
    _require(any(map(last_active, api.newest.records)))
    are_sent = any(map(last_active, api.page(**values).records))
    return are_sent, "sent" if are_sent else "not sent"


def _filter(api: _Api) -> tuple[bool, str]:
    busy = [row["id"] for row in _rows(api.newest) if row["run_count"]]
    _require(bool(busy))
    narrowed: dict[str, Any] = {"id": busy[:1], "stats_filter": runs_that_judge(uuid4().hex)}
    found = _rows(api.page(include_stats=True, stats_select=CHEAPEST_STATS, **narrowed))
    runs = found[0]["run_count"] if found else None
    return runs == 0, "0 runs" if runs == 0 else "no count" if runs is None else "ignored"


def _judges(api: _Api) -> tuple[bool, str]:
    names = [row["name"] for row in _rows(api.newest) if row["reference_dataset_id"]][:2]
    if names and read_judges(api.client, api.project, workspace=api.workspace) is None:
        raise UndecidedError("no such project")
    found = (read_judges(api.client, api.project, workspace=api.workspace, experiment=name) for name in names)
    return True, _require(any(one and one["run_count"] for one in found), "found")


def _datasets(api: _Api) -> tuple[bool, str]:
    page = api.client.fetch(SessionsQuery(limit=1), workspace=api.workspace, endpoint=DATASETS)
    return True, "without a total" if page.total is None else "with a total"


def _cursor(api: _Api) -> tuple[bool, str]:
    first = api.page(limit=1)
    _require(bool(first.next_cursor))
    second = api.page(first.next_cursor, limit=1).records
    return bool(second) and identity(second[0]) != identity(first.records[0]), "another page"


def _require(has_case: bool, seen: str = "") -> str:
    """Return `seen`, or raise if the workspace has no case to test the assumption on."""
    if not has_case:
        raise UndecidedError("no case to test")
    return seen


def _rows(page: Page) -> list[dict[str, Any]]:
    return list(Validator().sessions([record.payload for record in page.records]).to_pylist())


_Test: TypeAlias = Callable[[_Api], tuple[bool, str]]
BOTH_VERSIONS: Mapping[str, _Test] = {
    "sessions come newest first": _newest_first,
    "without a start time: at one end": _undated,
    "stats_filter leaves out other runs": _filter,
    "judges are found by experiment": _judges,
    "run times come with stats_select": partial(_run_times, include_stats=True, stats_select=CHEAPEST_STATS),
    "run times come without stats": _run_times,
}
V1_ONLY: Mapping[str, _Test] = {
    "equal start times keep their order": _ties,
    "an empty page lies behind the end": _past_the_end,
    "X-Pagination-Total counts the list": _total,
    "datasets can be listed": _datasets,
}
ASSUMPTIONS = {V1: {**BOTH_VERSIONS, **V1_ONLY}, V2: {"a cursor leads on": _cursor, **BOTH_VERSIONS}}


def probe(client: SessionsClient, *, workspace: str | None, project: str) -> Iterator[Result]:
    """Test each assumption, in about 30 requests at most, retries not counted."""
    client.throttle.end_within(MOST_SECONDS)
    for version, client.api_version in VERSIONS.items():
        api, is_answered = _Api(client, workspace, project), False
        for assumption, test in ASSUMPTIONS[client.api_version].items():
            holds: bool | None
            try:
                holds, seen = test(api)
                is_answered = True
            except UndecidedError as error:
                holds, seen = None, str(error)
            except ApiError as error:
                is_final = isinstance(error, RefusedError | NotFoundError)
                # If the version has answered nothing so far, its refusal says nothing about the assumption.
                holds, seen = False if is_final and is_answered else None, "refused" if is_final else "no usable answer"
            yield version, assumption, holds, seen
