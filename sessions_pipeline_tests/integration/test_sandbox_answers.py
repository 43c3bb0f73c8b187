"""The answers of the sandbox over HTTP: filters, sorting, stats, datasets, judges and refusals."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import mean
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sessions_pipeline.days import EPOCH, microseconds
from sessions_pipeline.sandbox import SessionsQuery
from sessions_pipeline.sandbox.company import DAYS, OTHER_WORKSPACE, PRICES, WORKSPACE, Session
from sessions_pipeline.sandbox.listing import COSTS, STATS, CompanyData
from sessions_pipeline_tests.faulty_server import Sandbox, all_texts, build_api, running_sandbox
from sessions_pipeline_tests.strategies import openapi

NOW = datetime(2026, 3, 20, 15, tzinfo=UTC)
# Hypothesis tests read this company directly, without a server.
DATA = CompanyData(NOW)
SORTABLE = openapi()["components"]["schemas"]["SessionSortableColumns"]["enum"]
Ask = Callable[..., httpx.Response]
List = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(build_api(now=NOW)) as running:
        yield running


@pytest.fixture(scope="module")
def data(sandbox: Sandbox) -> CompanyData:
    assert isinstance(sandbox.api.data, CompanyData)
    return sandbox.api.data


@pytest.fixture(scope="module")
def mine(data: CompanyData) -> list[Session]:
    """The sessions of the workspace that the key belongs to."""
    return [session for session in data.sessions if session.tenant_id == WORKSPACE]


@pytest.fixture(scope="module")
def records(sandbox: Sandbox) -> list[dict[str, Any]]:
    """All records of that workspace with their stats, newest first."""
    return [json.loads(text) for text in all_texts(sandbox.api, include_stats=True)]


@pytest.fixture(scope="module")
def ask(sandbox: Sandbox) -> Iterator[Ask]:
    with httpx.Client(base_url=sandbox.url, headers={"x-api-key": sandbox.key}) as client:

        def get(path: str = "v1/sessions", headers: dict[str, str] | None = None, **parameters: Any) -> httpx.Response:
            return client.get(f"/api/{path}", params=parameters, headers=headers)

        yield get


@pytest.fixture(scope="module")
def listed(ask: Ask) -> List:
    return lambda path="v1/sessions", **parameters: ask(path, **parameters).json()


def test_a_company_has_about_1500_experiments_in_60_days_and_eight_datasets(mine: list[Session]) -> None:
    experiments = [session for session in mine if session.dataset]
    assert 1_350 < len(experiments) < 1_650
    assert min(session.start for session in experiments).date() == NOW.date() - timedelta(days=DAYS - 1)
    assert len({session.dataset for session in experiments}) == 8
    assert {session.name for session in mine if not session.dataset} >= {"evaluators", "support-production"}
    assert len({session.id for session in mine}) == len({session.name for session in mine}) == len(mine)


def test_a_few_records_are_wrong_and_a_few_have_no_start_time(mine: list[Session]) -> None:
    assert 10 <= sum(bool(session.broken) for session in mine) <= 20
    assert len({str(session.broken) for session in mine if session.broken}) >= 3, "in several ways"
    assert 2 <= sum(session.undated for session in mine) <= 6


def test_the_same_seed_and_time_make_the_same_bytes_and_another_seed_others() -> None:
    some = SessionsQuery(include_stats=True, name_contains="support-")
    texts = [CompanyData(NOW, seed).page(some, WORKSPACE) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


def test_a_day_is_the_same_when_seen_a_day_later() -> None:
    days = NOW + timedelta(hours=9), NOW + timedelta(days=1)
    companies = [CompanyData(day).sessions for day in days]
    before, after = ({one.id: one for one in sessions if one.dataset} for sessions in companies)
    first = min(one.start for one in after.values())
    assert len(before) - sum(one.start < first for one in before.values()) > 1_400
    for key, one in [*before.items()][::10]:
        if one.start >= first and one.end and one.end < days[0]:
            assert (one.name, one.runs, one.broken) == (after[key].name, after[key].runs, after[key].broken)
    assert _projects(companies[0], days[0]) == _projects(companies[1], days[0])


def _projects(sessions: list[Session], until: datetime) -> list[Any]:
    """Each project's start, and its runs up to a time, without those that judged experiments."""
    return [
        (one.id, one.start, [run for run in one.runs if not run.experiment and run.start_us <= microseconds(until)])
        for one in sessions
        if not one.dataset
    ]


