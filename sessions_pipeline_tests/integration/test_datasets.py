"""The list of datasets over real HTTP: it is complete, up to its proven end, or an error."""

import json
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from sessions_pipeline.errors import PagingError, RefusedError
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.lists import read_datasets
from sessions_pipeline.settings import Settings
from sessions_pipeline_tests.integration.scripted_server import Handler, answer, scripted

Change = Callable[[list[str], int], None]


def client_for(url: str) -> SessionsClient:
    return SessionsClient(Settings(_env_file=None, LANGSMITH_ENDPOINT=url, LANGSMITH_API_KEY="key"))


def uuid(number: int) -> str:
    return f"abcdefab-0000-4000-8000-{number:012d}"


def datasets(
    names: list[str], *, total: bool, cap: int = 100, change: Change = lambda _names, _n: None
) -> Callable[[Handler], None]:
    answered = 0

    def step(handler: Handler) -> None:
        nonlocal answered
        asked = parse_qs(urlsplit(handler.path).query)
        offset, limit, ids = int(asked["offset"][0]), int(asked["limit"][0]), asked.get("id")
        listed = [name for name in names if ids is None or name in ids]
        body = json.dumps([{"id": name, "name": f"dataset {name}"} for name in listed[offset:][: min(limit, cap)]])
        handler.reply(200, body.encode(), {"X-Pagination-Total": str(len(listed))} if total else {})
        answered += 1
        change(names, answered)

    return step


@pytest.mark.parametrize("total", [True, False])
@pytest.mark.parametrize("cap", [2, 100])
@pytest.mark.parametrize("count", [0, 1, 100, 250])
def test_all_datasets_are_read_to_the_proven_end(count: int, cap: int, total: bool) -> None:
    names = [uuid(number) for number in range(count)]
    with scripted(datasets(names, total=total, cap=cap)) as server, client_for(server.url) as client:
        found = read_datasets(client, workspace=None)
    assert [record.session_id for record in found] == names
    pages = -(-count // cap) + (not total) or 1
    assert len(server.paths) == pages * min(pages, 2), "several pages are read twice"


def test_no_dataset_is_lost_where_the_default_order_leaves_places_open() -> None:
    names = [uuid(number) for number in range(250)]

    def step(handler: Handler) -> None:
        asked = parse_qs(urlsplit(handler.path).query)
        offset, limit = int(asked["offset"][0]), int(asked["limit"][0])
        # A database may sort equal rows in another way for each page.
        start = 0 if asked.get("sort_by") == ["name"] else offset // 3
        page = (names[start:] + names[:start])[offset:][:limit]
        handler.reply(200, json.dumps([{"id": name, "name": name} for name in page]).encode())

    with scripted(step) as server, client_for(server.url) as client:
        assert {record.session_id for record in read_datasets(client, workspace=None)} == set(names)


def test_a_deletion_during_the_read_loses_no_other_dataset() -> None:
    def delete(names: list[str], number: int) -> None:
        if number == 1:
            del names[:5]

    names = [uuid(number) for number in range(250)]
    with scripted(datasets(names, total=False, change=delete)) as server, client_for(server.url) as client:
        assert {record.session_id for record in read_datasets(client, workspace=None)} >= set(names)


@pytest.mark.parametrize("total", [True, False])
def test_a_deletion_loses_no_other_dataset_of_a_short_list_where_the_server_has_a_cap(total: bool) -> None:
    def delete(names: list[str], number: int) -> None:
        if number == 1:
            del names[:10]

    names = [uuid(number) for number in range(60)]
    listed = datasets(names, total=total, cap=50, change=delete)
    with scripted(listed) as server, client_for(server.url) as client:
        assert {record.session_id for record in read_datasets(client, workspace=None)} >= set(names)


def test_a_list_that_keeps_changing_is_an_error() -> None:
    def delete(names: list[str], _: int) -> None:
        del names[:5]

    names = [uuid(number) for number in range(2000)]
    with (
        scripted(datasets(names, total=False, change=delete)) as server,
        client_for(server.url) as client,
        pytest.raises(PagingError, match="kept changing"),
    ):
        read_datasets(client, workspace=None)


def test_a_list_whose_pages_are_all_the_same_is_an_error_at_once() -> None:
    with (
        scripted(answer(body=b'[{"id": "a", "name": "n"}]')) as server,
        client_for(server.url) as client,
        pytest.raises(PagingError, match="twice in a row"),
    ):
        read_datasets(client, workspace=None)
    assert len(server.paths) == 2


def test_given_datasets_are_requested_by_id_fifty_at_a_time() -> None:
    names = [uuid(number) for number in range(200)]
    with scripted(datasets(names, total=True)) as server, client_for(server.url) as client:
        found = read_datasets(client, workspace=None, ids=[*names[:60], uuid(999)])
    assert [record.session_id for record in found] == names[:60]
    assert len(server.paths) == 2


def test_datasets_that_the_key_may_not_read_have_their_own_error() -> None:
    with (
        scripted(answer(403, b'{"detail": "Forbidden"}')) as server,
        client_for(server.url) as client,
        pytest.raises(RefusedError, match="/api/v1/datasets"),
    ):
        read_datasets(client, workspace=None)
