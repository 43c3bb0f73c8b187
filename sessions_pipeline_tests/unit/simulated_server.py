"""A list of sessions that changes while it is paged: the model that the window reader is tested against."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from sessions_pipeline.langsmith.coverage import Page
from sessions_pipeline.langsmith.days import DayAssembler, DayReading
from sessions_pipeline.langsmith.prefetch import AskT, PageT, Reader
from sessions_pipeline.langsmith.window import Ask, WindowReader
from sessions_pipeline.validation.records import Record


def record(name: str, start_us: int | None) -> Record:
    return Record(
        f'{{"id": "{name}"}}', name, "t", None if start_us is None else str(start_us), start_us, start_us is None
    )


@dataclass
class SimulatedServer:
    """Sorts by start time, newest first, ties at random; mutates between answers as its schedule says."""

    sessions: dict[str, int | None]
    cap: int = 100
    undated_first: bool = True
    schedule: list[str] = field(default_factory=list)
    seed: int = 0
    requests: list[Ask] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._ties: dict[str, float] = {}

    def answer(self, ask: Ask) -> Page:
        self.requests.append(ask)
        if self.schedule:
            self._mutate(self.schedule.pop(0))
        listed = sorted(self.sessions, key=self._sort_key)
        names = listed[ask.offset : ask.offset + min(ask.limit, self.cap)]
        return Page(ask.offset, [record(name, self.sessions[name]) for name in names])

    def _sort_key(self, name: str) -> tuple[float, float]:
        start = self.sessions[name]
        undated = -float("inf") if self.undated_first else float("inf")
        return (undated if start is None else -start, self._ties.setdefault(name, self._random.random()))

    def _mutate(self, what: str) -> None:
        if what == "reorder":
            self._ties.clear()
        elif what == "insert":
            others = [start for start in self.sessions.values() if start is not None] or [0]
            self.sessions[f"new-{len(self.requests)}"] = self._random.choice(others) + self._random.choice(
                [0, 0, 1, -1]
            )
        elif what == "insert newest":
            self.sessions[f"new-{len(self.requests)}"] = 10**15
        elif what == "delete" and self.sessions:
            name = self._random.choice(sorted(self.sessions))
            del self.sessions[name]
            self.deleted.add(name)


def read_with(
    server: "SimulatedServer | StillServer", reader: WindowReader, assembler: DayAssembler, *, eager: bool
) -> list[DayReading]:
    """Drive the reader; `eager` takes the pages in flight at once (stale when used), otherwise none is in flight."""
    flights: dict[int, Page] = {}

    def answer(ask: Ask) -> Page:
        page = flights.pop(ask.offset, None) if ask.include_stats else None
        if page is None:
            page = server.answer(ask)
        for offset in [offset for offset in flights if offset not in ask.ahead]:
            del flights[offset]
        if eager:
            for offset in ask.ahead:
                if offset not in flights:
                    flights[offset] = server.answer(ask._replace(offset=offset, ahead=()))
        return page

    return collected(reader, answer, assembler)


def collected(
    reader: Reader[AskT, PageT], answer: Callable[[AskT], PageT], assembler: DayAssembler
) -> list[DayReading]:
    """The days that the reader proves from the answers."""
    steps = reader.read()
    days: list[DayReading] = []
    ask = next(steps)
    while True:
        page = answer(ask)
        try:
            ask = steps.send(page)
        except StopIteration:
            break
        finally:
            for received in reader.received:
                assembler.add(received)
            reader.received.clear()
        days.extend(assembler.close(reader.frontier))
    days.extend(assembler.close(reader.start_us - 1))
    days.append(assembler.close_undated())
    return days


class StillServer:
    """Serves a fixed list, newest first as given, and remembers what it was asked."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.requests: list[Ask] = []

    def answer(self, ask: Ask) -> Page:
        self.requests.append(ask)
        return Page(ask.offset, self.records[ask.offset : ask.offset + ask.limit])
