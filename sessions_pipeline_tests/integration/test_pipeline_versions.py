"""Version 2 of the API gives the same tables over real HTTP, and a lake can change from one version to the other."""

import json
from collections.abc import Callable, Container, Iterator
from datetime import date, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
import stamina

from sessions_pipeline.activity import Cursor, list_activity
from sessions_pipeline.errors import ApiError, BadBodyError, CursorError, NotFoundError, PagingError
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.lists import active_since
from sessions_pipeline.measurements import measure_usage
from sessions_pipeline.orchestration.automation import LOOK_SECONDS
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.tables import DAILY_COST_BY_PROJECT, RAW_SESSIONS, SESSIONS
from sessions_pipeline.tables.readings import load_readings
from sessions_pipeline.tables.table import READINGS
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    DAYS,
    FIRST,
    KEY,
    NOW,
    TODAY,
    contents,
    failing_in_one_line,
    lake_at,
    read,
    record,
    run_days,
    settings_for,
    some_records,
)
from sessions_pipeline_tests.integration.scripted_server import answer, scripted

V1, V2, AUTO = ({"SESSIONS_PIPELINE_API_VERSION": version} for version in ("v1", "v2", "auto"))
BOTH = {"LANGSMITH_WORKSPACE_ID": f"{WORKSPACE},{OTHER_WORKSPACE}"}
SUNSET = "Sat, 31 Oct 2026 00:00:00 GMT"


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=8):
        yield


def paths(sandbox: Sandbox) -> set[str]:
    return {str(request["path"]) for request in sandbox.requests}


def metadata_of(root: Path, key: str) -> list[dict[str, str]]:
    """The metadata entry `key` of each day's file of `sessions`; {} if the file has no such entry."""
    lake = lake_at(root)
    return [{name: text for name, text in lake.metadata(SESSIONS, day).items() if name == key} for day in DAYS]


class SourceOutput(NamedTuple):
    """The payloads of a source by workspace and day, and the warnings of its client."""

    payloads: dict[tuple[str | None, date | None], list[str]]
    warnings: list[str]


def read_sources(sandbox: Sandbox, first: date = FIRST, **values: Any) -> SourceOutput:
    """Read the days up to today with the sources. All tables are pure functions of the resulting payloads."""
    output = SourceOutput({}, [])
    with Pipeline(settings_for(sandbox.url, Path(), **values)).sources() as (client, sources):
        for source in sources:
            for day in source.days(first, TODAY):
                output.payloads[source.workspace, day.day] = sorted(day.rows.table("payload")["payload"].to_pylist())
        output.warnings.extend(client.warnings)
    return output


@pytest.mark.parametrize("undated", ["postgres", "last"])
def test_both_versions_give_the_same_company_to_the_last_character(undated: Any) -> None:
    first = TODAY - timedelta(days=60)
    with running_sandbox(now=NOW, undated=undated, is_drawn=True) as sandbox:
        one, two = (read_sources(sandbox, first, **version, **BOTH).payloads for version in (V1, V2))
    assert paths(sandbox) == {"/api/v1/sessions", "/api/v2/sessions"}
    assert one == two
    assert sum(map(len, two.values())) > 500
    assert two[WORKSPACE, None]


def test_a_lake_begun_on_version_1_goes_on_with_version_2_without_a_new_row(tmp_path: Path) -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox:
        read(sandbox, tmp_path, **V1, **BOTH)
        before, rows = contents(tmp_path), lake_at(tmp_path).read(RAW_SESSIONS, FIRST).num_rows
        read(sandbox, tmp_path / "anew", **V2, **BOTH)
        read(sandbox, tmp_path, **V2, **BOTH)
    assert contents(tmp_path) == contents(tmp_path / "anew") == before
    assert {table for (table, _), of_day in before.items() if of_day} >= {
        "session_feedback",
        "experiment_summary",
        "daily_cost_by_reference_dataset",
    }
    assert lake_at(tmp_path).read(RAW_SESSIONS, FIRST).num_rows == rows
    assert metadata_of(tmp_path, "shrunk") == [{"shrunk": "[]"}] * 3
    readings = load_readings(lake_at(tmp_path).metadata(RAW_SESSIONS, FIRST)[READINGS])
    assert [(reading.added > 0, reading.gone) for reading in readings] == [(True, ())] * 2


