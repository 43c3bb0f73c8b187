"""Which pages hold a window of start times, and when it is proven complete. Pure: asks for pages, fetches none.

Pages are asked for so that each begins before (is newer than) the frontier, the start time down to which everything is
proven (see `coverage`). A page that does not, because sessions were deleted or inserted meanwhile, proves nothing: the
reader steps back and asks again. Sessions of equal start time must lie inside one page; where they are too many for
that, two readings in a row must agree. A view that will not settle in a bounded number of tries is an error, never a
short read.
"""

from collections.abc import Generator, Sequence
from math import ceil
from typing import NamedTuple

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.coverage import LIST_END, UNDATED_FIRST, UNDATED_LAST, Page, Piece, identity
from sessions_pipeline.validation.records import Record

# A page of fewer than 3 records has no interior, so it could prove nothing.
SMALLEST_PAGE = 3
# Pages in a row without progress before giving up. Steps back double each time, so 12 of them cross 200,000 sessions.
TRIES = 12
# Readings of a group of equal start times that may disagree before giving up.
SETTLE_TRIES = 5
# The search's first strides quadruple: 1,000,000 sessions are crossed in 8 requests.
STRIDE = 4


class Ask(NamedTuple):
    """A page wanted now, and the offsets that will probably be wanted next."""

    offset: int
    limit: int
    include_stats: bool
    ahead: tuple[int, ...] = ()

    @property
    def is_aside(self) -> bool:
        """Whether pages in flight are still wanted after it, as it is a probe."""
        return not self.include_stats

    def expected(self) -> Sequence["Ask"]:
        """Itself and what will probably be wanted next."""
        return [self._replace(offset=offset, ahead=()) for offset in (self.offset, *self.ahead)]


