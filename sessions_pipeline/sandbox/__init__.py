"""The embedded API: its parameters and endpoints, and a real HTTP server on loopback, in a thread, that serves them."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl
from uuid import UUID

import uvicorn
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, Json, ValidationError, ValidationInfo
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.sandbox.listing import CompanyData

HOST = "127.0.0.1"
# Not a secret: it gives access to made-up data only.
KEY = "sandbox-key"
# `stats_start_time` reaches this far back.
REACH = timedelta(days=31)
_STRING = r"""(?P<quote>["'])(?P<value>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)"""
_NAME = re.compile(rf"\s*eq\(\s*name\s*,\s*{_STRING}\s*\)\s*", re.DOTALL)
_EXPERIMENT = re.compile(
    rf"""\s*and\(\s*eq\(\s*metadata_key\s*,\s*["']experiment["']\s*\)\s*,"""
    rf"""\s*eq\(\s*metadata_value\s*,\s*{_STRING}\s*\)\s*\)\s*""",
    re.DOTALL,
)
SORTS = "name|start_time|last_run_start_time|latency_p50|latency_p99|error_rate"

Pairs = Sequence[tuple[str, str]]


def _value_in(expression: re.Pattern[str], example: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        match = expression.fullmatch(text)
        if not match:
            raise ValueError(f"Only {example} is understood")
        return re.sub(r"\\(.)", r"\1", match["value"], flags=re.DOTALL)

    return read


def _within_reach(moment: datetime, info: ValidationInfo[datetime]) -> datetime:
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if info.context - moment > REACH:
        raise ValueError("stats_start_time reaches 31 days back at most")
    return moment


Id = Annotated[str, BeforeValidator(lambda text: str(UUID(text)))]
Name = Annotated[str, BeforeValidator(_value_in(_NAME, 'eq(name, "value")'))]
Experiment = Annotated[
    str, BeforeValidator(_value_in(_EXPERIMENT, 'and(eq(metadata_key, "experiment"), eq(metadata_value, "value"))'))
]


class Query(BaseModel, frozen=True):
    """The parameters of `GET /api/v1/datasets`, which the list of sessions has, too. Others are ignored, as in the API.

    Parameters in `arrays` may be given several times.
    """

    arrays: ClassVar[frozenset[str]] = frozenset(["id", "tag_value_id", "stats_select", "reference_dataset"])

    id: tuple[Id, ...] | None = None
    name: str | None = None
    name_contains: str | None = None
    offset: int = Field(0, ge=0)
    limit: int = Field(100, ge=1, le=100)

    @classmethod
    def read(cls, pairs: Pairs, now: datetime) -> Self:
        """Parse a request's parameters; `now` limits `stats_start_time`.

        Raises:
            pydantic.ValidationError: one or more are wrong.
        """
        values: dict[str, Any] = dict(pairs)
        for name in values.keys() & cls.arrays:
            values[name] = [value for key, value in pairs if key == name]
        return cls.model_validate(values, context=now)


class SessionsQuery(Query):
    """The parameters of `GET /api/v1/sessions`."""

    dataset_version: str | None = None
    metadata: Json[dict[str, Any]] | None = None
    tag_value_id: tuple[Id, ...] | None = None
    filter: Name | None = None
    include_stats: bool = False
    use_approx_stats: bool = False
    stats_start_time: Annotated[datetime, AfterValidator(_within_reach)] | None = None
    stats_select: tuple[str, ...] | None = None
    stats_filter: Experiment | None = None
    sort_by_feedback_key: str = "correctness"
    reference_free: bool | None = None
    reference_dataset: tuple[Id, ...] | None = None
    facets: bool = False
    sort_by: str = Field("start_time", pattern=f"^({SORTS}|feedback|runs_count)$")
    sort_by_desc: bool = True
    sort_by_feedback_source: Literal["session", "run"] = "run"


class Api:
    """The endpoints and the workspaces they serve. `data` is a `CompanyData`, or has its `page` and `datasets_page`."""

    def __init__(self, data: Any, now: datetime) -> None:
        self.data = data
        self.now = now
        self.workspaces: Sequence[str] = (WORKSPACE, OTHER_WORKSPACE)

    def app(self) -> Any:
        """The ASGI application."""
        return Starlette(routes=[Route(path, self._endpoint(answer)) for path, answer in self.answers().items()])

    def answers(self) -> dict[str, Callable[[Pairs, str], Response]]:
        """The functions that answer a request's parameters and workspace, by path."""
        return {"/api/v1/sessions": self.sessions, "/api/v1/datasets": self.datasets}

    def sessions(self, pairs: Pairs, workspace: str) -> Response:
        """`GET /api/v1/sessions`."""
        texts, _ = self.data.page(SessionsQuery.read(pairs, self.now), workspace)
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
