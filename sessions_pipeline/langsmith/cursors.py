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

from collections import deque
from collections.abc import Collection, Generator, Sequence
from itertools import combinations
from typing import NamedTuple

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.coverage import (
    LIST_END,
    UNDATED_FIRST,
    UNDATED_LAST,
    Page,
    Piece,
    identity,
    sort_keys,
)
from sessions_pipeline.langsmith.query import IDS_PER_REQUEST, is_uuid
from sessions_pipeline.validation.records import Record

# Pages of fewer records prove too little of each other.
SMALLEST_PAGE = 10
# Each further walk's pages, as a share of the first's: near to it for few requests, and of few common multiples.
SHARES = (0.97, 0.89, 0.79, 0.71, 0.61)
# Pages in a row of one walk that bring nothing new.
TRIES = 12
# Ten million sessions: more than any workspace has, so the list has no end.
MOST_PAGES = 100_000
_TOP = UNDATED_FIRST + 1


class CursorAsk(NamedTuple):
    """A page wanted now; `ids` are the only sessions wanted, where given; `ahead` is what will probably be wanted next.

    The cursor belongs to the other values: the API takes it with the same query only.
    """

    size: int
    cursor: str | None
    include_stats: bool
    ids: tuple[str, ...] = ()
    ahead: tuple["CursorAsk", ...] = ()

    @property
    def is_aside(self) -> bool:
        """Whether pages in flight are still wanted after it."""
        return bool(self.ids)

    def expected(self) -> Sequence["CursorAsk"]:
        """Itself and what will probably be wanted next."""
        return (self._replace(ahead=()), *self.ahead)


class CursorPage(NamedTuple):
    """The answer: records, newest first, and the next page's cursor, None at the list's end."""

    records: Sequence[Record]
    next_cursor: str | None


class _Step(NamedTuple):
    key: int
    name: str
    begins_page: bool


class Walk:
    """One way down the list: pages of one size, each asked for with the cursor of the page before.

    `lowest` is the sort key that it has come down to; `trail` holds the records that it saw since the last `forget`.
    """

    def __init__(self, size: int, *, include_stats: bool, ids: tuple[str, ...] = ()) -> None:
        self.size = size
        self.lowest = _TOP
        self.is_ended = False
        self.pages = 0
        self.trail: deque[_Step] = deque()
        self._include_stats = include_stats
        self._ids = ids
        self._cursor: str | None = None
        self._cursors: set[str] = set()
        self._at_lowest: set[str] = set()
        self._idle = 0
        self._before = _TOP  # the first key of the page before

    @property
    def ask(self) -> CursorAsk:
        """The page that follows."""
        return CursorAsk(self.size, self._cursor, self._include_stats, self._ids)

    def take(self, page: CursorPage) -> tuple[Piece, list[int | None]]:
        """Go on to the page; where it lies, and the sort key of each record.

        Raises:
            PagingError: the page is not sorted, or the walk does not get on.
        """
        undated_key = UNDATED_FIRST if self.lowest >= UNDATED_FIRST else UNDATED_LAST
        is_end = page.next_cursor is None
        piece = Piece.of(Page(self.pages, page.records), undated_key=undated_key, is_end=is_end)
        keys = sort_keys(page.records, undated_key)
        self.pages += 1
        self._idle = 0 if self._gets_on(page.records, keys) else self._idle + 1
        if is_end and self._idle and piece.first is not None and piece.first >= self._before:
            raise PagingError(
                "The API ends its list of sessions with a page that was read already; nothing was replaced"
            )
        self._before = piece.first or _TOP
        placed = [(key, _name(record)) for key, record in zip(keys, page.records, strict=True) if key is not None]
        # The list's beginning is no place at which a page could have ended.
        self.trail += [_Step(key, name, index == 0 and self.pages > 1) for index, (key, name) in enumerate(placed)]
        if is_end:
            self.is_ended, self.lowest = True, LIST_END
        else:
            self._go_on(str(page.next_cursor))
        return piece, keys

    def forget(self, frontier: int) -> None:
        """Drop the trail above a sort key."""
        while self.trail and self.trail[0].key > frontier:
            self.trail.popleft()

    def _gets_on(self, records: Sequence[Record], keys: Sequence[int | None]) -> bool:
        gets_on = False
        for record, key in zip(records, keys, strict=True):
            if key is not None and key < self.lowest:
                self.lowest, self._at_lowest, gets_on = key, {identity(record)}, True
            elif key in (None, self.lowest) and identity(record) not in self._at_lowest:
                self._at_lowest.add(identity(record))
                gets_on = True
        return gets_on

    def _go_on(self, cursor: str) -> None:
        if cursor in self._cursors:
            raise PagingError("The API's cursor leads back to a page that was read already; nothing was replaced")
        if self._idle > TRIES or self.pages > MOST_PAGES:
            raise PagingError(
                f"The API's cursor leads on, but {self._idle or self.pages} pages in a row brought "
                f"{'nothing new' if self._idle else 'no end of the list'}; nothing was replaced"
            )
        self._cursors.add(cursor)
        self._cursor = cursor


