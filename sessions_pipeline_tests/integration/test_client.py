"""The client over real HTTP on loopback: its requests, its reaction to every answer, and the secrets it never shows."""

import gzip
import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import stamina

from sessions_pipeline import __version__, errors
from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.langsmith import client as client_module
from sessions_pipeline.langsmith.api_versions import V1, V2
from sessions_pipeline.langsmith.auth import Auth
from sessions_pipeline.langsmith.client import ANNOUNCED_END, SessionsClient
from sessions_pipeline.langsmith.throttle import Throttle
from sessions_pipeline.langsmith.transport import Transport
from sessions_pipeline.settings import Settings
from sessions_pipeline_tests.clock import Clock
from sessions_pipeline_tests.integration.scripted_server import Handler, answer, scripted

# With capitals, since a host that it is part of is shown in small letters.
KEY = "lsv2_pt_0123456789ABCdef"
WORKSPACE = "6f1c1f2e-0000-4000-8000-000000000001"
ONE = b'[{"id": "a", "start_time": "2026-01-02T03:04:05"}]'
QUERY = SessionsQuery(name_contains="private-name", limit=7)


@pytest.fixture(autouse=True)
def _no_backoff_no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY", "LANGSMITH_BEARER_TOKEN", "LANGSMITH_WORKSPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def settings(url: str, **values: object) -> Settings:
    given = {"LANGSMITH_API_KEY": KEY} if "LANGSMITH_BEARER_TOKEN" not in values else {}
    return Settings(_env_file=None, LANGSMITH_ENDPOINT=url, **given, **values)


@contextmanager
def client_for(
    url: str, *, clock: Clock | None = None, minutes: float = 1, slots: int = 8, **limits: float
) -> Iterator[SessionsClient]:
    values = settings(url, SESSIONS_PIPELINE_API_VERSION="v1")
    clocked = {"clock": clock, "wait": clock.wait} if clock else {}
    throttle = Throttle(slots, deadline_seconds=minutes * 60, **clocked)
    transport = Transport(Auth(values), most_connections=slots, **{"read_seconds": 20, **limits})
    with SessionsClient(values, throttle=throttle, transport=transport) as client:
        yield client


def failing(url: str, **options: object) -> errors.ApiError:
    """The error of a fetch. Asserts that it shows no secret, no query and no exception of httpx."""
    with client_for(url, **options) as client, pytest.raises(errors.ApiError) as caught:
        client.fetch(QUERY)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(client)
    assert KEY.lower() not in shown.lower()
    assert "private-name" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not type(caught.value.__cause__).__module__.startswith("httpx")
    assert not type(caught.value.__context__).__module__.startswith("httpx")
    return caught.value


def test_a_page_comes_with_its_records_total_and_time() -> None:
    with scripted(answer(body=ONE, X_Pagination_Total="41")) as server, client_for(server.url) as client:
        page = client.fetch(QUERY)
    assert [record.session_id for record in page.records] == ["a"]
    assert page.total == 41
    assert page.server_time is not None
    assert abs(datetime.now(UTC) - page.server_time) < timedelta(minutes=1)
    assert (client.requests, client.warnings) == (1, [])


@pytest.mark.parametrize("total", ["", "-1", "many", "1.5", "²", "9" * 5000])
def test_an_unreadable_total_is_unknown(total: str) -> None:
    encoded = total.encode().decode("latin-1")
    with scripted(answer(X_Pagination_Total=encoded)) as server, client_for(server.url) as client:
        assert client.fetch(QUERY).total is None


@pytest.mark.parametrize("suffix", ["", "/", "/api", "/api/", "/api/v1", "/api/v1//"])
def test_every_form_of_the_endpoint_requests_the_same_path_with_the_same_headers(suffix: str) -> None:
    with scripted(answer()) as server, client_for(server.url + suffix) as client:
        client.fetch(QUERY, workspace=WORKSPACE)
    path, _, query = server.paths[0].partition("?")
    assert path == "/api/v1/sessions"
    assert query == "name_contains=private-name&sort_by=start_time&sort_by_desc=true&offset=0&limit=7"
    sent = server.headers[0]
    assert sent["x-api-key"] == KEY
    assert sent["x-tenant-id"] == WORKSPACE
    assert sent["user-agent"] == f"sessions-pipeline/{__version__}"
    assert sent["accept-encoding"] == "gzip"
    assert "authorization" not in sent


