"""`doctor --probe` tests our assumptions about the API, and shows no data, on servers that satisfy and break them."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from sessions_pipeline.cli.doctor import doctor
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.probe import ASSUMPTIONS, MOST_REQUESTS, probe
from sessions_pipeline.sandbox import SessionsQuery
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.sandbox.listing import CompanyData
from sessions_pipeline_tests.faulty_server import Fault, FaultyApi, Sandbox, Undated, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import KEY, NOW, settings_for
from sessions_pipeline_tests.integration.scripted_server import Handler, answer, scripted

Results = dict[str, tuple[bool | None, str]]
PROJECT = "evaluators"
END = {"v1 an empty page lies behind the end", "v1 X-Pagination-Total counts the list"}


def probed(url: str, project: str = PROJECT) -> Results:
    """The results of the probe for an API, by version and assumption."""
    with SessionsClient(settings_for(url, Path("nowhere")), clock=lambda: NOW) as client:
        found = list(probe(client, workspace=OTHER_WORKSPACE, project=project))
        assert client.requests <= MOST_REQUESTS
    by_assumption: Results = {f"{version} {assumption}": (holds, seen) for version, assumption, holds, seen in found}
    assert len(by_assumption) == len(found) == sum(len(assumptions) for assumptions in ASSUMPTIONS.values())
    return by_assumption


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(now=NOW, send_total=True) as running:
        yield running


def test_every_assumption_holds_on_the_sandbox_within_thirty_requests(sandbox: Sandbox) -> None:
    by_assumption = probed(sandbox.url)
    ties = by_assumption.pop("v1 equal start times keep their order")
    assert ties == (None, "no case to test")
    assert {name: seen for name, (holds, seen) in by_assumption.items() if holds is not True} == {}
    asked = {one["path"] for one in sandbox.requests}
    assert asked == {"/api/v1/sessions", "/api/v1/datasets", "/api/v2/sessions"}


def test_the_table_fits_80_columns_and_holds_no_data(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"KEY": sandbox.key, "ENDPOINT": sandbox.url, "WORKSPACE_ID": OTHER_WORKSPACE}.items():
        monkeypatch.setenv(f"LANGSMITH_{'API_' if name == 'KEY' else ''}{name}", value)
    sandbox.requests.clear()
    result = CliRunner().invoke(doctor, ["--probe"], catch_exceptions=False)
    *table, empty, last = result.output.splitlines()
    assert (result.exit_code, empty) == (0, "")
    assert last.startswith(f"{len(sandbox.requests)} requests")
    assert len({len(line) for line in table}) == 1
    assert len(table[0]) <= 80
    assert all(re.fullmatch(r"\| .{38} \| .{13} \| .{17} \|", line) for line in table)
    assert len(table) == 2 + sum(len(assumptions) for assumptions in ASSUMPTIONS.values())
    data = sandbox.api.data
    assert isinstance(data, CompanyData)
    private = {value for one in data.sessions for value in (one.id, one.tenant_id, one.name)}
    private |= {one.name for one in data.datasets} | {sandbox.key, "127.0.0.1", PROJECT}
    assert not [value for value in private if value in result.output]
    assert not re.search(r"\d\.\d|[0-9a-f]{8}", result.output), "no cost, and no part of an id"


@pytest.mark.parametrize(("undated", "seen"), [("first", "first"), ("last", "last"), ("postgres", "first")])
def test_the_probe_says_where_sessions_without_a_start_time_are_listed(undated: Undated, seen: str) -> None:
    with running_sandbox(now=NOW, undated=undated) as running:
        data = running.api.data
        assert isinstance(data, CompanyData)
        # These fit on one page.
        mine = [one for one in data.sessions if one.tenant_id == OTHER_WORKSPACE][-40:]
        mine[7].undated = mine[19].undated = True
        data.sessions = mine
        by_assumption = probed(running.url)
    assert by_assumption["v1 without a start time: at one end"] == (True, seen)


def test_in_a_workspace_without_sessions_hardly_anything_is_testable() -> None:
    with running_sandbox(texts=[], now=NOW) as running:
        by_assumption = probed(running.url)
    known = {name for name, (holds, _) in by_assumption.items() if holds is not None}
    assert known == {"v1 an empty page lies behind the end", "v1 datasets can be listed"}


class Ignoring(CompanyData):
    """An API that ignores `stats_filter`."""

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        return super().page(asked.model_copy(update={"stats_filter": None}), workspace)


class Sparing(CompanyData):
    """An API that returns the times of runs only together with all stats."""

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        texts, total = super().page(asked, workspace)
        if asked.include_stats and asked.stats_select is None:
            return texts, total
        return [json.dumps({**json.loads(text), "last_run_start_time": None}) for text in texts], total


@pytest.mark.parametrize(
    ("data", "broken"),
    [
        (Ignoring, {"stats_filter leaves out other runs": "ignored"}),
        (Sparing, {"run times come with stats_select": "not sent", "run times come without stats": "not sent"}),
    ],
)
def test_an_assumption_that_does_not_hold_is_reported_in_both_versions(
    data: type[CompanyData], broken: dict[str, str]
) -> None:
    with running_sandbox(FaultyApi(data(NOW), NOW)) as running:
        by_assumption = probed(running.url)
    expected = {f"{version} {name}": (False, seen) for version in ("v1", "v2") for name, seen in broken.items()}
    assert {name: found for name, found in by_assumption.items() if found[0] is False} == expected


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        (Fault("unsorted", times=None), {"v1 sessions come newest first", "v2 sessions come newest first"}),
        (Fault("ignore_offset", times=None), {*END, "v2 a cursor leads on"}),
        (Fault("repeat_last", times=None), END),
        (Fault("no_datasets", 403, times=None), {"v1 datasets can be listed"}),
    ],
)
def test_a_server_fault_that_breaks_an_assumption_is_reported(fault: Fault, broken: set[str]) -> None:
    with running_sandbox(now=NOW, send_total=True) as running:
        running.faults.add(fault)
        by_assumption = probed(running.url)
    assert {name for name, (holds, _) in by_assumption.items() if holds is False} >= broken


def test_a_version_that_is_gone_is_not_testable_and_the_other_is() -> None:
    with running_sandbox(now=NOW) as running:
        running.faults.add(Fault("gone", 410, times=None))
        by_assumption = probed(running.url)
    assert {found for name, found in by_assumption.items() if name.startswith("v1")} == {(None, "refused")}
    assert by_assumption["v2 a cursor leads on"] == (True, "another page")


def record(number: int, **values: Any) -> dict[str, Any]:
    return {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "tenant_id": WORKSPACE,
        "name": f"s {number}",
        "start_time": f"2026-03-{20 - number // 2:02d}T10:00:00",
        "run_count": 3,
        **values,
    }


def serving(answers: Callable[[dict[str, str]], Any]) -> Callable[[Handler], None]:
    """A step that answers depending on the request's parameters. For version 2 it wraps a list of records."""

    def step(handler: Handler) -> None:
        found = answers({name: values[-1] for name, values in parse_qs(urlsplit(handler.path).query).items()})
        is_second = "/v2/" in handler.path
        handler.reply(body=json.dumps({"items": found, "next_cursor": None} if is_second else found).encode())

    return step


