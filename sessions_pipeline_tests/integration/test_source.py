"""The source over real HTTP: times of readings, redaction, activity, usage and prefetching."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import stamina

from sessions_pipeline.errors import DeadlineExceededError, RefusedError
from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.lists import NEWEST, Activity, Place, active_since, read_usage
from sessions_pipeline.langsmith.page import newest
from sessions_pipeline.langsmith.records import RAW_SCHEMA, Record, read_page, records_table
from sessions_pipeline.langsmith.source import DayRecords, Source, read_ahead
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import RAW_SESSIONS
from sessions_pipeline.tables.raw_sessions import merge
from sessions_pipeline.tables.readings import RawDay, Reading
from sessions_pipeline.tables.rows import Rows
from sessions_pipeline_tests.integration.scripted_server import Handler, answer, scripted

NOW = datetime(2026, 3, 20, 15, tzinfo=UTC)
TODAY = NOW.date()
Values = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_backoff() -> Iterator[None]:
    with stamina.set_testing(testing=True, attempts=8):
        yield


def session(number: int, start: datetime = NOW, **values: Any) -> Values:
    return {
        "id": f"abcdefab-0000-4000-8000-{number:012d}",
        "tenant_id": "5f0c2c53-22bb-4000-8000-00000000000b",
        "name": f"session {number}",
        "start_time": (start - timedelta(minutes=number)).isoformat(),
        **values,
    }


def listing(sessions: list[Values], **headers: str) -> Callable[[Handler], None]:
    """A step that answers with pages of the list, like version 1."""

    def step(handler: Handler) -> None:
        asked = dict(parse_qsl(urlsplit(handler.path).query))
        offset = int(asked["offset"])
        page = sessions[offset : offset + int(asked["limit"])]
        handler.send_response_only(200)
        body = json.dumps(page).encode()
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return step


@contextmanager
def client_for(url: str, **values: Any) -> Iterator[SessionsClient]:
    settings = Settings(**{"_env_file": None, "LANGSMITH_ENDPOINT": url, "LANGSMITH_API_KEY": "key", **values})
    with SessionsClient(settings, clock=lambda: NOW) as client:
        yield client


def source_for(client: SessionsClient, executor: Executor, page_size: int = 100) -> Source:
    return Source(client, SessionsQuery(limit=page_size), executor, workspace=None, in_flight=4)


def days_from(client: SessionsClient, first: date = TODAY) -> list[RawDay]:
    with ThreadPoolExecutor(4) as executor:
        return list(source_for(client, executor).days(first, TODAY))


@pytest.mark.parametrize(
    ("server_time", "expected", "warns"),
    [
        (None, NOW, False),
        ("Fri, 20 Mar 2026 15:00:50 GMT", NOW, False),
        ("Fri, 20 Mar 2026 14:59:10 GMT", NOW, False),
        ("Fri, 20 Mar 2026 15:02:00 GMT", NOW + timedelta(minutes=2), True),
        ("Fri, 20 Mar 2026 14:00:00 GMT", NOW - timedelta(hours=1), True),
    ],
)
def test_fetched_at_is_the_start_of_the_reading_by_the_servers_clock_if_the_two_differ(
    server_time: str | None, expected: datetime, warns: bool
) -> None:
    headers = {"Date": server_time} if server_time else {}
    with scripted(listing([session(1)], **headers)) as server, client_for(server.url) as client:
        days = days_from(client)
        assert [day.readings[0].fetched_at for day in days] == [expected] * 2
        assert [warning for warning in client.warnings if "clock" in warning] == client.warnings
        assert bool(client.warnings) == warns


def test_other_seconds_are_no_other_warning_and_answers_without_a_time_change_nothing() -> None:
    answers = [listing([], **headers) for headers in ({"Date": "Fri, 20 Mar 2026 14:00:01 GMT"}, dict[str, str]())]
    with (
        scripted(listing([], Date="Fri, 20 Mar 2026 14:00:00 GMT"), *answers) as server,
        client_for(server.url) as client,
    ):
        times = []
        for _ in range(3):
            client.fetch(SessionsQuery(offset=0))
            times.append(client.now())
    hour_ago = NOW - timedelta(hours=1)
    assert times == [hour_ago, hour_ago + timedelta(seconds=1), hour_ago + timedelta(seconds=1)]
    assert client.warnings == ["The clock here is +60 min off. The API's is used; set it right"]


def test_one_id_in_capitals_and_small_letters_is_one_session() -> None:
    small = session(1, run_count=5)
    large = {**small, "id": small["id"].upper(), "run_count": 6}
    with scripted(listing([small, large])) as server, client_for(server.url) as client:
        [today, _] = days_from(client)
    assert (today.rows.num_rows, today.readings[0].received) == (1, 2)
    assert '"run_count": 6' in today.rows.table("payload")["payload"][0].as_py()


def test_of_a_session_received_again_long_after_it_was_packed_the_later_record_counts() -> None:
    records, large = DayRecords(), "x" * 100_000
    for number in [*range(200), 3]:
        text = json.dumps(session(number, description=large, run_count=records.received))
        records.add(read_page(f"[{text}]".encode()))
    day = RawDay(TODAY, records.rows(), [Reading(0, NOW, received=records.received)])
    merged = merge(RawDay(TODAY, Rows(RAW_SESSIONS.schema), []), [day])
    runs = {json.loads(payload)["run_count"] for (payload,) in merged.rows.tuples("payload")}
    assert runs == {*range(201)} - {3}
    assert (merged.readings[0].received, merged.readings[0].repeated) == (201, 1)


@pytest.mark.parametrize("extra", ["1", "9" * 5000], ids=["plain", "a number of 5000 digits"])
@pytest.mark.parametrize("is_newest_first", [True, False])
def test_the_newest_of_two_readings_of_one_session_is_kept_in_whatever_order_they_come(
    is_newest_first: bool, extra: str
) -> None:
    def reading(hour: int) -> Record:
        at = (NOW + timedelta(hours=hour)).isoformat()
        text = json.dumps(session(1, last_run_start_time=at, extra={"n": 0})).replace('"n": 0', f'"n": {extra}')
        (found,) = read_page(f"[{text}]".encode())
        return found

    first, second = (reading(1), reading(0)) if is_newest_first else (reading(0), reading(1))
    assert newest(first, second) == reading(1)


def test_no_reader_gets_redacted_properties() -> None:
    one = session(1, last_run_start_time=NOW.isoformat(), run_count=0)
    with (
        scripted(listing([one])) as server,
        client_for(server.url, SESSIONS_PIPELINE_REDACT="name") as client,
    ):
        seen = [payload for day in days_from(client) for (payload,) in day.rows.tuples("payload")]
        for usage in read_usage(client, SessionsQuery(), workspace=None, day=TODAY):
            seen += [str(row) for reading in usage for row in reading.to_pylist()]
        seen += [record.payload for record in client.fetch(SessionsQuery()).records]
    assert len(seen) == 5
    assert not any("session 1" in payload for payload in seen)


def test_activity_requests_the_cheapest_stats_that_include_times() -> None:
    sessions = [session(number, last_run_start_time=(NOW - timedelta(hours=number)).isoformat()) for number in range(9)]

    def step(handler: Handler) -> None:
        are_sent = "stats_select=last_run_start_time&" in handler.path
        listing(sessions if are_sent else [session(number) for number in range(9)])(handler)

    with scripted(step) as server, client_for(server.url) as client:
        since = NOW - timedelta(hours=3)
        pages = active_since(client, SessionsQuery(), workspace=None, since=since)
        found = [active.start_us for some, _ in pages for active in some]
    assert len(found) == 4
    assert all("stats_select" in path for path in server.paths)
    assert client.warnings == []


def count_active(client: SessionsClient) -> int:
    return sum(len(found) for found, _ in active_since(client, SessionsQuery(), workspace=None, since=NOW))


def test_activity_requests_all_stats_with_a_warning_if_the_cheapest_lack_times() -> None:
    timed = [session(number, last_run_start_time=NOW.isoformat()) for number in range(3)]

    def step(handler: Handler) -> None:
        listing([session(9)] if "stats_select" in handler.path else timed)(handler)

    with scripted(step) as server, client_for(server.url) as client:
        assert count_active(client) == 3
        assert count_active(client) == 3
    assert len(client.warnings) == 1
    assert "stats_select" in client.warnings[0]


@pytest.mark.parametrize("place", [NEWEST, Place(2, NOW)], ids=["beginning", "continued"])
def test_activity_requests_all_stats_if_the_api_does_not_know_the_cheapest(place: Place) -> None:
    timed = [session(number, last_run_start_time=NOW.isoformat()) for number in range(3)]

    def step(handler: Handler) -> None:
        if "stats_select=last_run_start_time" in handler.path:
            handler.reply(422, b'{"detail": "stats_select: unknown"}')
        else:
            listing(timed)(handler)

    with scripted(step) as server, client_for(server.url) as client:
        pages = active_since(client, SessionsQuery(), workspace=None, since=NOW, place=place)
        assert [len(found) for found, _ in pages] == [3, 0]


def test_activity_without_times_in_any_stats_is_an_error_at_once() -> None:
    def step(handler: Handler) -> None:
        if "stats_select" in handler.path:
            listing([session(9)])(handler)
        else:
            handler.reply(400, b'{"detail": "too many stats"}')

    with scripted(step) as server, client_for(server.url) as client, pytest.raises(RefusedError, match="400"):
        count_active(client)
    assert len(server.paths) == 2


def test_a_list_of_sessions_that_never_ran_ends_without_activity() -> None:
    never_ran = listing([session(number) for number in range(3)])
    with scripted(*[never_ran] * 3, answer(400)) as server, client_for(server.url) as client:
        assert count_active(client) == 0
    assert len(server.paths) == 3, "the cheapest stats, all stats, and the end"


@pytest.mark.parametrize("is_deleted", [False, True])
def test_usage_of_every_session_is_read_although_others_move_or_are_deleted(
    is_deleted: bool,
) -> None:
    sessions = [
        session(number, last_run_start_time=(NOW - timedelta(minutes=number)).isoformat(), run_count=0)
        for number in range(150)
    ]

    def step(handler: Handler) -> None:
        ids = parse_qs(urlsplit(handler.path).query).get("id")
        listing([one for one in sessions if ids is None or one["id"] in ids])(handler)
        if len(server.paths) == 1 and is_deleted:
            del sessions[3]
        elif len(server.paths) == 1:
            sessions.insert(0, {**sessions.pop(120), "last_run_start_time": NOW.isoformat()})

    with scripted(step) as server, client_for(server.url) as client:
        readings = list(read_usage(client, SessionsQuery(), workspace=None, day=TODAY))
    assert {id_ for _, start, _ in readings for id_ in start.column("id").to_pylist()} == {
        one["id"] for one in sessions
    }


def test_activity_of_a_session_with_a_number_of_5000_digits_is_noticed() -> None:
    text = json.dumps([session(1, last_run_start_time=NOW.isoformat(), extra="digits")])
    body = text.replace('"digits"', "9" * 5000).encode()

    def step(handler: Handler) -> None:
        handler.reply(body=body if "offset=0" in handler.path else b"[]")

    with scripted(step) as server, client_for(server.url) as client:
        assert count_active(client) == 1
    assert client.warnings == []


def test_activity_returns_what_it_has_when_its_time_is_over() -> None:
    sessions = [session(number, last_run_start_time=NOW.isoformat()) for number in range(150)]

    def limited(handler: Handler) -> None:
        handler.reply(429, b'{"detail": "Too many requests"}')

    found: list[Activity] = []
    with scripted(listing(sessions), limited) as server, client_for(server.url) as client:
        client.throttle.end_within(45)
        pages = active_since(client, SessionsQuery(), workspace=None, since=NOW)
        with pytest.raises(DeadlineExceededError, match="45 seconds"):
            found.extend(active for some, _ in pages for active in some)
    assert len(found) == 100
    assert len(server.paths) == 2


def test_pages_are_prefetched_while_a_day_is_processed_until_enough_days_wait() -> None:
    sessions = [session(number * 20) for number in range(400)]
    asked = threading.Semaphore(0)

    def step(handler: Handler) -> None:
        listing(sessions)(handler)
        asked.release()

    first = TODAY - timedelta(days=5)
    with scripted(step) as server, client_for(server.url) as client, ThreadPoolExecutor(4) as executor:
        days = source_for(client, executor, page_size=20).days(first, TODAY)
        next(days)
        # While the day is processed, the next is not requested. The four days ahead have 288 sessions, on 16 pages.
        assert all(asked.acquire(timeout=20) for _ in range(16))
        assert len([day for day in days if day.day]) == 5
    assert len(server.paths) >= 22


def day_of(number: int, sessions: int = 0) -> RawDay:
    rows = Rows(RAW_SCHEMA, [records_table([Record("{}", None, None, None, None, undated=True)] * sessions)])
    return RawDay(TODAY - timedelta(days=number), rows, [Reading(0, NOW)])


@pytest.mark.parametrize(("sessions", "most_waiting"), [(0, 2), (1, 2), (5, 6), (5, 10)])
def test_prefetching_pauses_when_enough_sessions_wait(sessions: int, most_waiting: int) -> None:
    made: list[int] = []
    third = threading.Event()

    def days() -> Iterator[RawDay]:
        for number in range(6):
            made.append(number)
            if number == 2:
                third.set()
            yield day_of(number, sessions)

    ahead = read_ahead(days(), most_waiting=most_waiting)
    assert next(ahead).day == TODAY
    assert third.wait(20)
    assert made == [0, 1, 2]
    assert [day.day for day in ahead] == [TODAY - timedelta(days=number) for number in range(1, 6)]


def test_an_error_while_prefetching_is_raised_after_the_days_before_it() -> None:
    def days() -> Iterator[RawDay]:
        yield day_of(0)
        raise DeadlineExceededError("over")

    ahead = read_ahead(days(), 100)
    assert next(ahead).day == TODAY
    with pytest.raises(DeadlineExceededError, match="over"):
        next(ahead)