def test_a_bearer_token_is_sent_instead_of_a_key() -> None:
    values = {"LANGSMITH_BEARER_TOKEN": "token", "LANGSMITH_WORKSPACE_ID": WORKSPACE}
    with scripted(answer()) as server, SessionsClient(settings(server.url, **values)) as client:
        client.fetch(QUERY, workspace=WORKSPACE)
    assert server.headers[0]["authorization"] == "Bearer token"
    assert "x-api-key" not in server.headers[0]


def test_a_netrc_file_and_a_proxy_do_not_change_what_loopback_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with scripted(answer()) as server, client_for(server.url) as client:
        client.fetch(QUERY)
    assert "authorization" not in server.headers[0]
    assert server.headers[0]["x-api-key"] == KEY


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (401, b'{"detail": "Invalid token"}', errors.RefusedError, "Invalid token"),
        (401, b'{"detail": "Invalid token", "code": ' + b"9" * 5000 + b"}", errors.RefusedError, "Invalid token"),
        (403, b'{"error": "Forbidden"}', errors.RefusedError, "LANGSMITH_WORKSPACE_ID"),
        (403, b'{"error": "Forbidden"}', errors.RefusedError, "check LANGSMITH_ENDPOINT"),
        (407, b"", errors.RefusedError, "HTTPS_PROXY"),
        (404, b"<html>", errors.NotFoundError, "LANGSMITH_ENDPOINT"),
        (404, b'{"detail": "Not Found"}', errors.GoneError, "LANGSMITH_ENDPOINT"),
        (410, b'{"detail": "use v2"}', errors.GoneError, "SESSIONS_PIPELINE_API_VERSION"),
        (400, b'{"detail": "bad cursor"}', errors.ParameterError, "bad cursor"),
        (
            422,
            b'{"detail": [{"loc": ["query", "limit"], "msg": "too large", "type": "x"}, {"msg": "b"}]}',
            errors.ParameterError,
            "(422: limit: too large; b)",
        ),
        (422, b'{"detail": "in words"}', errors.ParameterError, "in words"),
        (422, b"not JSON", errors.ParameterError, "(422)"),
        (422, b'{"detail": [1, {"odd": 2}]}', errors.ParameterError, '1; {"odd": "2"}'),
        (418, b"", errors.RefusedError, "418"),
        (304, b"", errors.RefusedError, "304"),
    ],
)
def test_a_final_status_has_its_own_error_and_is_not_retried(
    status: int, body: bytes, kind: type[errors.ApiError], says: str
) -> None:
    with scripted(answer(status, body)) as server:
        error = failing(server.url)
    assert type(error) is kind
    assert says in str(error)
    assert "127.0.0.1" in str(error)
    assert len(server.paths) == 1


@pytest.mark.parametrize(
    ("step", "kind", "attempts"),
    [
        (answer(401, b"<html>"), errors.FirewallError, 3),
        (answer(403, b""), errors.FirewallError, 3),
        (answer(200, b"<html>"), errors.BadBodyError, 3),
        (answer(200, b'{"detail": "an object"}'), errors.BadBodyError, 3),
        (answer(200, b'[{"id": "a"}, {"id'), errors.BadBodyError, 3),
        (answer(200, b"\xff"), errors.BadBodyError, 3),
        (answer(204, b""), errors.BadBodyError, 3),
        (answer(200, b"not gzip", Content_Encoding="gzip"), errors.BadBodyError, 3),
        (answer(200, gzip.compress(ONE)[:-20], Content_Encoding="gzip"), errors.BadBodyError, 3),
        (lambda handler: (handler.begin(100, b"[{"), handler.hang_up()), errors.UnreachableError, 3),
        (lambda handler: (handler.begin(100, b"[{"), handler.hang_up(reset=True)), errors.UnreachableError, 3),
        (lambda handler: handler.hang_up(reset=True), errors.UnreachableError, 3),
        (answer(408, b'{"detail": "Request timeout"}'), errors.ServerError, client_module.ATTEMPTS),
        (answer(425, b'{"detail": "Too early"}'), errors.ServerError, client_module.ATTEMPTS),
        (answer(500, b"oops"), errors.ServerError, client_module.ATTEMPTS),
        (answer(504, b"<html>"), errors.ServerError, client_module.ATTEMPTS),
        (answer(503, b'{"detail": "maintenance"}'), errors.ServerError, client_module.ATTEMPTS),
    ],
)
def test_a_transient_failure_is_retried_a_bounded_number_of_times(
    step: object, kind: type[errors.ApiError], attempts: int
) -> None:
    with scripted(step) as server:
        error = failing(server.url)
    assert type(error) is kind
    assert len(server.paths) == attempts


