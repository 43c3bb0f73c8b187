"""What the sandbox answers over HTTP: filters, sorting, stats, refusals and faults."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from sessions_pipeline.sandbox.app import Api
from sessions_pipeline.sandbox.company import DATASETS, OTHER_WORKSPACE, TAGS, WORKSPACE, company, microseconds
from sessions_pipeline.sandbox.faults import Fault
from sessions_pipeline.sandbox.listing import CompanyData
from sessions_pipeline.sandbox.parameters import SORTABLE, Parameters
from sessions_pipeline.sandbox.server import Sandbox, build_api, running_sandbox
from sessions_pipeline.sandbox.stats import STATS

NOW = datetime(2026, 3, 20, 15, tzinfo=UTC)
List = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(build_api(now=NOW)) as running:
        yield running


@pytest.fixture(scope="module")
def ask(sandbox: Sandbox) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(base_url=sandbox.url, headers={"x-api-key": sandbox.key}) as client:
        yield lambda headers=None, **parameters: client.get("/api/v1/sessions", params=parameters, headers=headers)


@pytest.fixture
def listed(ask: Callable[..., httpx.Response]) -> List:
    return lambda **parameters: ask(**parameters).json()


@pytest.fixture(autouse=True)
def behaves(sandbox: Sandbox) -> Iterator[None]:
    yield
    sandbox.faults.clear()


def test_a_company_has_about_six_thousand_sessions_in_45_days_seven_datasets_and_some_faults() -> None:
    sessions = company(7, NOW)
    assert 5_500 < len(sessions) < 6_500
    days = {session.start.date() for session in sessions if session.start and session.dataset}
    assert min(days) == NOW.date() - timedelta(days=44)
    assert {session.dataset for session in sessions} == {None, *DATASETS}
    assert len(DATASETS) == 7
    assert any(session.broken for session in sessions)
    assert any(session.start is None for session in sessions)
    assert "<script>alert(1)</script>" in {session.name for session in sessions}
    assert len({session.id for session in sessions}) == len(sessions)


def test_the_same_seed_and_time_make_the_same_bytes_and_another_seed_others(ask: Callable[..., httpx.Response]) -> None:
    with running_sandbox(build_api(now=NOW)) as again, running_sandbox(build_api(now=NOW, seed=8)) as other:
        parameters = {"include_stats": "true", "limit": "100", "offset": "300"}
        bodies = [
            httpx.get(f"{one.url}/api/v1/sessions", params=parameters, headers={"x-api-key": one.key}).content
            for one in (again, other)
        ]
    assert ask(**parameters).content == bodies[0] != bodies[1]


def test_without_include_stats_every_stat_is_null(listed: List) -> None:
    assert all(record[name] is None for record in listed() for name in STATS)
    assert any(record["total_cost"] for record in listed(include_stats="true"))


def test_only_selected_stats_are_computed(listed: List) -> None:
    [record] = listed(include_stats="true", stats_select=["run_count"], limit=1, reference_free="true")
    assert [name for name in STATS if record[name] is not None] == ["run_count"]


@pytest.mark.parametrize("descending", ["true", "false"])
@pytest.mark.parametrize("column", SORTABLE)
def test_sorting_is_postgresql_s_with_the_unknown_last_ascending_and_first_descending(
    column: str, descending: str
) -> None:
    sessions = company(7, NOW)
    few = [one for one in sessions if not one.start or one.broken or not one.dataset or one.seed % 40 == 0]
    few[3].emptied = True
    api = Api(CompanyData(few, NOW), NOW)
    with running_sandbox(api) as small:
        answer = httpx.get(
            f"{small.url}/api/v1/sessions",
            params={"sort_by": column, "sort_by_desc": descending, "include_stats": "true"},
            headers={"x-api-key": small.key},
        )
    sound = [record for record in answer.json() if not any(one.id == record["id"] and one.broken for one in few)]
    values = [_value(record, column) for record in sound]
    known = [value for value in values if value is not None]
    assert len(known) > 20
    unknown: list[Any] = [None] * (len(values) - len(known))
    in_order = sorted(known, reverse=descending == "true")
    assert values == ([*unknown, *in_order] if descending == "true" else [*in_order, *unknown])


def _value(record: dict[str, Any], column: str) -> Any:
    if column == "feedback":
        return (record["feedback_stats"] or {}).get("correctness", {}).get("avg")
    return record.get("run_count" if column == "runs_count" else column)


FILTERS: dict[str, tuple[Any, Callable[[dict[str, Any]], bool]]] = {
    "reference_free": ("true", lambda record: record["reference_dataset_id"] is None),
    "reference_dataset": (DATASETS["query-rewrite"], lambda r: r["reference_dataset_id"] == DATASETS["query-rewrite"]),
    "name": ("search-production", lambda record: record["name"] == "search-production"),
    "name_contains": ("NIGHTLY", lambda record: "nightly" in record["name"]),
    "dataset_version": ("v2", lambda record: record["extra"]["metadata"]["dataset_version"] == "v2"),
    "metadata": (json.dumps({"team": "legal"}), lambda record: record["extra"]["metadata"]["team"] == "legal"),
    "tag_value_id": (TAGS["search"], lambda record: record["extra"]["metadata"]["team"] == "search"),
    "filter": ('eq(name, "search-production")', lambda record: record["name"] == "search-production"),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_gives_all_that_match_and_nothing_else(name: str, sandbox: Sandbox, listed: List) -> None:
    value, matches = FILTERS[name]
    everything = [json.loads(text) for text in _all_texts(sandbox)]
    expected = {record["id"] for record in everything if matches(record)}
    found = set[str]()
    for offset in range(0, len(everything), 100):
        page = listed(offset=offset, **{name: value})
        found |= {record["id"] for record in page}
        if len(page) < 100:
            break
    broken = {one.id for one in sandbox.api.data.sessions if one.broken}  # type: ignore[attr-defined]
    assert found - broken == expected - broken
    assert 0 < len(found) < len(everything)


def _all_texts(sandbox: Sandbox) -> list[str]:
    pages = (sandbox.api.data.page(_asked(offset), WORKSPACE)[0] for offset in range(0, 7_000, 100))
    return [text for page in pages for text in page]


def _asked(offset: int) -> Parameters:
    return Parameters(offset=offset)


def test_ids_are_a_filter_and_unknown_ones_find_nothing(listed: List) -> None:
    ids = [record["id"] for record in listed(limit=3)]
    assert {record["id"] for record in listed(id=ids)} == set(ids)
    assert listed(id=[WORKSPACE]) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "many"),
        ("offset", "-1"),
        ("sort_by", "cost"),
        ("reference_free", "perhaps"),
        ("reference_dataset", "support-answers"),
        ("metadata", "[]"),
        ("filter", "name = nightly"),
        ("stats_start_time", "yesterday"),
        ("stats_start_time", "2026-02-01T00:00:00Z"),
        ("sort_by_feedback_source", "hearsay"),
    ],
)
def test_a_wrong_parameter_is_422_with_its_name(ask: Callable[..., httpx.Response], name: str, value: str) -> None:
    answer = ask(**{name: value})
    assert answer.status_code == 422
    [detail] = answer.json()["detail"]
    assert detail["loc"][:2] == ["query", name]
    assert {"loc", "msg", "type"} <= set(detail)


def test_a_key_or_a_bearer_token_opens_and_nothing_else(sandbox: Sandbox) -> None:
    address = f"{sandbox.url}/api/v1/sessions"
    statuses = [
        httpx.get(address, headers=headers).status_code
        for headers in (
            {},
            {"x-api-key": "wrong"},
            {"authorization": f"Bearer {sandbox.key}"},
            {"x-api-key": sandbox.key},
        )
    ]
    assert statuses == [401, 401, 200, 200]


def test_a_workspace_has_its_own_sessions_and_a_stranger_s_is_refused(ask: Callable[..., httpx.Response]) -> None:
    tenants = {
        workspace: {record["tenant_id"] for record in ask(headers={"x-tenant-id": workspace}).json()}
        for workspace in (WORKSPACE, OTHER_WORKSPACE)
    }
    assert tenants == {WORKSPACE: {WORKSPACE}, OTHER_WORKSPACE: {OTHER_WORKSPACE}}
    assert ask(headers={"x-tenant-id": DATASETS["query-rewrite"]}).status_code == 403


def test_stats_from_a_time_on_are_sums_over_the_runs_from_then_on(sandbox: Sandbox, listed: List) -> None:
    sessions = {one.id: one for one in sandbox.api.data.sessions}  # type: ignore[attr-defined]
    day = NOW.replace(hour=0) - timedelta(days=3)
    ends = [{record["id"]: record for record in listed(**_stats(since))} for since in (day, day + timedelta(days=1))]
    assert len(ends[0]) >= 4
    for name, begin in ends[0].items():
        runs = [
            run
            for run in sessions[name].runs
            if microseconds(day) <= run.start_us < microseconds(day + timedelta(days=1))
        ]
        assert begin["run_count"] - ends[1][name]["run_count"] == len(runs)
        used = Decimal(begin["total_cost"]) - Decimal(ends[1][name]["total_cost"])
        assert used == Decimal(sum(run.prompt_cost + run.completion_cost for run in runs)).scaleb(-9)


def _stats(since: datetime) -> dict[str, str]:
    return {"include_stats": "true", "reference_free": "true", "stats_start_time": since.isoformat()}


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
    "latency": (Fault("latency", 0.05), lambda a: a.elapsed.total_seconds() >= 0.05),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_spoils_one_answer_and_the_next_is_right(
    kind: str, sandbox: Sandbox, ask: Callable[..., httpx.Response]
) -> None:
    fault, spoiled = FAULTS[kind]
    right = ask().content
    sandbox.faults.add(fault)
    assert spoiled(ask())
    assert ask().content == right


def test_a_reset_breaks_the_connection_in_mid_body(sandbox: Sandbox, ask: Callable[..., httpx.Response]) -> None:
    sandbox.faults.add(Fault("reset"))
    with pytest.raises(httpx.RemoteProtocolError):
        ask()
    assert ask().status_code == 200


def test_pages_can_be_wrong_in_order_and_place(sandbox: Sandbox, listed: List) -> None:
    first = [record["id"] for record in listed(limit=5)]
    sandbox.faults.add(Fault("ignore_offset"))
    assert [record["id"] for record in listed(limit=5, offset=50)] == first
    sandbox.faults.add(Fault("unsorted"))
    assert [record["id"] for record in listed(limit=5)] == first[::-1]
    sandbox.faults.add(Fault("repeat_last", times=2))
    assert listed(limit=5, offset=90_000) == listed(limit=5, offset=95_000) != []
    assert listed(limit=5, offset=90_000) == []


def test_a_fault_begins_after_some_answers_and_may_be_set_over_http(
    sandbox: Sandbox, ask: Callable[..., httpx.Response]
) -> None:
    httpx.post(f"{sandbox.url}/_sandbox/faults", json=[{"kind": "status", "value": 500, "after": 1, "times": 2}])
    assert [ask().status_code for _ in range(4)] == [200, 500, 500, 200]


def test_what_was_asked_is_told(sandbox: Sandbox, ask: Callable[..., httpx.Response]) -> None:
    ask(name="told")
    assert httpx.get(f"{sandbox.url}/_sandbox/requests").json()[-1]["parameters"] == [["name", "told"]]


def test_long_answers_are_compressed_when_asked_for(sandbox: Sandbox) -> None:
    request = httpx.Request(
        "GET", f"{sandbox.url}/api/v1/sessions", headers={"x-api-key": sandbox.key, "accept-encoding": "gzip"}
    )
    with httpx.Client() as client:
        answer = client.send(request, stream=True)
        body = b"".join(answer.iter_raw())
    assert len(json.loads(gzip.decompress(body))) == 100


def test_changed_sessions_are_told_anew() -> None:
    api = build_api(now=NOW)
    data = api.data
    assert isinstance(data, CompanyData)
    session = next(one for one in data.sessions if one.tenant_id == WORKSPACE and one.dataset)
    asked = _asked(0)
    before = data.page(asked, WORKSPACE)[1]
    data.sessions.remove(session)
    assert data.page(asked, WORKSPACE)[1] == before - 1
    assert Counter(one.id for one in data.sessions).most_common(1)[0][1] == 1