def test_nothing_has_happened_after_now(mine: list[Session], records: list[dict[str, Any]]) -> None:
    assert max(run.start_us for session in mine for run in session.runs) <= microseconds(NOW)
    times = [record.get(name) for record in records for name in ("start_time", "end_time", "last_run_start_time")]
    assert max(time for time in times if time) <= NOW.replace(tzinfo=None).isoformat()


def test_an_experiment_carries_the_metadata_that_the_sdk_sends_and_people_add(records: list[dict[str, Any]]) -> None:
    sdk = {"git", "revision_id", "__ls_runner", "dataset_version", "dataset_splits", "num_repetitions"}
    git = {"branch", "commit", "author_name", "author_email", "dirty", "tags", "repo_name", "remote_url"}
    for record in records:
        if record["test_run_number"]:
            metadata = record["extra"]["metadata"]
            assert set(metadata) == sdk | {"models", "prompts", "tools"}
            assert set(metadata["git"]) == git
            assert all(isinstance(metadata[name], list) for name in ("models", "prompts", "tools"))
        else:
            assert record["extra"] is None


def test_prices_differ_by_a_factor_of_a_hundred_and_some_costs_are_unknown_or_zero(
    records: list[dict[str, Any]],
) -> None:
    prices = [price for price in PRICES.values() if price]
    assert max(prices)[0] == 100 * min(prices)[0]
    costs = [record["total_cost"] for record in records if record["run_count"]]
    assert 10 < costs.count(None) < 100
    assert 10 < costs.count("0") < 100
    assert sum(record["total_tokens"] > 0 for record in records if record["total_cost"] == "0") == costs.count("0")


def test_some_datasets_are_judged_more_thoroughly_than_others() -> None:
    judged = {
        name: runs for one in DATA.sessions if one.judged for name, runs in one.runs_by_experiment.items() if name
    }
    spent = defaultdict[str, list[int]](lambda: [0, 0])
    for session in DATA.sessions:
        if session.dataset:
            for place, runs in enumerate((session.runs, judged.get(session.name, ()))):
                spent[session.dataset.id][place] += sum(run.prompt_cost + run.completion_cost for run in runs)
    shares = sorted(judges / (own + judges) for own, judges in spent.values())
    assert 0.15 < shares[0] < 0.3
    assert 0.55 < shares[-1] < 0.6
    assert shares[-3] - shares[2] > 0.1


def test_one_branch_gets_more_expensive_over_time(mine: list[Session]) -> None:
    tokens: dict[tuple[str, int], list[float]] = defaultdict(list)
    for session in mine:
        if session.dataset and session.runs:
            month = (NOW - session.start).days // 20
            tokens[session.branch, month].append(mean(run.prompt_tokens for run in session.runs))
    newest, former, oldest = (mean(tokens["long-context", month]) for month in (0, 1, 2))
    assert newest > 1.1 * former > 1.2 * oldest
    assert abs(mean(tokens["main", 0]) / mean(tokens["main", 2]) - 1) < 0.1


def test_without_include_stats_every_stat_is_null(listed: List) -> None:
    assert all(record[name] is None for record in listed() for name in STATS)
    assert any(record["total_cost"] for record in listed(include_stats="true"))


