"""Which pages hold a window of start times where pages come by cursor, and when it is proven complete. Pure.

A cursor leads only forwards, and does not say what lies between its page and the one before: a deletion meanwhile may
have moved a session over the gap and out of sight. So the list is walked twice at the same time:

1. The main walk reads the sessions. A second one, without the costly stats, is its witness, in pages of another size:
   the ends of one walk's pages lie within pages of the other, and a page proves its interior (see `page`).
2. What a witness alone has seen, the main walk has lost: it is read by id.
3. Where pages of both end too near to each other to prove anything, another witness is begun, of another size again.
4. Where there is no other size, walks are believed that saw the same sessions, unless pages of all of them begin with
   the same one, or all with what is next below: there all may have lost its neighbour. An empty page at the list's end
   counts as such a beginning, if the page before was full. So more sessions of one start time than a page holds are
   read.
"""

from collections.abc import Generator
from itertools import combinations
from operator import attrgetter

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.page import LIST_END, UNDATED_FIRST, UNDATED_LAST, Ask, Page, Piece, sort_keys
from sessions_pipeline.langsmith.query import batches, is_uuid
from sessions_pipeline.validation.records import Record

# Pages in a row of one walk that bring nothing new.
MOST_IDLE = 12
# Ten million sessions: more than any workspace has, so the list has no end.
MOST_WALKED = 100_000
TOP = UNDATED_FIRST + 1


class Walk:
    """Pages of one size, each asked for with the cursor of the page before.

    `ask` is the page that follows; `lowest` the sort key that the walk has come down to. `seen` has the sort keys of
    the sessions that it saw, but for those that `forget` dropped; `begins` names the first session of each page; `full`
    is its longest page's length, as the server may give shorter ones than it is asked for.
    """

    def __init__(self, ask: Ask, *, most_pages: int = MOST_WALKED) -> None:
        """After `most_pages` pages the list counts as endless."""
        self.ask = ask
        self.lowest = TOP
        self.is_ended = False
        self.seen: dict[str, int] = {}
        self.begins: set[str] = set()
        self._most_pages = most_pages
        self._pages = 0
        self._at_lowest: set[str] = set()
        self._idle = 0
        self._before = TOP  # the first key of the page before
        self.full = self._count = 0  # the latter is how many the last page with records held
        self._is_cut = False  # whether it ends with an empty page behind a full one, which may have had more behind it

    def take(self, page: Page) -> Piece:
        """Go on to the page; where it lies.

        Raises:
            PagingError: the page is not sorted, or the walk does not get on.
        """
        undated_key = UNDATED_FIRST if self.lowest >= UNDATED_FIRST else UNDATED_LAST
        is_end = not page.next_cursor
        piece = Piece.of(page.records, self._pages, undated_key=undated_key, is_end=is_end)
        placed = list(zip(map(_name, page.records), sort_keys(page.records, undated_key), strict=True))
        if self._pages:
            # The list's beginning is no place at which a page could have ended.
            self.begins.update(name for name, _ in placed[:1])
        self.seen.update((name, key) for name, key in placed if key is not None)
        # One or two records alone are believed: pages that are shorter still would all be full.
        self._is_cut = not placed and self._count == self.full > (2 if self._pages == 1 else 0)
        self._count = len(placed) or self._count
        self.full = max(self.full, self._count)
        self._pages += 1
        self._idle = 0 if self._gets_on(placed) else self._idle + 1
        if is_end and self._idle and piece.first is not None and piece.first >= self._before:
            raise PagingError(
                "The API ends its list of sessions with a page that was read already; nothing was replaced"
            )
        self._before = piece.first or TOP
        if not page.next_cursor:
            self.is_ended, self.lowest = True, LIST_END
        elif self._idle > MOST_IDLE or self._pages > self._most_pages:
            raise PagingError(
                f"The API's cursor leads on, but {self._idle or self._pages} pages in a row brought "
                f"{'nothing new' if self._idle else 'no end of the list'}; nothing was replaced"
            )
        self.ask = self.ask._replace(cursor=page.next_cursor)
        return piece

    def breaks(self, low: int) -> set[str]:
        """The first sessions of pages; `""` is one that is at a sort key, or next below it."""
        below = max((key for key in self.seen.values() if key <= low), default=None)
        begins = any(key == below for name, key in self.seen.items() if name in self.begins)
        is_break = self._is_cut if below is None else begins
        return (self.begins & self.seen.keys()) | ({""} if is_break else set())

    def forget(self, frontier: int) -> None:
        """Drop what was seen above a sort key."""
        self.seen = {name: key for name, key in self.seen.items() if key <= frontier}

    def _gets_on(self, placed: list[tuple[str, int | None]]) -> bool:
        """Whether the page leads further down, or has more sessions of the lowest start time so far."""
        gets_on = False
        for name, key in placed:
            if key is not None and key < self.lowest:
                self.lowest, self._at_lowest, gets_on = key, {name}, True
            elif key in (None, self.lowest) and name not in self._at_lowest:
                self._at_lowest.add(name)
                gets_on = True
        return gets_on