def of_scripted(answers: Callable[[dict[str, str]], Any]) -> Results:
    with scripted(serving(answers)) as server:
        return probed(server.url)


def test_the_probe_says_whether_ties_keep_their_order() -> None:
    name, newest = "v1 equal start times keep their order", [record(0), record(1), record(2)]
    assert of_scripted(lambda _: newest)[name] == (True, "2 sessions")
    answers = iter([newest])
    assert of_scripted(lambda _: next(answers, [record(1), record(0), record(2)]))[name] == (False, "2 sessions")


def test_a_session_without_a_start_time_among_others_is_reported() -> None:
    rows = [record(0), record(1, start_time=None), record(4)]
    by_assumption = of_scripted(lambda _: rows)
    assert by_assumption["v1 without a start time: at one end"] == (False, "in between")


@pytest.mark.parametrize(
    ("runs", "expected"), [(None, (False, "no count")), (0, (True, "0 runs")), (3, (False, "ignored"))]
)
def test_the_probe_says_whether_the_filter_works(runs: int | None, expected: tuple[bool, str]) -> None:
    by_assumption = of_scripted(lambda asked: [record(0, run_count=runs if "stats_filter" in asked else 3)])
    assert by_assumption["v1 stats_filter leaves out other runs"] == expected


def test_occasional_failures_of_the_api_are_not_broken_assumptions() -> None:
    rows = json.dumps([record(0)]).encode()
    with scripted(answer(body=rows), answer(302, Location="https://elsewhere.example/secret")) as server:
        by_assumption = probed(server.url)
    assert by_assumption["v1 sessions come newest first"][0] is None
    assert {holds for name, (holds, _) in by_assumption.items() if name.startswith("v2")} == {None}


def test_a_key_that_is_not_accepted_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with scripted(answer(401, b"{}")) as server:
        monkeypatch.setenv("LANGSMITH_API_KEY", KEY)
        monkeypatch.setenv("LANGSMITH_ENDPOINT", server.url)
        with pytest.raises(Exception, match="does not accept the key") as caught:
            CliRunner().invoke(doctor, ["--probe"], catch_exceptions=False)
    assert KEY not in str(caught.value)


def test_no_request_is_sent_after_thirty(sandbox: Sandbox) -> None:
    settings = settings_for(sandbox.url, Path("nowhere"))
    with SessionsClient(settings, clock=lambda: NOW) as client:
        client.requests = MOST_REQUESTS - 1  # as if many requests had been retried
        found = list(probe(client, workspace=OTHER_WORKSPACE, project=PROJECT))
    assert (found[0][2], found[1][2:]) == (True, (None, "not asked"))
    assert {holds for version, _, holds, _ in found if version == "v2"} == {None}


def test_without_a_judge_project_the_search_for_judges_is_not_testable(sandbox: Sandbox) -> None:
    by_assumption = probed(sandbox.url, "no judges here")
    assert {by_assumption[f"{version} judges are found by experiment"] for version in ("v1", "v2")} == {
        (None, "no such project")
    }


def test_judges_that_name_no_experiment_are_not_a_broken_assumption() -> None:
    with running_sandbox(now=NOW) as running:
        for session in running.api.data.sessions:  # type: ignore[attr-defined]
            session.judged = ()
        by_assumption = probed(running.url)
    assert by_assumption["v1 judges are found by experiment"] == (None, "no case to test")