def test_latencies_rates_and_progress_are_those_of_the_runs(mine: list[Session], records: list[dict[str, Any]]) -> None:
    sessions = {one.id: one for one in mine if one.runs and not one.broken}
    for record in [record for record in records if record["id"] in sessions][::20]:
        runs = sessions[record["id"]].runs
        for name in ("latency", "first_token"):
            values = sorted(getattr(run, name) for run in runs)
            expected = [values[len(runs) * part // 100] for part in (50, 99)]
            assert [record[f"{name}_p50"], record[f"{name}_p99"]] == expected
        assert all(run.first_token < run.latency for run in runs)
        assert record["error_rate"] == round(sum(run.is_error for run in runs) / len(runs), 6)
        assert record["streaming_rate"] == round(sum(run.is_streamed for run in runs) / len(runs), 6)
        latest = EPOCH + timedelta(microseconds=max(run.start_us for run in runs))
        assert record["last_run_start_time"] == latest.replace(tzinfo=None).isoformat(timespec="microseconds")
    for record in records:
        if progress := record["experiment_progress"]:
            done = round(record["run_count"] / progress["expected_run_count"], 4)
            assert done == progress["run_progress"] <= 1
            assert done == 1 or record["start_time"][:10] == str(NOW.date())


def test_only_selected_stats_are_computed(listed: List) -> None:
    [record] = listed(include_stats="true", stats_select=["run_count", "total_cost"], limit=1, reference_free="true")
    assert [name for name in STATS if record[name] is not None] == ["run_count", "total_cost"]


def test_costs_are_strings_in_version_1_and_numbers_with_the_same_digits_in_version_2(ask: Ask) -> None:
    asked = {"include_stats": "true", "name_contains": "support"}
    for one, two in zip(
        ask(**asked, limit=100).json(),
        json.loads(ask("v2/sessions", **asked, page_size=100).text, parse_float=str)["items"],
        strict=True,
    ):
        assert one["id"] == two["id"]
        for name in COSTS:
            assert one[name] is None or isinstance(one[name], str)
            assert two[name] is None or str(two[name]) == one[name]


@pytest.mark.parametrize("descending", ["true", "false"])
@pytest.mark.parametrize("column", SORTABLE)
def test_sorting_is_postgresql_s_with_the_unknown_last_ascending_and_first_descending(
    column: str, descending: str, listed: List, data: CompanyData
) -> None:
    wrong = {session.id for session in data.sessions if session.broken}
    asked = {"sort_by": column, "sort_by_desc": descending, "include_stats": "true"}
    asked |= {"name_contains": "support-triage"} if column == "feedback" else {}
    values = [
        _value(record, column)
        for offset in range(0, 1_600, 100)
        for record in listed(**asked, offset=offset)
        if record["id"] not in wrong
    ]
    known = [value for value in values if value is not None]
    assert len(known) > 150
    unknown: list[Any] = [None] * (len(values) - len(known))
    assert unknown or column not in ("start_time", "feedback")
    in_order = sorted(known, reverse=descending == "true")
    assert values == ([*unknown, *in_order] if descending == "true" else [*in_order, *unknown])


def _value(record: dict[str, Any], column: str) -> Any:
    if column == "feedback":
        return (record["feedback_stats"] or {}).get("correctness", {}).get("avg")
    return record.get("run_count" if column == "runs_count" else column)


def test_feedback_is_sorted_by_the_key_and_the_source_that_are_requested(listed: List) -> None:
    asked = {"sort_by": "feedback", "include_stats": "true", "name_contains": "support-triage", "sort_by_desc": "false"}
    found = listed(**asked, sort_by_feedback_key="conciseness")
    scores = [record["feedback_stats"]["conciseness"]["avg"] for record in found]
    assert scores == sorted(scores)
    unknown = [record["id"] for record in listed(**asked, sort_by_feedback_source="session")]
    assert unknown == sorted(unknown), "there is no feedback on sessions"


def _filters(mine: list[Session]) -> dict[str, tuple[Any, Callable[[dict[str, Any]], bool]]]:
    dataset = next(session.dataset for session in mine if session.dataset)
    assert dataset
    version = "2026-02-01T09:00:00.000000"
    return {
        "reference_free": ("true", lambda record: record["reference_dataset_id"] is None),
        "reference_dataset": (dataset.id, lambda record: record["reference_dataset_id"] == dataset.id),
        "name": ("search-production", lambda record: record["name"] == "search-production"),
        "name_contains": ("NIGHTLY", lambda record: "nightly" in record["name"]),
        "dataset_version": (
            version,
            lambda r: bool(r["extra"]) and r["extra"]["metadata"]["dataset_version"] == version,
        ),
        "metadata": (
            json.dumps({"git": {"branch": "fix-42"}}),
            lambda record: bool(record["extra"]) and record["extra"]["metadata"]["git"]["branch"] == "fix-42",
        ),
        "filter": ('eq(name, "search-production")', lambda record: record["name"] == "search-production"),
    }


def test_a_filter_gives_all_that_match_and_nothing_else(
    listed: List, mine: list[Session], records: list[dict[str, Any]]
) -> None:
    broken = {session.id for session in mine if session.broken}
    for name, (value, matches) in _filters(mine).items():
        pages = (listed(offset=offset, **{name: value}) for offset in range(0, 1_600, 100))
        found = {record["id"] for page in pages for record in page}
        assert found - broken == {record["id"] for record in records if matches(record)} - broken, name
        assert 0 < len(found) < len(records)


def test_ids_are_a_filter_and_unknown_ones_find_nothing(listed: List) -> None:
    ids = [record["id"] for record in listed(limit=3)]
    assert {record["id"] for record in listed(id=[one.upper() for one in ids])} == set(ids)
    assert listed(id=[WORKSPACE]) == listed(tag_value_id=WORKSPACE) == []
    assert listed(name="") == [], "an empty name is not the same as none"


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("v1/sessions", "limit", "0"),
        ("v1/sessions", "limit", "101"),
        ("v1/sessions", "limit", "many"),
        ("v1/sessions", "offset", "-1"),
        ("v1/sessions", "sort_by", "cost"),
        ("v1/sessions", "reference_free", "perhaps"),
        ("v1/sessions", "reference_dataset", "support-answers"),
        ("v1/sessions", "metadata", "[]"),
        ("v1/sessions", "filter", "name = nightly"),
        ("v1/sessions", "stats_filter", 'eq(name, "evaluators")'),
        ("v1/sessions", "stats_start_time", "yesterday"),
        ("v1/sessions", "stats_start_time", "1767322800"),
        ("v1/sessions", "stats_start_time", "2026-02-01T00:00:00Z"),
        ("v1/sessions", "sort_by_feedback_source", "hearsay"),
        ("v2/sessions", "page_size", "101"),
        ("v2/sessions", "sort_by", "start_time"),
        ("v2/sessions", "type", "experiment"),
        ("v2/sessions", "cursor", "MA=="),
        ("v1/datasets", "limit", "101"),
        ("v1/datasets", "id", "support-answers"),
    ],
)
def test_a_wrong_parameter_is_422_with_its_name(ask: Ask, path: str, name: str, value: str) -> None:
    answer = ask(path, **{name: value})
    assert answer.status_code == 422
    [detail] = answer.json()["detail"]
    assert detail["loc"][:2] == ["query", name]
    assert {"loc", "msg", "type"} <= set(detail)


