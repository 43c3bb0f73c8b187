"""The API's HTTP face: authentication, parameters and bodies."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sessions_pipeline.sandbox import second_version
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.sandbox.parameters import DatasetsQuery, Pairs, SessionsQuery

# Not a secret: it opens nothing but this made-up data.
KEY = "sandbox-key"


class Api:
    """What is served, and to whom; `data` is a `CompanyData`, or has its two pages."""

    def __init__(self, data: Any, now: datetime) -> None:
        self.data = data
        self.now = now
        self.workspaces: Sequence[str] = (WORKSPACE, OTHER_WORKSPACE)

    def app(self) -> Any:
        """The application to serve."""
        answers = {
            "/api/v1/sessions": self.sessions,
            "/api/v2/sessions": self.second_sessions,
            "/api/v1/datasets": self.datasets,
        }
        return Starlette(
            routes=[
                *(Route(path, self._endpoint(answer)) for path, answer in answers.items()),
                Route("/info", lambda _: JSONResponse({"version": "sandbox"})),
            ],
            middleware=[Middleware(GZipMiddleware, minimum_size=1024, compresslevel=1)],
        )

    def page(self, asked: SessionsQuery, workspace: str) -> tuple[list[str], int]:
        """One page of sessions, and how many there are in all."""
        page: tuple[list[str], int] = self.data.page(asked, workspace)
        return page

    def sessions(self, pairs: Pairs, workspace: str) -> Response:
        """`GET /api/v1/sessions`."""
        texts, _ = self.page(SessionsQuery.read(pairs, self.now), workspace)
        return Response(f"[{','.join(texts)}]", media_type="application/json")

    def second_sessions(self, pairs: Pairs, workspace: str) -> Response:
        """`GET /api/v2/sessions`."""
        text = second_version.read_page(pairs, self.now, lambda asked: self.page(asked, workspace))
        return Response(text, media_type="application/json")

    def datasets(self, pairs: Pairs, workspace: str) -> Response:
        """`GET /api/v1/datasets`."""
        texts, total = self.data.datasets_page(DatasetsQuery.read(pairs, self.now), workspace)
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
                detail: list[Any] = [{**one, "loc": ["query", *one["loc"]]} for one in found]
            except second_version.CursorError as error:
                detail = [{"loc": ["query", "cursor"], "msg": f"The cursor {error}", "type": "value_error"}]
            return JSONResponse({"detail": detail}, 422)

        return respond