def test_only_a_list_read_to_its_end_shows_that_a_session_without_a_start_time_is_missing(tmp_path: Path) -> None:
    def missing_since(texts: list[str], first: date) -> list[Any]:
        with running_sandbox(texts=texts, now=NOW, undated="last") as sandbox:
            read(sandbox, tmp_path, first, **V2)
        return lake_at(tmp_path).read(SESSIONS, UNDATED).column("missing_since").to_pylist()

    dated = some_records()
    assert missing_since([*dated, record(1000, None)], FIRST) == [None]
    assert missing_since([*dated, record(1000, None)], TODAY) == [None]
    assert missing_since(dated, TODAY) == [None]
    assert None not in missing_since(dated, FIRST)


def test_costs_keep_digits_that_no_float_has(tmp_path: Path) -> None:
    cost = "12345678901234567890.123456789012345678"
    with running_sandbox(texts=some_records(1, total_cost=cost, prompt_cost="1.50e-3"), now=NOW) as sandbox:
        read(sandbox, tmp_path, **V2)
    [row] = lake_at(tmp_path).read(SESSIONS, TODAY).to_pylist()
    assert (str(row["total_cost"]), str(row["prompt_cost"])) == (cost, "0.001500000000000000")


def test_auto_reads_version_1_while_it_is_there() -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        assert read_sources(sandbox, **AUTO).warnings == []
    assert paths(sandbox) == {"/api/v1/sessions"}


@pytest.mark.parametrize("status", [404, 410])
def test_auto_reads_version_2_of_all_workspaces_once_version_1_is_gone(status: int) -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox:
        before = read_sources(sandbox, **V1, **BOTH)
        sandbox.faults.add(Fault("gone", status, times=None))
        sandbox.requests.clear()
        after = read_sources(sandbox, **AUTO, **BOTH)
    assert after.payloads == before.payloads
    assert after.warnings == ["Version 1 of the API is gone: version 2 is read"]
    assert [request["path"] for request in sandbox.requests].count("/api/v1/sessions") == 1
    assert {request["workspace"] for request in sandbox.requests} == {WORKSPACE, OTHER_WORKSPACE}


def test_auto_reads_version_2_once_the_announced_end_has_passed() -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        sandbox.faults.add(Fault("deprecated", SUNSET, times=None))
        said = read_sources(sandbox, **AUTO).warnings
    assert said == ["Version 1 of the API was to end on 2026-10-31: version 2 is read"]
    assert [request["path"] for request in sandbox.requests].count("/api/v1/sessions") == 1


def test_auto_stays_with_version_1_after_its_announced_end_where_there_is_no_other(tmp_path: Path) -> None:
    old = {"Deprecation": "true", "Sunset": SUNSET}

    def only_first(handler: Any) -> None:
        if not handler.path.startswith("/api/v1/"):
            handler.reply(404, b'{"detail": "Not Found"}')
            return
        offset = int(handler.path.split("offset=")[1].split("&")[0])
        handler.reply(200, f"[{','.join(some_records(5)[offset:])}]".encode(), old)

    with scripted(only_first) as server:
        read(server, tmp_path, **AUTO)
    assert lake_at(tmp_path).read(SESSIONS, TODAY).num_rows == 5


def test_a_version_that_was_used_as_a_fallback_is_in_the_metadata_and_the_log(tmp_path: Path) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        result = run_days(settings_for(sandbox.url, tmp_path, **V2), FIRST, TODAY)
    said = {
        event.step_materialization_data.materialization.metadata["api_warnings"].value
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("raw_sessions")
    }
    assert said == {"Version 2 of the API is read, as SESSIONS_PIPELINE_API_VERSION says"}