def test_a_cursor_is_valid_only_for_the_request_that_returned_it(ask: Ask) -> None:
    first = ask("v2/sessions", page_size=100, type="EXPERIMENT").json()
    second = ask("v2/sessions", page_size=100, type="EXPERIMENT", cursor=first["next_cursor"]).json()
    assert not {one["id"] for one in first["items"]} & {one["id"] for one in second["items"]}
    assert ask("v2/sessions", page_size=50, type="EXPERIMENT", cursor=first["next_cursor"]).status_code == 422


def test_the_last_page_of_version_2_has_no_cursor(ask: Ask, mine: list[Session]) -> None:
    projects = ask("v2/sessions", type=["PROJECT", "AGENT"]).json()
    assert projects["next_cursor"] is None
    assert len(projects["items"]) == sum(session.dataset is None for session in mine)
    assert {one["type"] for one in projects["items"]} == {"PROJECT"}


def test_only_a_key_or_a_bearer_token_is_accepted(sandbox: Sandbox) -> None:
    keys = ({}, {"x-api-key": "wrong"}, {"authorization": f"Bearer {sandbox.key}"}, {"x-api-key": sandbox.key})
    for path in ("v1/sessions", "v2/sessions", "v1/datasets"):
        statuses = [httpx.get(f"{sandbox.url}/api/{path}", headers=headers).status_code for headers in keys]
        assert statuses == [401, 401, 200, 200]


