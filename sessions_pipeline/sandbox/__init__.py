"""The embedded API: a real HTTP server on loopback, in a thread, that serves the data of a made-up company."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.sandbox.listing import CompanyData, Pairs, Query, SessionsQuery

HOST = "127.0.0.1"
# Not a secret: it gives access to made-up data only.
KEY = "sandbox-key"


class Api:
    """The endpoints and the workspaces they serve. `data` is a `CompanyData`, or has its `page` and `datasets_page`."""

    def __init__(self, data: Any, now: datetime) -> None:
        self.data = data
        self.now = now
        self.workspaces: Sequence[str] = (WORKSPACE, OTHER_WORKSPACE)

    def app(self) -> Any:
        """The ASGI application."""
        return Starlette(
            routes=[
                *(Route(path, self._endpoint(answer)) for path, answer in self.answers().items()),
                Route("/info", lambda _: JSONResponse({"version": "sandbox"})),
            ],
            middleware=[Middleware(GZipMiddleware, minimum_size=1024, compresslevel=1)],
        )

    def answers(self) -> dict[str, Callable[[Pairs, str], Response]]:
        """The functions that answer a request's parameters and workspace, by path."""
        return {"/api/v1/sessions": self.sessions, "/api/v1/datasets": self.datasets}

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        """The JSON texts of one page of sessions, and the number of all that match."""
        page: tuple[list[str], int] = self.data.page(asked, workspace)
        return page

    def sessions(self, pairs: Pairs, workspace: str) -> Response:
        """`GET /api/v1/sessions`."""
        texts, _ = self.page(SessionsQuery.read(pairs, self.now), workspace)
        return Response(f"[{','.join(texts)}]", media_type="application/json")

    def datasets(self, pairs: Pairs, workspace: str) -> Response:
        """`GET /api/v1/datasets`."""
        texts, total = self.data.datasets_page(Query.read(pairs, self.now), workspace)
        headers = {"X-Pagination-Total": str(total)}
        return Response(f"[{','.join(texts)}]", media_type="application/json", headers=headers)

    def _endpoint(self, answer: Callable[[Pairs, str], Response]) -> Callable[[Request], Any]:
        async def respond(request: Request) -> Response:
            bearer = request.headers.get("authorization", "")
            if request.headers.get("x-api-key") != KEY and bearer != f"Bearer {KEY}":
                return JSONResponse({"detail": "Invalid token"}, 401)
            workspace = request.headers.get("x-tenant-id", self.workspaces[0]).lower()
            if workspace not in self.workspaces:
                return JSONResponse({"detail": "Forbidden"}, 403)
            try:
                return answer(parse_qsl(request.url.query, keep_blank_values=True), workspace)
            except ValidationError as error:
                found = error.errors(include_url=False, include_context=False, include_input=False)
                return JSONResponse({"detail": [{**one, "loc": ["query", *one["loc"]]} for one in found]}, 422)

        return respond


def running_sandbox(port: int = 0) -> contextlib.AbstractContextManager[str]:
    """Serve a company's data up to now until the block ends; yields the server's address.

    Raises:
        OSError: the port is taken.
    """
    now = datetime.now(UTC)
    return serving(Api(CompanyData(now), now).app(), port)


@contextlib.contextmanager
def serving(app: Any, port: int = 0, *, tells_time: bool = True) -> Iterator[str]:
    """Serve an ASGI application in a thread; yields its address. Port 0 takes a free one.

    Answers have a `Date` header if `tells_time`.
    """
    with socket.create_server((HOST, port)) as listening:
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", ws="none", date_header=tells_time
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True, name="sandbox")
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield f"http://{HOST}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()
