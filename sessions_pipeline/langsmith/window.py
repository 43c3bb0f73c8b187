"""Which pages hold a window of start times, and when it is proven complete. Pure: asks for pages, fetches none.

Pages are asked for so that each begins before (is newer than) the frontier, the start time down to which everything is
proven (see `coverage`). A page that does not, because sessions were deleted or inserted meanwhile, proves nothing: the
reader steps back and asks again. Sessions of equal start time must lie inside one page; where they are too many for
that, two readings in a row must agree. A view that will not settle in a bounded number of tries is an error, never a
short read.

Where the list ends is proven too, since a short page may come from a server whose cap has sunk. Behind the page, an
empty one must follow; but a session may have moved up between the two, when others were deleted. So either the page's
own answer gave the list's length (`X-Pagination-Total`), and it ends there, or a third page, asked to go on beyond the
empty one, must end where that began. Only a deletion before and an insertion after the empty page, each beside a sunken
cap, could hide a session from all three.
"""

from collections.abc import Generator
from dataclasses import replace
from math import ceil

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.coverage import LIST_END, UNDATED_FIRST, UNDATED_LAST, Page, Piece, identity
from sessions_pipeline.langsmith.offsets import OffsetAsk, Offsets
from sessions_pipeline.validation.records import Record

# A page of fewer than 3 records has no interior, so it could prove nothing.
SMALLEST_PAGE = 3
# Pages in a row without progress before giving up. Steps back double each time, so 12 of them cross 200,000 sessions.
TRIES = 12
# Readings of a group of equal start times that may disagree before giving up.
SETTLE_TRIES = 5


