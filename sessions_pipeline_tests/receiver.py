"""A local HTTP server that receives notifications as Apprise sends them to a `json://` address."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sessions_pipeline.sandbox import serving


class Receiver:
    """`messages` were received since the last `take`; `address` is a value for SESSIONS_PIPELINE_NOTIFY.

    If a test clears `may_answer`, answers wait until it is set, for half a minute at most.
    """

    def __init__(self) -> None:
        self.address = ""
        self.status = 200
        self.messages: list[dict[str, Any]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    async def receive(self, request: Request) -> Response:
        self.messages.append(await request.json())
        self.may_answer.wait(30)
        return Response(status_code=self.status)

    def take(self) -> dict[str, str]:
        """The received texts by title, which are then forgotten. Fails if a title was received twice."""
        taken, self.messages = self.messages, []
        by_title = {message["title"]: message["message"] for message in taken}
        assert len(by_title) == len(taken)
        return by_title


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    with serving(Starlette(routes=[Route("/{path:path}", receiver.receive, methods=["POST"])])) as url:
        receiver.address = url.replace("http://", "json://")
        yield receiver
