"""The sandbox for tests: it also serves version 2, fails on demand, records requests, and can serve a test's own texts.

A fault has a kind and a `value`. It starts after `after` answers, and applies to `times` answers (None: to all):

| kind | value | what happens |
|---|---|---|
| `status` | 429, 500, 503, 401 … | that status with a JSON body; `retry_after` is sent as the header |
| `html` | 401, 403, 502 … | that status with an HTML body, as a firewall answers |
| `redirect` | address | 307 to it |
| `reset`, `truncated`, `not_json` | | the connection closes in mid-body; half the body; HTML with status 200 |
| `latency` | seconds | the answer is delayed |
| `cap` | n | at most n records a page |
| `ignore_offset`, `repeat_last`, `unsorted` | | the page at offset 0; past the end, the last page; reverse order |
| `deprecated` | date | `Deprecation` and `Sunset` headers, on version 1 only |
| `gone` | 404, 410 | version 1 is gone: that status with a JSON body; version 2 still answers |
| `no_datasets` | 403, 404, 503 … | only `/api/v1/datasets` answers with that status and a JSON body |
| `same_cursor` | | version 2 always returns the same cursor |
| `date` | | answers have a `Date` header, with the company's time |
"""

import asyncio
import contextlib
import gc
import pickle
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import cache, partial
from typing import Any, Literal
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from sessions_pipeline.langsmith.api_versions import DATASETS
from sessions_pipeline.sandbox import KEY, Api, Pairs, Query, SessionsQuery, serving
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE, Session
from sessions_pipeline.sandbox.listing import SEED, CompanyData
from sessions_pipeline_tests.sessions_v2 import CursorError, cursor_at, read_page

KINDS = (
    *("status", "html", "redirect", "reset", "truncated", "not_json", "latency", "cap"),
    *("ignore_offset", "repeat_last", "unsorted", "deprecated", "gone", "no_datasets", "same_cursor", "date"),
)
Undated = Literal["postgres", "first", "last"]


@dataclass
class Fault:
    """One fault; see the module's table."""

    kind: str
    value: Any = None
    times: int | None = 1
    after: int = 0
    retry_after: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind}: choose one of {', '.join(KINDS)}")


class Faults:
    """The active faults. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        """Activate faults."""
        with self._lock:
            self._faults += faults

    def clear(self) -> None:
        """End all faults."""
        with self._lock:
            self._faults.clear()

    def take(self) -> dict[str, Fault]:
        """The faults for the next answer, by kind. Counts down their `after` and `times`."""
        taken: dict[str, Fault] = {}
        with self._lock:
            for fault in list(self._faults):
                if fault.after > 0:
                    fault.after -= 1
                elif fault.kind not in taken:
                    taken[fault.kind] = fault
                    if fault.times is not None:
                        fault.times -= 1
                        if fault.times <= 0:
                            self._faults.remove(fault)
        return taken


class FixedData:
    """A list of JSON texts, served in their order. A test may change `texts` between requests."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:  # noqa: ARG002
        """Only `offset` and `limit` have an effect. Every workspace has all sessions."""
        return self.texts[asked.offset : asked.offset + asked.limit], len(self.texts)

    def datasets_page(self, asked: Query, workspace: str) -> tuple[list[str], int]:  # noqa: ARG002
        return [], 0


class UndatedAtOneEnd(CompanyData):
    """A company whose sessions without a start time are always first, or always last, whatever the sort order.

    PostgreSQL puts them first or last depending on the direction of the sort.
    """

    undated: Undated = "last"

    def ordered(self, asked: SessionsQuery, workspace: str) -> list[Session]:
        sessions = super().ordered(asked, workspace)
        return sorted(sessions, key=lambda one: one.undated is (self.undated == "last"))


# The faults for the request that is being answered.
_IN_FORCE: ContextVar[dict[str, Fault]] = ContextVar("in_force")


