"""The simulated server with cursors, which stand for a position in the list or for a session."""

import json
from dataclasses import dataclass
from functools import cache
from uuid import NAMESPACE_URL, uuid5

from sessions_pipeline.langsmith.page import Page, PageRequest
from sessions_pipeline_tests.unit.simulated_server import SimulatedServer, record


@dataclass
class CursorServer(SimulatedServer):
    """If `keyset`, a cursor holds the sort key of the page's last session. Otherwise it holds an offset."""

    keyset: bool = False

    def cursor_answer(self, ask: PageRequest) -> Page:
        self.requests.append(ask)
        if self.schedule:
            self._change(self.schedule.pop(0))
        names = self.listed()
        if ask.ids:
            names = [name for name in names if as_uuid(name) in ask.ids]
        if ask.cursor is not None:
            query, place = json.loads(ask.cursor)
            assert query == _query(ask), "the API accepts a cursor only with the query that returned it"
            names = [name for name in names if self._sort_key(name) > tuple(place)] if self.keyset else names[place:]
        page = names[: min(ask.limit, self._capped)]
        records = [record(as_uuid(name), self.sessions[name]) for name in page]
        if len(page) == len(names):
            return Page(records)
        before = json.loads(ask.cursor)[1] if ask.cursor and not self.keyset else 0
        place = self._sort_key(page[-1]) if self.keyset else before + len(page)
        return Page(records, next_cursor=json.dumps([_query(ask), place]))


def _query(ask: PageRequest) -> list[object]:
    return [ask.limit, ask.include_stats, list(ask.ids)]


@cache
def as_uuid(name: str) -> str:
    """The session's id as a UUID. The readers request sessions by id only if it is one."""
    return str(uuid5(NAMESPACE_URL, name))
