"""The tests' own server: each fault affects the answers that it should, and no others."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx
import pytest

from sessions_pipeline_tests.faulty_server import KINDS, Fault, Sandbox, running_sandbox

TEXTS = [f'{{"id":"{number:03}","name":"{"x" * 40}"}}' for number in range(120)]
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(texts=TEXTS, send_total=True, now=datetime(2026, 3, 20, 12, tzinfo=UTC)) as running:
        yield running


@pytest.fixture
def ask(sandbox: Sandbox) -> Iterator[Ask]:
    with httpx.Client(base_url=sandbox.url, headers={"x-api-key": sandbox.key}) as client:
        yield lambda path="v1", **parameters: client.get(f"/api/{path}/sessions", params=parameters)
    sandbox.faults.clear()


FAULTS: dict[str, tuple[Fault, Callable[[httpx.Response], bool]]] = {
    "status": (
        Fault("status", 429, retry_after="3"),
        lambda a: a.status_code == 429 and a.headers["retry-after"] == "3",
    ),
    "html": (Fault("html", 403), lambda a: a.status_code == 403 and "html" in a.headers["content-type"]),
    "redirect": (Fault("redirect", "http://127.0.0.1:1/"), lambda a: a.status_code == 307),
    "not_json": (Fault("not_json"), lambda a: a.status_code == 200 and a.text.startswith("<html>")),
    "truncated": (Fault("truncated"), lambda a: a.text.startswith("[{") and not a.text.endswith("]")),
    "cap": (Fault("cap", 7), lambda a: len(a.json()) == 7),
    "deprecated": (Fault("deprecated", "Thu, 01 Jul 2027 00:00:00 GMT"), lambda a: a.headers["deprecation"] == "true"),
    "latency": (Fault("latency", 0.02), lambda a: a.elapsed.total_seconds() >= 0.02),
    "gone": (Fault("gone", 410), lambda a: a.status_code == 410),
    "date": (Fault("date"), lambda a: a.headers.get_list("date") == ["Fri, 20 Mar 2026 12:00:00 GMT"]),
    "unsorted": (Fault("unsorted"), lambda a: a.json()[0]["id"] == "099"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_affects_one_answer_and_the_next_is_right(kind: str, sandbox: Sandbox, ask: Ask) -> None:
    fault, spoiled = FAULTS[kind]
    right = ask()
    assert (right.status_code, right.headers["x-pagination-total"]) == (200, "120")
    sandbox.faults.add(Fault(**vars(fault)))
    assert spoiled(ask())
    assert ask().content == right.content


def test_a_reset_breaks_the_connection_in_mid_body(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.faults.add(Fault("reset"))
    with pytest.raises(httpx.RemoteProtocolError):
        ask()
    assert ask().status_code == 200


def test_paging_faults_return_the_wrong_records(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.faults.add(Fault("ignore_offset"))
    assert [one["id"] for one in ask(limit=2, offset=50).json()] == ["000", "001"]
    sandbox.faults.add(Fault("repeat_last", times=2))
    assert ask(limit=5, offset=900).json() == ask(limit=5, offset=950).json() != []
    assert ask(limit=5, offset=900).json() == []
    sandbox.faults.add(Fault("same_cursor", times=2))
    first = ask("v2", page_size=5).json()
    assert ask("v2", page_size=5, cursor=first["next_cursor"]).json() == first
    assert ask("v2", page_size=5).json()["next_cursor"] != first["next_cursor"]


def test_requests_for_datasets_alone_can_be_refused(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.faults.add(Fault("no_datasets", 403, times=2))
    assert ask().status_code == 200
    assert httpx.get(f"{sandbox.url}/api/v1/datasets", headers={"x-api-key": sandbox.key}).status_code == 403


def test_a_fault_begins_after_some_answers_and_ends_after_others(sandbox: Sandbox, ask: Ask) -> None:
    sandbox.faults.add(Fault("status", 500, after=1, times=2))
    assert [ask().status_code for _ in range(4)] == [200, 500, 500, 200]
    assert [request["status"] for request in sandbox.requests[-4:]] == [200, 500, 500, 200]
    assert sandbox.requests[-1] == {"path": "/api/v1/sessions", "parameters": [], "workspace": None, "status": 200}


def test_this_file_tests_every_kind_of_fault_and_an_unknown_kind_is_refused() -> None:
    assert {*FAULTS, "reset", "ignore_offset", "repeat_last", "no_datasets", "same_cursor"} == set(KINDS)
    with pytest.raises(ValueError, match="choose one of"):
        Fault("weather")