def _name(record: Record) -> str:
    """What tells a record in all walks; the text won't do, as it differs with the stats."""
    return record.session_id.lower() if record.session_id else record.start_time or ""


# Pages of fewer records prove too little of each other.
SMALLEST_CURSOR_PAGE = 10
UNDATED = (UNDATED_FIRST, UNDATED_LAST)
# Each further walk's pages, as a share of the first's: near to it for few requests, and of few common multiples.
SHARES = (0.97, 0.89, 0.79, 0.71, 0.61)


class CursorReader:
    """Asks for the pages that prove a window complete, newest first, with the undated sessions that it comes upon.

    Drive `read()`: it yields an `Ask` and expects its `Page`. `frontier` is the start time, in microseconds, above
    which everything in the window is proven, and was on pages with stats.
    """

    def __init__(self, *, start_us: int, end_us: int, page_size: int, most_pages: int = MOST_WALKED) -> None:
        """A window from `start_us` (inclusive) to `end_us` (exclusive), microseconds since the epoch.

        After `most_pages` pages a list counts as endless.
        """
        self.start_us = start_us
        self.frontier = TOP
        self._end_us = end_us
        self._most_pages = most_pages
        self._main = Walk(Ask(max(page_size, SMALLEST_CURSOR_PAGE)), most_pages=most_pages)
        self._walks = [self._main]
        self._shares = iter(SHARES)
        self._pieces: list[Piece] = []  # those that may still prove something
        self._proven = TOP

    def read(self) -> Generator[Ask, Page, None]:
        """The window, with what is above it, as a cursor can't be begun further down."""
        while not self._is_done:
            following = self._next()
            if following is not None:
                page = yield following.ask._replace(ahead=self._ahead(following))
                self._pieces.append(following.take(page))
                following.forget(self.frontier)
                self._advance()
                if len(self._walks) == 1 and not self._is_done:
                    self._begin_another()
            elif not (self._begin_another() or self._walks_agree()):
                raise PagingError(
                    f"The list of sessions kept changing during {len(self._walks)} readings, or its pages of "
                    f"{self._full} are too short to tell; nothing was replaced, run it again when it is quieter"
                )
            if self._reached < self.frontier:
                yield from self._read_lost()
                self.frontier = self._reached
                for walk in self._walks:
                    walk.forget(self.frontier)

    @property
    def _full(self) -> int:
        return max(walk.full for walk in self._walks)

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
        by_lowest = attrgetter("lowest")
        return max(pair, key=by_lowest) if pair else min(behind, key=by_lowest, default=None)

    def _ahead(self, walk: Walk) -> tuple[Ask, ...]:
        """The other walk's next page, where the two go side by side."""
        others = [other for other in self._walks[:2] if walk in self._walks[:2] and other is not walk]
        return tuple(other.ask for other in others if not other.is_ended and other.lowest >= self.start_us)

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

    def _begin_another(self) -> bool:
        """Begin a walk in smaller pages, if there is another size."""
        share, before = next(self._shares, None), self._walks[-1].ask.limit
        size = 0 if share is None else min(max(int(self._full * share), 1), before - 1)
        if size > 0:
            self._walks.append(Walk(Ask(size, include_stats=False), most_pages=self._most_pages))
        return size > 0

    def _walks_agree(self) -> bool:
        """Whether two walks, or more, saw the same sessions as far as they have come; then that is proven."""
        for number in range(2, len(self._walks) + 1):
            for some in combinations(self._walks, number):
                low = max(walk.lowest for walk in some)
                seen = [{name for name, key in walk.seen.items() if key > low} for walk in some]
                breaks = set.intersection(*(walk.breaks(low) for walk in some))
                if not breaks and all(names == seen[0] for names in seen):
                    self._proven = low
                    self._advance()
                    return True
        return False

    def _read_lost(self) -> Generator[Ask, Page, None]:
        """Read by id what only witnesses saw above the frontier; what does not come was deleted meanwhile."""
        seen = {name: key for walk in self._walks for name, key in walk.seen.items() if key > self._reached}
        wanted = {name for name, key in seen.items() if self.start_us <= key < self._end_us or key in UNDATED}
        ids = sorted(filter(is_uuid, wanted - self._main.seen.keys()))
        for some in batches(ids):
            walk = Walk(self._main.ask._replace(cursor=None, ids=some), most_pages=self._most_pages)
            while not walk.is_ended:
                walk.take((yield walk.ask))