class CursorReader:
    """Asks for the pages that prove a window complete, newest first, with the undated sessions that it comes upon.

    Drive `read()`: it yields a `CursorAsk` and expects its `CursorPage`. `received` grows by the pages that hold data;
    `frontier` is the start time, in microseconds, above which everything in the window is proven and read.
    """

    def __init__(self, *, start_us: int, end_us: int, page_size: int) -> None:
        """A window from `start_us` (inclusive) to `end_us` (exclusive), microseconds since the epoch."""
        self.start_us = start_us
        self.frontier = _TOP
        self.received: list[Page] = []
        self._end_us = end_us
        self._main = Walk(max(page_size, SMALLEST_PAGE), include_stats=True)
        self._walks = [self._main]
        self._shares = iter(SHARES)
        self._proven = _TOP
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
            if walk is self._main:
                self._read.add(record.session_id)
                self._unread.pop(record.session_id, None)
            elif record.session_id not in self._read:
                self._unread[record.session_id] = key
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
                if _agree(some, low, on_ties=on_ties):
                    self._proven = low
                    self._advance()
                    return True
        return False

    def _begin_another(self) -> bool:
        """Begin a walk of another size, if there is one."""
        share, before = next(self._shares, None), self._walks[-1].size
        # The server may give shorter pages than it is asked for.
        size = 0 if share is None else min(int(self._full * share), before - 1)
        if size > 0:
            self._walks.append(Walk(size, include_stats=False))
        return size > 0

    def _read_by_id(self, names: Sequence[str]) -> Generator[CursorAsk, CursorPage, None]:
        """Sessions that the main walk has lost; what does not come was deleted meanwhile."""
        for name in names:
            del self._unread[name]
        wanted = [name for name in names if is_uuid(name)]
        for first in range(0, len(wanted), IDS_PER_REQUEST):
            yield from self._read_batch(tuple(wanted[first : first + IDS_PER_REQUEST]))

    def _read_batch(self, ids: tuple[str, ...]) -> Generator[CursorAsk, CursorPage, None]:
        walk, missing = Walk(self._main.size, include_stats=True, ids=ids), set(ids)
        while missing and not walk.is_ended:
            page = yield walk.ask
            walk.take(page)
            self.received.append(Page(0, _only(page.records, missing)))
            missing.difference_update(record.session_id for record in page.records)
        self._read.update(ids)


def _agree(walks: Sequence[Walk], low: int, *, on_ties: bool) -> bool:
    """Whether walks saw the same sessions down to a sort key, each two neighbours of them within a page of some walk.

    The order of equal start times is not stable, so that neighbours say less there.
    """
    keys = [step.key for step in walks[0].trail if step.key >= low]
    if not on_ties and len(set(keys)) < len(keys):
        return False
    seen = [[step.name for step in walk.trail if step.key > low] for walk in walks]
    begun = [{step.name for step in walk.trail if step.key >= low and step.begins_page} for walk in walks]
    return all(names == seen[0] for names in seen) and not set.intersection(*begun)


def _only(records: Sequence[Record], wanted: Collection[str]) -> list[Record]:
    return [record for record in records if record.session_id in wanted]


def _name(record: Record) -> str:
    """What tells a record in all walks; the text won't do, as it differs with the stats."""
    return record.session_id or record.start_time or ""