def test_a_workspace_has_its_own_sessions_and_datasets_and_an_unknown_one_is_refused(
    ask: Ask, mine: list[Session]
) -> None:
    for path in ("v1/sessions", "v1/datasets"):
        tenants = {
            workspace: {record["tenant_id"] for record in ask(path, headers={"x-tenant-id": workspace.upper()}).json()}
            for workspace in (WORKSPACE, OTHER_WORKSPACE)
        }
        assert tenants == {WORKSPACE: {WORKSPACE}, OTHER_WORKSPACE: {OTHER_WORKSPACE}}
        assert ask(path, headers={"x-tenant-id": mine[0].id}).status_code == 403


def test_datasets_are_listed_page_by_page_with_their_total(ask: Ask, mine: list[Session]) -> None:
    whole = ask("v1/datasets")
    assert whole.headers["x-pagination-total"] == "8"
    pages = [ask("v1/datasets", offset=offset, limit=3) for offset in (0, 3, 6, 9)]
    assert [len(page.json()) for page in pages] == [3, 3, 2, 0]
    assert {page.headers["x-pagination-total"] for page in pages} == {"8"}
    assert [one for page in pages for one in page.json()] == whole.json()
    counts = {one["id"]: one["session_count"] for one in whole.json()}
    assert sum(counts.values()) == sum(session.dataset is not None for session in mine)


def test_datasets_are_found_by_id_and_name(ask: Ask) -> None:
    whole = ask("v1/datasets").json()
    some = [one["id"] for one in whole[2:5]]
    assert [one["id"] for one in ask("v1/datasets", id=some).json()] == some
    assert ask("v1/datasets", id=WORKSPACE).json() == []
    assert [one["name"] for one in ask("v1/datasets", name="refund-policy").json()] == ["refund-policy"]
    assert len(ask("v1/datasets", name_contains="SUPPORT").json()) == 2


def test_two_datasets_share_a_name_and_one_was_renamed(
    ask: Ask, data: CompanyData, records: list[dict[str, Any]]
) -> None:
    names = [dataset.name for dataset in data.datasets]
    assert sorted(name for name in names if names.count(name) > 1) == ["support-answers"] * 2
    [renamed] = ask("v1/datasets", name="contract-clauses").json()
    assert "renamed" in renamed["description"]
    of_renamed = [record["name"] for record in records if record["reference_dataset_id"] == renamed["id"]]
    assert len(of_renamed) > 100
    assert all(name.startswith("clauses-") for name in of_renamed)


def test_stats_from_a_time_on_are_sums_over_the_runs_from_then_on(mine: list[Session], listed: List) -> None:
    sessions = {one.id: one for one in mine}
    day = NOW.replace(hour=0) - timedelta(days=3)
    ends = [{record["id"]: record for record in listed(**_stats(since))} for since in (day, day + timedelta(days=1))]
    assert len(ends[0]) == 5
    without_offset = listed(**_stats(day.replace(tzinfo=None)))
    assert {record["id"]: record for record in without_offset} == ends[0], "a time without an offset is UTC"
    for name, begin in ends[0].items():
        runs = [
            run
            for run in sessions[name].runs
            if microseconds(day) <= run.start_us < microseconds(day + timedelta(days=1))
        ]
        assert begin["run_count"] - ends[1][name]["run_count"] == len(runs) > 0
        used = Decimal(begin["total_cost"]) - Decimal(ends[1][name]["total_cost"])
        assert used == Decimal(sum(run.prompt_cost + run.completion_cost for run in runs)).scaleb(-9)


def _stats(since: datetime) -> dict[str, str]:
    return {"include_stats": "true", "reference_free": "true", "stats_start_time": since.isoformat()}


def spent_on(ask: Ask, experiment: str | None, path: str = "v1/sessions", workspace: str = WORKSPACE) -> dict[str, Any]:
    """The cost of an experiment's judges, or of all judges, requested as the pipeline does it."""
    asked = {"name": "evaluators", "include_stats": "true", "stats_select": ["run_count", "total_tokens", *COSTS]}
    if experiment is not None:
        quoted = json.dumps(experiment, ensure_ascii=False)
        asked["stats_filter"] = f'and(eq(metadata_key, "experiment"), eq(metadata_value, {quoted}))'
    answer = json.loads(ask(path, {"x-tenant-id": workspace}, **asked).text, parse_float=Decimal)
    [record] = answer["items"] if path.startswith("v2") else answer
    assert (record["name"], record["reference_dataset_id"], record["latency_p50"]) == ("evaluators", None, None)
    return record


