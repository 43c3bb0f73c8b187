"""Which pages hold a window of start times where pages come by cursor, and when it is proven complete. Pure.

A cursor says nothing of what lies between its page and the one before. Where it stands for a place in the list, a
deletion meanwhile moves a session over the gap and out of sight, and a cursor leads only forwards. So the list is
walked twice at the same time, in pages of different sizes: the ends of one walk's pages lie within pages of the other,
and a page proves its interior (see `coverage`). The first walk reads the sessions; the second, without the costly
stats, bears witness, and what it alone has seen is read by id.

Where pages of all walks end too near to each other for that, walks that agree count as one, if none of their pages'
ends is common to all; else another walk of another size is begun. Sessions of one start time that are too many for a
page are the last resort's: the API does not keep their order, so walks of all sizes are begun before any are believed.
"""

from collections.abc import Generator, Sequence
from itertools import combinations

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.coverage import UNDATED_FIRST, UNDATED_LAST, Page, Piece, identity
from sessions_pipeline.langsmith.query import IDS_PER_REQUEST, is_uuid
from sessions_pipeline.langsmith.walks import MOST_PAGES, TOP, CursorAsk, CursorPage, Walk, agree
from sessions_pipeline.validation.records import Record

# Pages of fewer records prove too little of each other.
SMALLEST_PAGE = 10
# Each further walk's pages, as a share of the first's: near to it for few requests, and of few common multiples.
SHARES = (0.97, 0.89, 0.79, 0.71, 0.61)


class CursorReader:
    """Asks for the pages that prove a window complete, newest first, with the undated sessions that it comes upon.

    Drive `read()`: it yields a `CursorAsk` and expects its `CursorPage`. `received` grows by the pages that hold data;
    `frontier` is the start time, in microseconds, above which everything in the window is proven and read.
    """

    def __init__(self, *, start_us: int, end_us: int, page_size: int, most_pages: int = MOST_PAGES) -> None:
        """A window from `start_us` (inclusive) to `end_us` (exclusive), microseconds since the epoch.

        After `most_pages` pages a list counts as endless.
        """
        self.start_us = start_us
        self.frontier = TOP
        self.received: list[Page] = []
        self._end_us = end_us
        self._most_pages = most_pages
        self._main = self._walk(max(page_size, SMALLEST_PAGE), include_stats=True)
        self._walks = [self._main]
        self._shares = iter(SHARES)
        self._proven = TOP
        self._pieces: list[Piece] = []
        self._full = 0
        self._read: set[str] = set()
        self._unread: dict[str, int] = {}  # what witnesses saw and the main walk did not, or not yet

    def read(self) -> Generator[CursorAsk, CursorPage, None]:
        """The window, with what is above it, as a cursor can't be begun further down."""
        while not self._is_done:
            walk = self._next()
            if walk is not None:
                self._take(walk, (yield walk.ask._replace(ahead=self._ahead(walk))))
            elif not (self._walks_agree(on_ties=False) or self._begin_another() or self._walks_agree(on_ties=True)):
                raise PagingError(
                    f"The list of sessions kept changing during {len(self._walks)} readings, or its pages of "
                    f"{self._full} are too short to tell; nothing was replaced, run it again when it is quieter"
                )
            yield from self._read_by_id([name for name, key in self._unread.items() if key > self._reached])
            self.frontier = self._reached

    @property
    def _reached(self) -> int:
        """The key above which all is proven, and passed by the main walk, as a witness may be ahead of it."""
        return max(self._proven, self._main.lowest)

    @property
    def _is_done(self) -> bool:
        # Undated sessions at the list's end are read to the last, once they are come upon.
        return self._reached < self.start_us and self._reached != UNDATED_LAST

    def _next(self) -> Walk | None:
        """The walk to go on with: the first two side by side, a further one only as far as these need it."""
        behind = [walk for walk in self._walks if not walk.is_ended and walk.lowest >= self._reached]
        pair = [walk for walk in behind if walk in self._walks[:2]]
        if pair:
            return max(pair, key=lambda walk: walk.lowest)
        return min(behind, key=lambda walk: walk.lowest, default=None)

    def _ahead(self, walk: Walk) -> tuple[CursorAsk, ...]:
        others = (other for other in self._walks[:2] if other is not walk and walk in self._walks[:2])
        return tuple(other.ask for other in others if not other.is_ended and other.lowest >= self.start_us)

    def _take(self, walk: Walk, page: CursorPage) -> None:
        piece, keys = walk.take(page)
        self._pieces.append(piece)
        self._full = max(self._full, len(page.records))
        if walk is self._main:
            self.received.append(Page(0, page.records))
        for record, key in zip(page.records, keys, strict=True):
            # One without an id can't be asked for again; it will be rejected in any case.
            if key is None or record.session_id is None or not self._is_wanted(record):
                continue
            name = identity(record)
            if walk is self._main:
                self._read.add(name)
                self._unread.pop(name, None)
            elif name not in self._read:
                self._unread[name] = key
        self._advance()
        if len(self._walks) == 1 and not self._is_done:
            self._begin_another()

    def _is_wanted(self, record: Record) -> bool:
        return record.start_us is None or self.start_us <= record.start_us < self._end_us

    def _advance(self) -> None:
        """Carry the frontier down as far as the pages prove."""
        moved = True
        while moved:
            moved = False
            for piece in self._pieces:
                if piece.reach is not None and piece.proves_below(self._proven):
                    self._proven, moved = piece.reach, True
            if self._end_us <= self._proven < UNDATED_FIRST:
                # What is newer than the window needs no proof.
                self._proven, moved = self._end_us - 1, True
        self._pieces = [piece for piece in self._pieces if piece.reach is not None and piece.reach < self._proven]
        for walk in self._walks:
            walk.forget(self._proven)

    def _walks_agree(self, *, on_ties: bool) -> bool:
        for number in range(2, len(self._walks) + 1):
            for some in combinations(self._walks, number):
                low = max(walk.lowest for walk in some)
                if agree(some, low, on_ties=on_ties):
                    self._proven = low
                    self._advance()
                    return True
        return False

    def _begin_another(self) -> bool:
        """Begin a walk of another size, if there is one."""
        share, before = next(self._shares, None), self._walks[-1].size
        # The server may give shorter pages than it is asked for.
        size = 0 if share is None else min(max(int(self._full * share), 1), before - 1)
        if size > 0:
            self._walks.append(self._walk(size, include_stats=False))
        return size > 0

    def _walk(self, size: int, *, include_stats: bool, ids: tuple[str, ...] = ()) -> Walk:
        return Walk(size, include_stats=include_stats, ids=ids, most_pages=self._most_pages)

    def _read_by_id(self, names: Sequence[str]) -> Generator[CursorAsk, CursorPage, None]:
        """Sessions that the main walk has lost; what does not come was deleted meanwhile."""
        for name in names:
            del self._unread[name]
        wanted = [name for name in names if is_uuid(name)]
        for first in range(0, len(wanted), IDS_PER_REQUEST):
            yield from self._read_batch(tuple(wanted[first : first + IDS_PER_REQUEST]))

    def _read_batch(self, ids: tuple[str, ...]) -> Generator[CursorAsk, CursorPage, None]:
        walk, missing = self._walk(self._main.size, include_stats=True, ids=ids), set(ids)
        while missing and not walk.is_ended:
            page = yield walk.ask
            walk.take(page)
            self.received.append(Page(0, [record for record in page.records if identity(record) in missing]))
            missing.difference_update(map(identity, page.records))
        self._read.update(ids)