class WindowReader:
    """Asks for the pages that prove a window complete, newest first, and the undated sessions beside it.

    Drive `read()`: it yields an `Ask` and expects its `Page`. `received` grows by the pages that hold data; `frontier`
    is the start time, in microseconds, above which everything in the window is proven.
    """

    def __init__(self, *, start_us: int, end_us: int, page_size: int, in_flight: int) -> None:
        """A window from `start_us` (inclusive) to `end_us` (exclusive), microseconds since the epoch."""
        self.start_us = start_us
        self.end_us = end_us
        self.limit = max(page_size, SMALLEST_PAGE)
        self.in_flight = in_flight
        self.frontier = end_us - 1
        self.received: list[Page] = []
        self._undated_key = UNDATED_LAST
        self._full = 0  # the longest page seen: a shorter one can only be the list's end
        self._full_pages = 0
        self._inside = 0  # the highest offset known to exist
        self._beyond: int | None = None  # the lowest offset known to be past the end

    def read(self) -> Generator[Ask, Page, None]:
        """Undated sessions that sort first, then the window, then undated sessions that sort last."""
        front = yield from self._ask(0)
        undated_first = front.first == UNDATED_FIRST
        if undated_first:
            yield from self._cover(front, UNDATED_FIRST, floor=UNDATED_FIRST)
        start = front
        if not front.is_end and (front.last is None or front.last >= self.end_us):
            start = yield from self._ask((yield from self._last_offset_from(self.end_us)))
        frontier = yield from self._cover(start, self.end_us - 1, floor=self.start_us)
        if frontier > LIST_END and not undated_first:
            last = yield from self._ask((yield from self._last_offset_from(UNDATED_LAST, low=self._inside)))
            yield from self._cover(last, UNDATED_LAST, floor=UNDATED_LAST)

    def _cover(self, piece: Piece, frontier: int, *, floor: int) -> Generator[Ask, Page, int]:
        """Prove everything from `frontier` down to `floor`, beginning with `piece`; the frontier reached."""
        tries, grid, anchor, late_at = 0, piece.offset, piece.offset, 0
        while True:
            joins = piece.begins_before(frontier)
            if joins:
                anchor = piece.offset
            if piece.proves_below(frontier):
                tries, frontier = 0, piece.reach or 0
                if frontier < self.end_us:
                    self.frontier = frontier
                if frontier < floor:
                    return frontier
            elif not joins or piece.offset >= late_at:
                tries += 1
                self._check(tries, piece)
            if piece.first is None and not piece.is_empty:
                piece = yield from self._settle(anchor, frontier)
            elif not joins:
                late_at = max(late_at, piece.offset)
                grid = max(0, piece.offset - ceil(max(self._full, 2) / 2) * 2 ** max(tries - 1, 0))
                piece = yield from self._ask(grid)
            elif piece.overlap <= piece.offset:
                piece = yield from self._settle(piece.offset, frontier)
            else:
                offset = self._next_offset(piece, grid)
                piece = yield from self._ask(offset, self._ahead(piece, offset, grid, floor))

    @property
    def _step(self) -> int:
        """How far pages lie apart so that each holds the last two records of the one before."""
        return max(self._full - 2, 1)

    def _next_offset(self, piece: Piece, grid: int) -> int:
        """The overlap, or the offset on the grid of pages in flight just before it, where that leads forward."""
        step = self._step
        on_grid = grid + (piece.overlap - grid) // step * step
        return on_grid if on_grid > piece.offset else piece.overlap

    def _ahead(self, piece: Piece, offset: int, grid: int, floor: int) -> tuple[int, ...]:
        """Offsets worth having in flight: about as many pages as the window still holds, at most `in_flight`."""
        if self._full < self.limit and self._full_pages < 2:  # noqa: PLR2004 - one short page may be the whole list
            return ()
        if piece.first is None or piece.last is None:
            return ()
        pages_left = max(piece.last - floor, 0) // max(piece.first - piece.last, 1) + 1
        step = self._step
        following = grid + ((offset - grid) // step + 1) * step
        # Twice the estimate, since quiet weekends make pages long; one of the pages in flight is `offset` itself.
        count = min(self.in_flight - 1, 2 * pages_left)
        return tuple(following + step * i for i in range(count))

    def _ask(self, offset: int, ahead: tuple[int, ...] = ()) -> Generator[Ask, Page, Piece]:
        page = yield Ask(offset, self.limit, include_stats=True, ahead=ahead)
        return self._place(page)

    def _place(self, page: Page) -> Piece:
        count = len(page.records)
        if count > self._full:
            self._full, self._full_pages = count, 0
        self._full_pages += count == self._full
        if page.total is not None:
            self._beyond = page.total
        if count:
            self.received.append(page)
            self._inside = max(self._inside, page.offset + count - 1)
        if page.offset == 0 and all(record.undated for record in page.records):
            self._undated_key = UNDATED_FIRST
        is_end = count < self._full or (count == 0 and page.offset == 0)
        return Piece.of(page, undated_key=self._undated_key, is_end=is_end)

    def _settle(self, offset: int, frontier: int) -> Generator[Ask, Page, Piece]:
        """A group too large for one page: read it until two readings in a row agree, which then count as one page."""
        previous: Page | None = None
        for _ in range(SETTLE_TRIES):
            reading = yield from self._walk(offset, frontier)
            if reading is not None and previous is not None and _same(previous, reading):
                return Piece.of(reading, undated_key=self._undated_key, is_end=reading.total is not None)
            previous = reading
        raise PagingError(
            f"The list of sessions kept changing around offset {offset} during {SETTLE_TRIES} readings; "
            "nothing was replaced, run it again when the workspace is quieter"
        )

    def _walk(self, offset: int, frontier: int) -> Generator[Ask, Page, Page | None]:
        """Pages from `offset` until one passes the frontier, joined; `total` is set at the list's end, None if torn."""
        start = offset
        joined: dict[str, Record] = {}
        last = ""
        while True:
            page = yield Ask(offset, self.limit, include_stats=True)
            piece = self._place(page)
            fresh = {identity(record): record for record in page.records if identity(record) not in joined}
            torn = len(page.records) > 1 and last not in ("", identity(page.records[0]))
            if torn or not (fresh or piece.is_end):
                return None
            joined |= fresh
            if piece.is_end or (piece.last is not None and piece.last < frontier):
                length = offset + len(page.records) if piece.is_end else None
                return Page(start, tuple(joined.values()), total=length)
            last = identity(page.records[-1])
            offset += max(1, len(page.records) - 1)

    def _last_offset_from(self, key: int, *, low: int = 0) -> Generator[Ask, Page, int]:
        """An offset at most a page before the first session that sorts below `key`; a hint that `_cover` checks."""
        high = self._beyond
        while high is None:
            offset = max(low * STRIDE, self.limit)
            low, high = (offset, None) if (yield from self._probe(offset)) >= key else (low, offset)
        while high - low > self._step:
            middle = (low + high) // 2
            low, high = (middle, high) if (yield from self._probe(middle)) >= key else (low, middle)
        return low

    def _probe(self, offset: int) -> Generator[Ask, Page, int]:
        """The sort key at an offset, without the costly stats. One that can't be read counts as before the window."""
        page = yield Ask(offset, 1, include_stats=False)
        if not page.records:
            self._beyond = offset
            return LIST_END
        self._inside = max(self._inside, offset)
        key = Piece.of(page, undated_key=self._undated_key, is_end=False).first
        return UNDATED_FIRST if key is None else key

    @staticmethod
    def _check(tries: int, piece: Piece) -> None:
        if tries > TRIES:
            raise PagingError(
                f"{TRIES} pages in a row around offset {piece.offset} brought nothing new: the server ignores "
                "`offset`, repeats a page, or its list changes faster than it can be read; nothing was replaced"
            )


def _same(one: Page, other: Page) -> bool:
    return one.total == other.total and list(map(identity, one.records)) == list(map(identity, other.records))