@pytest.mark.parametrize(
    "step",
    [
        answer(500),
        answer(403, b"<html>"),
        answer(200, b"[{"),
        lambda handler: (handler.begin(100, b"[{"), handler.hang_up()),
    ],
)
def test_after_a_transient_failure_the_page_is_complete(step: object) -> None:
    with scripted(step, step, answer(body=ONE)) as server, client_for(server.url) as client:
        assert len(client.fetch(QUERY).records) == 1
    assert client.requests == 3


def test_a_server_that_answered_before_gets_all_attempts() -> None:
    with scripted(answer(body=ONE), answer(200, b"[{")) as server, client_for(server.url) as client:
        client.fetch(QUERY)
        with pytest.raises(errors.BadBodyError):
            client.fetch(QUERY)
    assert len(server.paths) == 1 + client_module.ATTEMPTS


def test_nobody_listening_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = failing(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert type(error) is errors.UnreachableError
    assert "LANGSMITH_ENDPOINT" in str(error)


def test_an_api_that_does_not_answer_in_time_is_one_line() -> None:
    done = threading.Event()
    with scripted(lambda _: done.wait(20)) as server:
        error = failing(server.url, read_seconds=0.02)
        done.set()
    assert type(error) is errors.TimedOutError


def test_the_deadline_ends_a_request_and_says_how_far_the_run_came() -> None:
    done = threading.Event()
    with scripted(lambda _: done.wait(20)) as server, client_for(server.url, minutes=0.001) as client:
        with pytest.raises(errors.DeadlineExceededError, match=r"after 1 request;"):
            client.fetch(QUERY)
        done.set()


def test_the_deadline_ends_an_answer_that_comes_byte_by_byte() -> None:
    def drip(handler: Handler) -> None:
        handler.begin(10**9, b"[")
        while True:
            handler.wfile.write(b" ")

    with scripted(drip) as server:
        assert type(failing(server.url, minutes=0.002)) is errors.DeadlineExceededError


def drip(clock: Clock, begin: bytes, end: bytes) -> Callable[[Handler], None]:
    """An answer that sends `begin`, then 1,000 spaces with ten seconds of the clock between them, then `end`."""

    def step(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + begin)
        for _ in range(1000):
            clock.now += 10
            handler.wfile.write(b" ")
            handler.wfile.flush()
            handler.server.script.pause.wait(0.002)
        handler.wfile.write(end)

    return step


@pytest.mark.parametrize(
    ("begin", "end"),
    [(b"X-Slow:", b"\r\nContent-Length: 2\r\n\r\n[]"), (b"Content-Length: 1002\r\n\r\n", b"[]")],
    ids=["headers", "body"],
)
def test_one_slow_answer_does_not_use_up_the_deadline_of_a_run(begin: bytes, end: bytes) -> None:
    clock = Clock()
    with scripted(drip(clock, begin, end), answer(body=ONE)) as server:
        values = settings(server.url)
        transport = Transport(Auth(values), most_connections=8, clock=clock)
        with SessionsClient(values, transport=transport) as client:
            assert len(client.fetch(QUERY).records) == 1
    assert client.requests == 2
    assert clock.now < 1000 + 600


@pytest.mark.parametrize("packed_as", ["gzip", "identity"])
def test_a_body_that_decompresses_to_more_than_a_page_is_an_error_and_not_retried(packed_as: str) -> None:
    body = b"[" + b" " * 3_000_000
    sent = gzip.compress(body) if packed_as == "gzip" else body
    with scripted(answer(200, sent, Content_Encoding=packed_as)) as server:
        error = failing(server.url, most_bytes=2**20)
    assert type(error) is errors.RefusedError
    assert "more than 1 MB in one page" in str(error)
    assert len(server.paths) == 1


def test_a_body_that_is_compressed_twice_is_refused_unread() -> None:
    # Ten kilobytes could fill gigabytes of memory before their size is known.
    body = gzip.compress(gzip.compress(ONE))
    with scripted(answer(200, body, Content_Encoding="gzip, gzip")) as server:
        assert type(failing(server.url)) is errors.BadBodyError


def test_a_time_limit_for_one_look_ends_it_before_the_deadline() -> None:
    clock = Clock()
    with scripted(answer(429, b"{}")) as server, client_for(server.url, clock=clock, minutes=120) as client:
        client.throttle.end_within(45)
        with pytest.raises(errors.DeadlineExceededError, match="The time limit of 45 seconds would pass"):
            client.fetch(QUERY)
    assert clock.waits == []
    assert len(server.paths) == 1


@pytest.mark.parametrize("sunset", ["Fri, 31 Dec 9999 23:59:59 -2359", "9" * 5000])
def test_a_sunset_date_that_does_not_exist_is_ignored(sunset: str) -> None:
    with scripted(answer(body=ONE, Sunset=sunset)) as server, client_for(server.url) as client:
        client.fetch(QUERY)
    assert client.api_version is V1
    assert len(client.warnings) == 1


@pytest.mark.parametrize(("sent", "waits"), [("7", 7.0), ("Wed, 25 Nov 2026 07:00:09 GMT", 9.0)])
def test_retry_after_is_honoured_in_seconds_or_as_a_date(sent: str, waits: float) -> None:
    def limited(handler: Handler) -> None:
        handler.send_response_only(429)
        handler.send_header("Date", "Wed, 25 Nov 2026 07:00:00 GMT")
        handler.send_header("Retry-After", sent)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    clock = Clock()
    with scripted(limited, answer(body=ONE)) as server, client_for(server.url, clock=clock) as client:
        client.fetch(QUERY)
    assert clock.waits == [waits]
    assert client.requests == 2


def test_a_wait_beyond_the_deadline_fails_at_once() -> None:
    clock = Clock()
    with scripted(answer(429, b"{}", Retry_After="9" * 400)) as server:
        error = failing(server.url, clock=clock)
    assert type(error) is errors.DeadlineExceededError
    assert clock.waits == []


def test_endless_429_ends_as_a_rate_limit_error() -> None:
    with scripted(answer(429, b'{"detail": "slow down"}', Retry_After="1")) as server:
        error = failing(server.url, clock=Clock())
    assert type(error) is errors.RateLimitedError
    assert "slow down" in str(error)


def test_a_redirect_is_refused_and_the_other_host_sees_nothing() -> None:
    with scripted(answer()) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost") + "/api/v1/sessions?token=abc"
        with scripted(answer(307, b"", Location=elsewhere)) as server:
            error = failing(server.url)
    assert type(error) is errors.RefusedError
    assert "to localhost;" in str(error)
    assert "token" not in str(error)
    assert other.paths == []


def test_a_redirect_to_an_address_that_is_none_is_refused_like_any_other() -> None:
    with scripted(answer(307, b"", Location="http://[::1/?token=abc")) as server:
        error = failing(server.url)
    assert type(error) is errors.RefusedError
    assert "redirects (307)" in str(error)
    assert "token" not in str(error)


def test_a_query_too_long_for_an_address_is_one_line() -> None:
    with (
        scripted(answer()) as server,
        client_for(server.url) as client,
        pytest.raises(
            errors.RefusedError, match=r"127\.0\.0\.1:\d+/api/v1/sessions can't be asked this \(URL too long\)"
        ),
    ):
        client.fetch(SessionsQuery(name="x" * 100_000))
    assert server.paths == []


@pytest.mark.parametrize("host", ["api..test", "xn--a"])
def test_an_endpoint_whose_host_can_have_no_address_is_named(host: str) -> None:
    error = failing(f"http://{host}")
    assert type(error) is errors.RefusedError
    assert str(error).startswith(f"{host}/api/v1/sessions can't be asked this (")
    assert "check LANGSMITH_ENDPOINT" in str(error)


def test_a_cursor_that_is_no_text_is_not_a_page_however_deep_it_is() -> None:
    body = b'{"items": [], "next_cursor": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with scripted(answer(body=body)) as server, client_for(server.url) as client, pytest.raises(errors.BadBodyError):
        client.fetch(QUERY, endpoint=V2)


def test_gzip_is_decompressed() -> None:
    packed = gzip.compress(ONE)
    step = answer(body=packed, Content_Encoding="gzip")
    with scripted(step) as server, client_for(server.url) as client:
        page = client.fetch(QUERY)
    assert page.records[0].session_id == "a"


def test_an_endless_error_page_is_not_read_to_its_end_and_frees_its_connection() -> None:
    steps = [answer(404, b"x" * 10_000_000), answer(body=ONE)]
    with scripted(*steps) as server, client_for(server.url, slots=1, read_seconds=2) as client:
        with pytest.raises(errors.NotFoundError):
            client.fetch(QUERY)
        assert len(client.fetch(QUERY).records) == 1


def test_one_connection_serves_requests_in_a_row() -> None:
    steps = [answer(body=ONE), answer(500), answer(429, b"", Retry_After="0")]
    with scripted(*steps, answer(body=ONE)) as server, client_for(server.url, clock=Clock()) as client:
        for _ in range(5):
            client.fetch(QUERY)
    assert len(server.paths) == 7
    assert len(server.connections) == 1


def test_eight_requests_are_in_flight_together_and_never_more() -> None:
    together = threading.Barrier(8, timeout=20)
    in_flight, most, lock = 0, 0, threading.Lock()

    def meet(handler: Handler) -> None:
        nonlocal in_flight, most
        with lock:
            in_flight += 1
            most = max(most, in_flight)
        together.wait()
        with lock:
            in_flight -= 1
        handler.reply(body=ONE)

    with scripted(meet) as server, client_for(server.url) as client, ThreadPoolExecutor(16) as executor:
        pages = list(executor.map(lambda _: client.fetch(QUERY), range(32)))
    assert len(pages) == client.requests == 32
    assert most == 8
    assert len(server.connections) <= 8


def test_an_announced_end_is_one_warning_that_notifications_find() -> None:
    step = answer(Deprecation="true", Sunset="Thu, 01 Jul 2027 00:00:00 GMT")
    with scripted(step) as server, client_for(server.url) as client:
        client.fetch(QUERY)
        client.fetch(QUERY)
    [end] = ANNOUNCED_END.findall("; ".join(client.warnings))
    assert len(client.warnings) == 1
    assert "01 Jul 2027" in end


def test_a_closed_client_sends_no_request() -> None:
    with scripted(answer()) as server:
        with client_for(server.url) as client:
            pass
        with pytest.raises(errors.ApiError, match="stopped"):
            client.fetch(QUERY)
    assert server.paths == []


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500, 302])
def test_no_secret_is_shown_if_the_server_repeats_it(
    status: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "httpcore")  # as Dagster does with `managed_python_loggers`
    body = f'{{"detail": "bad\\u0007 \\u001b[31mkey {KEY}\\n{"x" * 1000}"}}'.encode()
    step = answer(status, body, Retry_After="0", Location=f"https://{KEY}.example/{KEY}", X_Sent=KEY)
    with scripted(step) as server:
        error = failing(server.url, clock=Clock())
    assert str(error).isprintable()
    assert len(str(error)) < 500
    said = capfd.readouterr()
    assert said.out == said.err == ""
    assert KEY not in "".join(r.getMessage() for r in caplog.records)