@pytest.mark.parametrize(
    "step",
    [answer(404, b'{"detail": "Not Found"}'), answer(404, b"<html>"), answer(410, b'{"detail": "Gone"}')],
    ids=["JSON 404", "HTML 404", "JSON 410"],
)
@pytest.mark.parametrize("version", [V1, V2, AUTO], ids=lambda version: version["SESSIONS_PIPELINE_API_VERSION"])
def test_a_wrong_endpoint_is_reported_as_such_whatever_the_version(
    step: Callable[[Any], None], version: dict[str, str], tmp_path: Path
) -> None:
    with scripted(step) as server, failing_in_one_line(NotFoundError, "does not exist .*check LANGSMITH_ENDPOINT"):
        read(server, tmp_path, LANGSMITH_API_KEY=KEY, **version)
    assert len(server.paths) <= 2


@pytest.mark.parametrize("suffix", ["/api", "/api/v1", "/api/v2/"])
def test_the_version_in_the_endpoints_address_does_not_matter(suffix: str) -> None:
    with running_sandbox(texts=some_records(3), now=NOW) as sandbox:
        settings = settings_for(f"{sandbox.url}{suffix}", Path(), **V2)
        with SessionsClient(settings) as client:
            client.fetch(SessionsQuery())
    assert paths(sandbox) == {"/api/v2/sessions"}