class FaultyApi(Api):
    """The sandbox's API with `faults`. `requests` records requests in order.

    `before_answer` is called with each request's number, from 0, before it is answered.
    """

    def __init__(self, data: Any, now: datetime, *, send_total: bool = False) -> None:
        super().__init__(data, now)
        self.faults = Faults()
        self.requests: list[dict[str, Any]] = []
        self.before_answer: Callable[[int], None] | None = None
        self.send_total = send_total

    def app(self) -> Any:
        inner = super().app()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            number, path, headers = len(self.requests), scope["path"], dict(scope["headers"])
            pairs = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
            workspace = headers.get(b"x-tenant-id")
            entry = {"path": path, "parameters": pairs, "workspace": workspace and workspace.decode(), "status": None}
            self.requests.append(entry)
            if self.before_answer is not None:
                self.before_answer(number)
            faults = self.faults.take()
            _IN_FORCE.set(faults)
            if "latency" in faults:
                await asyncio.sleep(faults["latency"].value)
            is_first = path.startswith("/api/v1/")
            if "gone" in faults and is_first:
                faults["status"] = faults["gone"]
            if "no_datasets" in faults and path == DATASETS.path:
                faults["status"] = faults["no_datasets"]
            response = _replacement(faults) or await _answer_of(inner, scope, receive)
            if "deprecated" in faults and is_first:
                response.headers["Deprecation"] = "true"
                response.headers["Sunset"] = str(faults["deprecated"].value)
            if "date" in faults:
                response.headers["Date"] = format_datetime(self.now, usegmt=True)
            entry["status"] = response.status_code
            await _spoiled(response, faults)(scope, receive, send)

        return app

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        faults = _IN_FORCE.get()
        values: dict[str, Any] = {}
        if "cap" in faults:
            values["limit"] = min(asked.limit, faults["cap"].value)
        if "ignore_offset" in faults:
            values["offset"] = 0
        if "repeat_last" in faults:
            total = self.data.page(asked.model_copy(update={"limit": 1}), workspace)[1]
            values["offset"] = min(asked.offset, max(0, total - asked.limit))
        texts, total = self.data.page(asked.model_copy(update=values), workspace)
        return (texts[::-1] if "unsorted" in faults else texts), total

    def sessions(self, pairs: Pairs, workspace: str) -> Response:
        texts, total = self.page(SessionsQuery.read(pairs, self.now), workspace)
        headers = {"X-Pagination-Total": str(total)} if self.send_total else {}
        return Response(f"[{','.join(texts)}]", media_type="application/json", headers=headers)

    def answers(self) -> dict[str, Callable[[Pairs, str], Response]]:
        answers = {**super().answers(), "/api/v2/sessions": self.sessions_v2}
        return {path: partial(_or_refusal, answer) for path, answer in answers.items()}

    def sessions_v2(self, pairs: Pairs, workspace: str) -> Response:
        """`GET /api/v2/sessions`, which the demo's sandbox lacks because the demo does not need it."""
        text = read_page(pairs, self.now, lambda asked: self.page(asked, workspace))
        if "same_cursor" in _IN_FORCE.get():
            text = re.sub(r'"next_cursor":[^}]*}$', f'"next_cursor":"{cursor_at(0, pairs)}"}}', text)
        return Response(text, media_type="application/json")


