"""The API's HTTP face: authentication, parameters, bodies, and faults on demand."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.sandbox.faults import Fault, Faults
from sessions_pipeline.sandbox.listing import Data
from sessions_pipeline.sandbox.parameters import InvalidParametersError, Parameters, parse_parameters
from sessions_pipeline.sandbox.second_version import first_cursor, read_second_version

# Not a secret: it opens nothing but this made-up data.
KEY = "sandbox-key"
COMPRESS_FROM = 1024


@dataclass
class Api:
    """What is served, to whom, and what was asked."""

    data: Data
    now: datetime
    faults: Faults = field(default_factory=Faults)
    requests: list[dict[str, Any]] = field(default_factory=list)
    workspaces: tuple[str, ...] = (WORKSPACE, OTHER_WORKSPACE)
    tell_total: bool = False
    before_answer: Callable[[int], None] | None = None

    def app(self) -> Starlette:
        """The application to serve."""
        return Starlette(
            routes=[
                Route("/api/v1/sessions", self.read_sessions),
                Route("/api/v2/sessions", self.read_second_version),
                Route("/info", lambda _: JSONResponse({"version": "sandbox"})),
                Route("/_sandbox/faults", self.control_faults, methods=["GET", "POST", "DELETE"]),
                Route("/_sandbox/requests", lambda _: JSONResponse(self.requests)),
            ]
        )

    async def read_sessions(self, request: Request) -> Response:
        """`GET /api/v1/sessions`."""
        return await self._answer(request, self._first_version)

    async def read_second_version(self, request: Request) -> Response:
        """`GET /api/v2/sessions`."""
        return await self._answer(request, self._second_version)

    async def control_faults(self, request: Request) -> Response:
        """`GET`, `POST` or `DELETE /_sandbox/faults`; a list of faults as JSON."""
        if request.method == "POST":
            self.faults.add(*(Fault(**values) for values in await request.json()))
        elif request.method == "DELETE":
            self.faults.clear()
        return JSONResponse(self.faults.as_dicts())

    async def _answer(
        self, request: Request, body: Callable[[list[tuple[str, str]], str, dict[str, Fault]], Response]
    ) -> Response:
        number = len(self.requests)
        pairs = parse_qsl(request.url.query, keep_blank_values=True)
        workspace = request.headers.get("x-tenant-id")
        entry: dict[str, Any] = {"path": request.url.path, "parameters": pairs, "workspace": workspace, "status": None}
        self.requests.append(entry)
        if self.before_answer is not None:
            self.before_answer(number)
        faults = self.faults.take()
        if "latency" in faults:
            await asyncio.sleep(faults["latency"].value)
        is_first = request.url.path.startswith("/api/v1/")
        if "gone" in faults and is_first:
            faults["status"] = faults["gone"]
        response = _instead(faults) or self._refused(request) or body(pairs, workspace or self.workspaces[0], faults)
        if "deprecated" in faults and is_first:
            response.headers["Deprecation"] = "true"
            response.headers["Sunset"] = str(faults["deprecated"].value)
        entry["status"] = response.status_code
        return _spoiled(_compressed(response, request), faults)

    def _refused(self, request: Request) -> Response | None:
        bearer = request.headers.get("authorization", "")
        if request.headers.get("x-api-key") != KEY and bearer != f"Bearer {KEY}":
            return JSONResponse({"detail": "Invalid token"}, 401)
        workspace = request.headers.get("x-tenant-id")
        if workspace is not None and workspace.lower() not in self.workspaces:
            return JSONResponse({"detail": "Forbidden"}, 403)
        return None

    def _first_version(self, pairs: list[tuple[str, str]], workspace: str, faults: dict[str, Fault]) -> Response:
        try:
            asked = parse_parameters(pairs, self.now)
        except InvalidParametersError as error:
            return JSONResponse({"detail": error.detail}, 422)
        texts, total = self._page(asked, workspace, faults)
        headers = {"X-Pagination-Total": str(total)} if self.tell_total else {}
        return Response(f"[{','.join(texts)}]", media_type="application/json", headers=headers)

    def _second_version(self, pairs: list[tuple[str, str]], workspace: str, faults: dict[str, Fault]) -> Response:
        try:
            body = read_second_version(pairs, self.now, lambda asked: self._page(asked, workspace, faults))
        except InvalidParametersError as error:
            return JSONResponse({"detail": error.detail}, 422)
        if "same_cursor" in faults:
            body = body._replace(cursor=first_cursor(pairs))
        return Response(body.text, media_type="application/json")

    def _page(self, asked: Parameters, workspace: str, faults: dict[str, Fault]) -> tuple[list[str], int]:
        values = dict(vars(asked))
        if "cap" in faults:
            values["limit"] = min(asked.limit, faults["cap"].value)
        if "ignore_offset" in faults:
            values["offset"] = 0
        if "repeat_last" in faults:
            total = self.data.page(Parameters(**{**values, "limit": 1}), workspace)[1]
            values["offset"] = min(asked.offset, max(0, total - asked.limit))
        texts, total = self.data.page(Parameters(**values), workspace)
        return (texts[::-1] if "unsorted" in faults else texts), total


def _instead(faults: dict[str, Fault]) -> Response | None:
    """An answer in place of the right one."""
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


def _compressed(response: Response, request: Request) -> Response:
    if "gzip" not in request.headers.get("accept-encoding", "") or len(response.body) < COMPRESS_FROM:
        return response
    response.body = gzip.compress(bytes(response.body), 1)
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Content-Length"] = str(len(response.body))
    return response


def _spoiled(response: Response, faults: dict[str, Fault]) -> Response:
    body, half = bytes(response.body), len(response.body) // 2
    if "truncated" in faults:
        if "content-encoding" in response.headers:
            body = gzip.decompress(body)
        return Response(body[: len(body) // 2], media_type="application/json")
    if "reset" in faults:

        async def begin_and_break() -> AsyncIterator[bytes]:
            yield body[:half]
            await asyncio.sleep(0)
            # The server closes the connection when fewer bytes come than it announced.

        return StreamingResponse(begin_and_break(), headers=dict(response.headers))
    return response