ITEM = some_records(1)[0]
BAD_BODIES = {
    "no items": b'{"next_cursor": null}',
    "items no array": b'{"items": {}, "next_cursor": null}',
    "an array": f"[{ITEM}]".encode(),
    "cut": f'{{"items": [{ITEM}], "next_'.encode(),
    "no JSON": b"<html>",
    "empty": b"",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_that_is_not_a_page_of_version_2_is_one_line_without_the_key(body: bytes, tmp_path: Path) -> None:
    with (
        scripted(answer(200, body)) as server,
        pytest.raises(BadBodyError, match="other than a complete JSON page") as caught,
    ):
        read(server, tmp_path, LANGSMITH_API_KEY=KEY, **V2)
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(server.paths) == 3


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("same_cursor", times=None), "brought nothing new"),
        (Fault("ignore_offset", times=None), "read already"),
        (Fault("unsorted", times=None), "did not sort"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_cursor_that_leads_nowhere_is_one_line_and_replaces_nothing(fault: Fault, says: str, tmp_path: Path) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        read(sandbox, tmp_path, **V2)
        before = contents(tmp_path)
        sandbox.faults.add(fault)
        with failing_in_one_line(PagingError, says):
            read(sandbox, tmp_path, **V2)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", 429, times=2, after=5, retry_after="0"),
        Fault("status", 503, times=2, after=5),
        Fault("truncated", times=2, after=5),
        Fault("reset", times=2, after=5),
        Fault("html", 403, times=2, after=5),
        Fault("cap", 17, times=None),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_temporary_fault_does_not_change_what_version_2_gives(fault: Fault) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        usual = read_sources(sandbox, **V1).payloads
        sandbox.faults.add(fault)
        assert read_sources(sandbox, **V2, SESSIONS_PIPELINE_PAGE_SIZE=20).payloads == usual


def expire_cursors(sandbox: Sandbox, status: int, which: Container[int]) -> None:
    """Refuse the requests with a cursor whose number is in `which`; the first is 1."""
    cursors = count(1)

    def expire(number: int) -> None:
        if "cursor" in dict(sandbox.requests[number]["parameters"]) and next(cursors) in which:
            sandbox.faults.add(Fault("status", status))

    sandbox.api.before_answer = expire


@pytest.mark.parametrize("status", [400, 410])
def test_an_expired_cursor_restarts_the_list_and_changes_no_day(status: int) -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        usual = read_sources(sandbox, **V2, SESSIONS_PIPELINE_PAGE_SIZE=20).payloads
        expire_cursors(sandbox, status, (5, 25))
        again = read_sources(sandbox, **V2, SESSIONS_PIPELINE_PAGE_SIZE=20)
    assert again.payloads == usual
    assert again.warnings[1:] == ["A cursor of the API had expired: its list was read again from the beginning"]


def test_cursors_that_always_expire_are_an_error_of_one_line() -> None:
    with running_sandbox(texts=some_records(), now=NOW) as sandbox:
        expire_cursors(sandbox, 410, range(1, 1000))
        with failing_in_one_line(CursorError, "its own cursor .* run it again"):
            read_sources(sandbox, **V2, SESSIONS_PIPELINE_PAGE_SIZE=20)
    assert len(sandbox.requests) < 12


def test_a_listing_of_activity_whose_cursor_has_expired_starts_again() -> None:
    texts = some_records(30, last_run_start_time=NOW.isoformat())
    with (
        running_sandbox(texts=texts, now=NOW) as sandbox,
        SessionsClient(settings_for(sandbox.url, Path(), **V2)) as client,
    ):
        listed = partial(active_since, client, SessionsQuery(limit=10), workspace=None, since=NOW)
        _, place = next(listed())
        assert place.cursor
        expire_cursors(sandbox, 410, (1,))
        assert sum(len(found) for found, _ in listed(place=place)) == 30


def test_sessions_deleted_while_version_2_is_paged_lose_no_other() -> None:
    with running_sandbox(now=NOW, broken=False, is_drawn=True) as sandbox:
        data: Any = sandbox.api.data
        data.sessions = [session for session in data.sessions if session.tenant_id == WORKSPACE]

        def delete(number: int) -> None:
            if number % 3 == 1:
                data.sessions = sorted(data.sessions, key=lambda session: session.start)[:-1]

        sandbox.api.before_answer = delete
        given = read_sources(sandbox, **V2, SESSIONS_PIPELINE_PAGE_SIZE=20).payloads
        asked = [name for request in sandbox.requests for name, _ in request["parameters"]]
    found = {json.loads(payload)["id"] for payloads in given.values() for payload in payloads}
    assert {session.id for session in data.sessions if session.start.date() >= FIRST} <= found
    assert "id" in asked, "what one walk lost is read by its id"


def test_private_fields_are_removed_from_version_2_as_well() -> None:
    with running_sandbox(now=NOW, is_drawn=True) as sandbox:
        given = read_sources(sandbox, **V2, SESSIONS_PIPELINE_REDACT="extra.metadata.git.author_email").payloads
    payloads = [payload for of_day in given.values() for payload in of_day]
    assert len(payloads) > 80
    assert not any("author_email" in payload for payload in payloads)


def test_activity_and_usage_are_the_same_by_both_versions(tmp_path: Path) -> None:
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as sandbox:
        yesterday = TODAY - timedelta(days=1)
        found = []
        for version in (V1, V2):
            root = tmp_path / version["SESSIONS_PIPELINE_API_VERSION"]
            settings = settings_for(sandbox.url, root, **version, SESSIONS_PIPELINE_START_DATE=yesterday)
            pipeline = Pipeline(settings, clock=lambda: NOW)
            assert measure_usage(pipeline, [yesterday]) == [yesterday]
            used = lake_at(root).read(DAILY_COST_BY_PROJECT, yesterday).drop_columns("read_at").to_pylist()
            two_days_ago = Cursor(NOW - timedelta(days=2), NOW)
            look = list_activity(pipeline, two_days_ago, LOOK_SECONDS)
            assert look.stopped_at is None
            found.append((used, look.listed))
    assert found[0] == found[1]
    assert len(found[0][0]) > 20
    assert len(found[0][1]) > 40


def test_a_query_that_version_2_does_not_support_is_one_line() -> None:
    with running_sandbox(texts=some_records(3), now=NOW) as sandbox:
        settings = settings_for(sandbox.url, Path(), **V2)
        for query, says in (
            (SessionsQuery(offset=5), "no offset"),
            (SessionsQuery(sort_by="runs_count"), "runs_count"),
        ):
            with SessionsClient(settings) as client, pytest.raises(Exception, match=says) as caught:
                client.fetch(query)
            assert "\n" not in str(caught.value)
    assert sandbox.requests == []


def test_the_servers_reason_for_refusing_a_cursor_is_shown(tmp_path: Path) -> None:
    with (
        running_sandbox(texts=some_records(), now=NOW) as sandbox,
        SessionsClient(settings_for(sandbox.url, tmp_path, **V2)) as client,
    ):
        first = client.fetch(SessionsQuery(limit=10))
        assert client.fetch(SessionsQuery(limit=10), cursor=first.next_cursor).records
        with failing_in_one_line(ApiError, "other parameters"):
            client.fetch(SessionsQuery(limit=11), cursor=first.next_cursor)