@dataclass(frozen=True)
class Sandbox:
    """A running server."""

    url: str
    key: str
    api: FaultyApi

    @property
    def faults(self) -> Faults:
        """The server's faults."""
        return self.api.faults

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests so far."""
        return self.api.requests


def build_api(
    *,
    seed: int = SEED,
    now: datetime | None = None,
    broken: bool = True,
    undated: Undated = "postgres",
    texts: Sequence[str] | None = None,
    send_total: bool = False,
    is_drawn: bool = False,
) -> FaultyApi:
    """The API of a made-up company, or of `texts`, which must be sorted newest first.

    A test that lists all sessions is quicker if the company `is_drawn`: its runs and records are made once, and copied.
    A test that then changes a session must remove its entry from the company's `records`.
    """
    time = now or datetime.now(UTC)
    if texts is not None:
        return FaultyApi(FixedData(texts), time, send_total=send_total)
    make = _drawn_company if is_drawn else _company
    return FaultyApi(make(seed, time, broken=broken, undated=undated), time, send_total=send_total)


def _company(seed: int, now: datetime, *, broken: bool, undated: Undated) -> CompanyData:
    data = (CompanyData if undated == "postgres" else UndatedAtOneEnd)(now, seed)
    if isinstance(data, UndatedAtOneEnd):
        data.undated = undated
    return data if broken else without_broken_records(data)


def _drawn_company(seed: int, now: datetime, **how: Any) -> CompanyData:
    """A copy of a company whose runs and records are made; making them takes half a second, and copying a tenth."""
    pickled = _pickled_company(seed, now, **how)
    gc.disable()  # looking for garbage among so many new objects takes longer than making them
    try:
        copied: CompanyData = pickle.loads(pickled)
    finally:
        gc.enable()
    return copied


@cache
def _pickled_company(seed: int, now: datetime, **how: Any) -> bytes:
    data = _company(seed, now, **how)
    for workspace in (WORKSPACE, OTHER_WORKSPACE):
        data.page(SessionsQuery(limit=1), workspace)
    return pickle.dumps(data)


def without_broken_records(data: CompanyData) -> CompanyData:
    """The same company, with only records that the schema allows."""
    data.offset = "Z"
    for session in data.sessions:
        session.broken, session.undated = {}, False
    return data


def all_texts(api: Api, **parameters: Any) -> list[str]:
    """The JSON texts of all the first workspace's sessions that match these parameters, from all pages."""
    texts: list[str] = []
    total = 1
    while len(texts) < total:
        page, total = api.data.page(SessionsQuery(offset=len(texts), **parameters), WORKSPACE)
        texts += page
    return texts


@contextlib.contextmanager
def running_sandbox(api: FaultyApi | None = None, **options: Any) -> Iterator[Sandbox]:
    """Serve `api`, or `build_api(**options)`, until the block ends."""
    api = api or build_api(**options)
    # The company's time differs from this machine's, so a `Date` header would look like a wrong clock.
    with serving(api.app(), tells_time=False) as url:
        yield Sandbox(url, KEY, api)


def _or_refusal(answer: Callable[[Pairs, str], Response], pairs: Pairs, workspace: str) -> Response:
    try:
        return answer(pairs, workspace)
    except CursorError as error:
        detail = {"loc": ["query", "cursor"], "msg": f"The cursor {error}", "type": "value_error"}
        return JSONResponse({"detail": [detail]}, 422)


async def _answer_of(app: Any, scope: Any, receive: Any) -> Response:
    """The complete answer of an ASGI application."""
    messages: list[Any] = []

    async def keep(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    response = Response(b"".join(message["body"] for message in messages[1:]), messages[0]["status"])
    response.raw_headers = messages[0]["headers"]
    return response


def _replacement(faults: dict[str, Fault]) -> Response | None:
    """The answer to send instead of the right one, if a fault replaces it."""
    if "redirect" in faults:
        return RedirectResponse(str(faults["redirect"].value))
    for kind, fault in faults.items():
        headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        if kind == "status":
            return JSONResponse({"detail": f"sandbox fault {fault.value}"}, fault.value, headers)
        if kind == "html":
            return Response("<html><h1>Blocked</h1></html>", fault.value, headers, media_type="text/html")
        if kind == "not_json":
            return Response("<html>Welcome to the hotel's network</html>", media_type="text/html")
    return None


def _spoiled(response: Response, faults: dict[str, Fault]) -> Response:
    body, half = bytes(response.body), len(response.body) // 2
    if "truncated" in faults:
        return Response(body[: len(body) // 2], media_type="application/json")
    if "reset" in faults:

        async def begin_and_break() -> AsyncIterator[bytes]:
            yield body[:half]
            await asyncio.sleep(0)
            # uvicorn closes the connection because the body is shorter than the Content-Length that was sent.

        return StreamingResponse(begin_and_break(), headers=dict(response.headers))
    return response