class WindowReader:
    """Asks for the pages that prove a window complete, newest first, and the undated sessions beside it.

    Drive `read()`: it yields an `OffsetAsk` and expects its `Page`. `received` grows by the pages that hold data;
    `frontier` is the start time, in microseconds, above which everything in the window is proven.
    """

    def __init__(self, *, start_us: int, end_us: int, page_size: int, in_flight: int) -> None:
        """A window from `start_us` (inclusive) to `end_us` (exclusive), microseconds since the epoch."""
        self.start_us = start_us
        self.end_us = end_us
        self.limit = max(page_size, SMALLEST_PAGE)
        self.in_flight = in_flight
        self.frontier = end_us - 1
        self.received: list[Page] = []
        self._offsets = Offsets()
        self._page = Page(0, ())  # the last one
        self._full = 0  # what the server gives where there is enough: the longest page since its cap last sank
        self._full_pages = 0

    def read(self) -> Generator[OffsetAsk, Page, None]:
        """Undated sessions that sort first, then the window, then undated sessions that sort last."""
        front = yield from self._ask(0)
        undated_first = front.first == UNDATED_FIRST
        if undated_first:
            yield from self._cover(front, UNDATED_FIRST, floor=UNDATED_FIRST)
        start = front
        if not front.is_empty and (front.last is None or front.last >= self.end_us):
            start = yield from self._ask((yield from self._last_offset_from(self.end_us, 0)))
        frontier = yield from self._cover(start, self.end_us - 1, floor=self.start_us)
        if frontier > LIST_END and not undated_first:
            last = yield from self._ask((yield from self._last_offset_from(UNDATED_LAST, max(self._offsets.inside, 0))))
            yield from self._cover(last, UNDATED_LAST, floor=UNDATED_LAST)

    def _cover(self, piece: Piece, frontier: int, *, floor: int) -> Generator[OffsetAsk, Page, int]:
        """Prove everything from `frontier` down to `floor`, beginning with `piece`; the frontier reached.

        Each round looks at one page. If it joins what is proven and reaches further down, the frontier moves to its
        last start time, and the next page is asked for a little before that. If it begins behind the frontier (what
        was deleted has moved sessions up over the gap), a page further up is asked for, at twice the distance each
        time. Four things are remembered from round to round:

        fruitless: rounds in a row that proved nothing; too many are an error.
        grid_start: the offset from which pages in flight are laid out; moves only by a step back.
        joined_at: where the last page that joined begins; a group of equal start times is read from there on.
        late_until: the highest offset at which a page began too late. Pages on the way back down to it bring nothing
            new, which is no sign of trouble.
        """
        fruitless, grid_start, joined_at, late_until = 0, piece.offset, piece.offset, 0
        while True:
            joins = piece.begins_before(frontier)
            joined_at = piece.offset if joins else joined_at
            if piece.proves_below(frontier):
                fruitless, frontier = 0, piece.reach or 0
                self.frontier = min(self.frontier, frontier)
                if frontier < floor:
                    return frontier
            elif not joins or piece.is_empty or piece.offset >= late_until:
                fruitless += 1
                self._check(fruitless, piece)
            if piece.first is None and not piece.is_empty:
                piece = yield from self._settle(joined_at, frontier)
            elif not joins:
                late_until = max(late_until, piece.offset)
                grid_start = max(0, piece.offset - ceil(max(self._full, 2) / 2) * 2 ** max(fruitless - 1, 0))
                piece = yield from self._ask(grid_start)
            elif self._may_be_last(piece) and (empty := (yield from self._empty_behind(piece))) is not None:
                piece = yield from self._last_page(piece, empty)
                if not piece.is_end:
                    # What is read again below is not new, but how often the end is looked for counts.
                    fruitless, late_until = fruitless + 1, max(late_until, piece.end)
                    self._check(fruitless, piece)
            elif piece.overlap <= piece.offset and not piece.is_empty:
                late_until = 0  # this leads nowhere further down, so it counts
                piece = yield from self._settle(piece.offset, frontier)
            else:
                offset = self._next_offset(piece, grid_start)
                piece = yield from self._ask(offset, self._ahead(piece, offset, grid_start, floor))

    @property
    def _step(self) -> int:
        """How far pages lie apart so that each holds the last two records of the one before."""
        return max(self._full - 2, 1)

    def _next_offset(self, piece: Piece, grid_start: int) -> int:
        """The overlap, or the offset on the grid of pages in flight just before it, where that leads forward."""
        step = self._step
        on_grid = grid_start + (piece.overlap - grid_start) // step * step
        return on_grid if on_grid > piece.offset else piece.overlap

    def _ahead(self, piece: Piece, offset: int, grid_start: int, floor: int) -> tuple[OffsetAsk, ...]:
        """Pages worth having in flight: about as many as the window still holds, at most `in_flight`."""
        if (self._full < self.limit and self._full_pages < 2) or piece.first is None or piece.last is None:  # noqa: PLR2004 - one short page may be the whole list
            return ()
        pages_left = max(piece.last - floor, 0) // max(piece.first - piece.last, 1) + 1
        step = self._step
        following = grid_start + ((offset - grid_start) // step + 1) * step
        # Twice the estimate, since quiet weekends make pages long. One more than can be in flight, so that a late page
        # leaves nobody idle.
        count = min(self.in_flight, 2 * pages_left)
        return tuple(OffsetAsk(following + step * i, self.limit, include_stats=True) for i in range(count))

    def _ask(self, offset: int, ahead: tuple[OffsetAsk, ...] = ()) -> Generator[OffsetAsk, Page, Piece]:
        return self._place((yield OffsetAsk(offset, self.limit, include_stats=True, ahead=ahead)))

    def _place(self, page: Page) -> Piece:
        count = len(page.records)
        if count > self._full:
            self._full, self._full_pages = count, 0
        self._full_pages += count == self._full
        self._offsets.total = page.total
        self._page = page
        if count:
            self.received.append(page)
            self._offsets.inside = max(self._offsets.inside, page.offset + count - 1)
            if page.offset == 0 and all(record.undated for record in page.records):
                self._offsets.undated_key = UNDATED_FIRST
        return Piece.of(page, undated_key=self._offsets.undated_key)

    def _may_be_last(self, piece: Piece) -> bool:
        """Whether the page is shorter than others, or than what was asked for where there are no others."""
        count = piece.end - piece.offset
        return count < self._full or (count < self.limit and self._full_pages < 2)  # noqa: PLR2004 - this one alone

    def _empty_behind(self, piece: Piece) -> Generator[OffsetAsk, Page, int | None]:
        """The offset of an empty page behind this one; None where records follow that it does not hold.

        While sessions are being added, its own last records are found behind it: then further on by twice as much.
        """
        end, places = piece.end, {identity(record): at for at, record in enumerate(self._page.records)}
        while not piece.is_empty:
            behind = yield OffsetAsk(end, 1, include_stats=False)
            if not behind.records:
                break
            place = places.get(identity(behind.records[0]))
            if place is None or end - piece.end > self.limit:
                self._full, self._full_pages = piece.end - piece.offset, 1  # the server's cap has sunk
                return None
            end = piece.end + 2 * (end - self._page.offset - place)
        if self._offsets.inside >= end:
            if piece.is_empty or (yield from self._offsets.probe(self._offsets.inside)) != LIST_END:
                return None  # an empty page before records that are there: not the end
            self._offsets.inside = end - 1
        return end

    def _last_page(self, piece: Piece, empty: int) -> Generator[OffsetAsk, Page, Piece]:
        """The page as the list's end if its own answer says so; else one that goes on beyond, if it ends there too."""
        if piece.adds_up:
            return replace(piece, is_end=True)
        again = yield from self._ask(max(0, min(piece.end - ceil(self._full / 2), piece.overlap)))
        # As many as were added before the empty page may have been added after it.
        has_grown = empty < again.end <= 2 * empty - piece.end and again.end - again.offset < self.limit
        return replace(again, is_end=again.end == empty or has_grown)

    def _settle(self, offset: int, frontier: int) -> Generator[OffsetAsk, Page, Piece]:
        """A group too large for one page: read it until two readings in a row agree, which then count as one page."""
        previous: Page | None = None
        for _ in range(SETTLE_TRIES):
            reading = yield from self._walk(offset, frontier)
            if reading is not None and previous is not None and _same(previous, reading):
                return Piece.of(reading, undated_key=self._offsets.undated_key, is_end=reading.total is not None)
            previous = reading
        raise PagingError(
            f"The list of sessions kept changing around offset {offset} during {SETTLE_TRIES} readings; "
            "nothing was replaced, run it again when the workspace is quieter"
        )

    def _walk(self, offset: int, frontier: int) -> Generator[OffsetAsk, Page, Page | None]:
        """Pages from `offset` until one passes the frontier, joined; `total` is set at the list's end, None if torn."""
        start = offset
        joined: dict[str, Record] = {}
        last = ""
        while True:
            page = yield OffsetAsk(offset, self.limit, include_stats=True)
            piece = self._place(page)
            fresh = {identity(record): record for record in page.records if identity(record) not in joined}
            if len(page.records) > 1 and last not in ("", identity(page.records[0])):
                return None
            joined |= fresh
            if piece.last is not None and piece.last < frontier:
                return Page(start, tuple(joined.values()))
            if (self._may_be_last(piece) or not fresh) and (yield from self._empty_behind(piece)) is not None:
                return Page(start, tuple(joined.values()), total=piece.end)
            if not fresh:
                return None
            last = identity(page.records[-1])
            offset += max(1, len(page.records) - 1)

    def _last_offset_from(self, key: int, low: int) -> Generator[OffsetAsk, Page, int]:
        return self._offsets.last_from(key, low=low, step=self._step, limit=self.limit)

    @staticmethod
    def _check(fruitless: int, piece: Piece) -> None:
        if fruitless > TRIES:
            raise PagingError(
                f"{TRIES} pages in a row around offset {piece.offset} brought nothing new: the server ignores "
                "`offset`, repeats a page, or its list changes faster than it can be read; nothing was replaced"
            )


def _same(one: Page, other: Page) -> bool:
    return one.total == other.total and list(map(identity, one.records)) == list(map(identity, other.records))