@pytest.mark.parametrize("workspace", [OTHER_WORKSPACE, pytest.param(WORKSPACE, marks=pytest.mark.long)])
def test_the_judges_of_all_experiments_and_the_unattributed_rest_add_up_to_the_last_digit(
    workspace: str, ask: Ask, data: CompanyData
) -> None:
    sessions = [session for session in data.sessions if session.tenant_id == workspace]
    whole = spent_on(ask, None, workspace=workspace)
    spent = [spent_on(ask, one.name, workspace=workspace) for one in sessions if one.dataset]
    assert len(spent) > 150
    by_hand = {name: Decimal(whole[name]) - sum(Decimal(one[name]) for one in spent) for name in ("run_count", *COSTS)}
    judges = next(session for session in sessions if session.name == "evaluators")
    unattributed = [run for run in judges.runs if run.experiment is None]
    assert by_hand["run_count"] == len(unattributed) > 100
    total = sum(run.prompt_cost + run.completion_cost for run in unattributed)
    assert by_hand["total_cost"] == Decimal(total).scaleb(-9) > 0


def test_judges_cost_a_fifth_to_two_thirds_of_an_experiment(ask: Ask, mine: list[Session]) -> None:
    priced = [one for one in mine if one.dataset and PRICES[one.model] and one.runs and one.end and one.end < NOW]
    shares = []
    for session in priced[::40]:
        own = Decimal(sum(run.prompt_cost + run.completion_cost for run in session.runs)).scaleb(-9)
        judged = Decimal(spent_on(ask, session.name)["total_cost"])
        shares.append(judged / (judged + own))
    assert min(shares) > Decimal("0.2")
    assert max(shares) < Decimal("0.65")
    assert max(shares) - min(shares) > Decimal("0.3")


def test_judges_of_experiments_with_quotes_and_backslashes_in_their_names_are_found_in_both_versions(
    ask: Ask, mine: list[Session]
) -> None:
    for odd in ('"v2"', "\\strict"):
        name = next(session.name for session in mine if odd in session.name)
        one, two = (spent_on(ask, name, path) for path in ("v1/sessions", "v2/sessions"))
        assert one["run_count"] == two["run_count"] > 0
        assert Decimal(one["total_cost"]) == Decimal(two["total_cost"])


@given(name=st.text(st.characters(exclude_categories=["Cs"])))
def test_an_unknown_name_has_zero_runs_whatever_its_characters(name: str) -> None:
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    expression = f'and(eq(metadata_key, "experiment"), eq(metadata_value, {quoted}))'
    asked = SessionsQuery.read([("name", "evaluators"), ("include_stats", "1"), ("stats_filter", expression)], NOW)
    assert asked.stats_filter == name
    [text] = DATA.page(asked, WORKSPACE)[0]
    assert (json.loads(text)["run_count"], json.loads(text)["total_cost"]) == (0, "0")


@given(text=st.text(st.sampled_from("and(eqmetadata_key, \"experiment')\\")))
def test_an_invalid_filter_is_refused_and_never_ignored(text: str) -> None:
    with pytest.raises(ValidationError):
        SessionsQuery.read([("stats_filter", text)], NOW)


def test_changed_sessions_are_served_with_their_new_values() -> None:
    data = CompanyData(NOW)
    asked = SessionsQuery(include_stats=True, name_contains="refund-policy")
    [newest, *_], total = data.page(asked, WORKSPACE)
    session = next(one for one in data.sessions if one.id == json.loads(newest)["id"])
    session.name = "refund-policy-renamed"
    data.records.pop(session.id, None)
    assert json.loads(data.page(asked, WORKSPACE)[0][0])["name"] == session.name
    data.sessions.remove(session)
    assert data.page(asked, WORKSPACE)[1] == total - 1
