"""Which pages hold a window of start times, and when it is proven complete. Pure: asks for pages, fetches none.

The frontier is the start time down to which everything is proven (see `page`). It moves down page by page, and each
page is one round of a loop. First: what does the page prove? If it begins before (is newer than) the frontier, it joins
what is proven, and the frontier moves to its last start time. Then: which page is wanted next?

- Usually the one that begins a little before this page's last start time, so that it joins in its turn.
- The page begins behind the frontier, as what was deleted meanwhile has moved sessions up over the gap, so it proves
  nothing: one further up, at twice the distance each time.
- The page has no interior, as all of it starts at the same time, or at none that can be read: the whole group around it
  is read until two readings in a row agree, and counts as one page.
- The page may be the list's last: it is shorter than others, which may also come from a server whose cap has sunk. So
  an empty page must follow it, its last record must still stand where it stood, and no empty page may come before
  records that other pages hold.

A view that will not settle in a bounded number of rounds is an error, never a short read.
"""

from collections.abc import Generator, Sequence
from math import ceil

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.page import LIST_END, UNDATED_FIRST, UNDATED_LAST, Ask, Page, Piece
from sessions_pipeline.validation.records import Record

# A page of fewer than 3 records has no interior, so it could prove nothing.
SMALLEST_PAGE = 3
# Pages in a row without progress before giving up. Steps back double each time, so 12 of them cross 200,000 sessions.
BARREN = 12
# Readings of a group of equal start times that may disagree before giving up.
SETTLE_TRIES = 5
# The search's first strides quadruple: 1,000,000 sessions are crossed by 8 probes.
STRIDE = 4
# Probes asked for together: a third of the requests more than one by one, in half the time.
PROBES = 3
# More sessions than any workspace has: there is none at such an offset.
MOST_SESSIONS = 100_000_000


class WindowReader:
    """Asks for the pages that prove a window complete, newest first, and the undated sessions beside it.

    Drive `read()`: it yields an `Ask` and expects its `Page`. `frontier` is the start time, in microseconds, above
    which everything in the window is proven, and was on pages with stats.
    """

    def __init__(self, *, start_us: int, end_us: int, page_size: int, in_flight: int) -> None:
        """A window from `start_us` (inclusive) to `end_us` (exclusive), microseconds since the epoch."""
        self.start_us = start_us
        self.frontier = end_us - 1
        self._end_us = end_us
        self._limit = max(page_size, SMALLEST_PAGE)
        self._in_flight = in_flight
        self._inside = -1  # the highest offset known to exist
        self._beyond: int | None = None  # one that was past the end
        self._undated_key = UNDATED_FIRST  # where sessions without a start time are sorted, unless a dated one leads
        self._page = Page(())  # the last one
        self._full = 0  # what the server gives where there is enough: the longest page since its cap last sank
        self._full_pages = 0  # how many were as long as that

    def read(self) -> Generator[Ask, Page, None]:
        """Undated sessions that sort first, then the window, then undated sessions that sort last."""
        start = front = yield from self._ask(0)
        # Where nothing on the first page has a place, only what follows tells where undated sessions are sorted.
        may_be_undated = front.first in (None, UNDATED_FIRST)
        if may_be_undated and (yield from self._cover(front, UNDATED_FIRST, floor=UNDATED_FIRST)) == LIST_END:
            return
        if not front.is_empty and (front.last is None or front.last >= self._end_us):
            start = yield from self._ask((yield from self._last_offset_from(self._end_us, 0)))
        frontier = yield from self._cover(start, self._end_us - 1, floor=self.start_us)
        if frontier > LIST_END and self._undated_key == UNDATED_LAST:
            last = yield from self._ask((yield from self._last_offset_from(UNDATED_LAST, max(self._inside, 0))))
            yield from self._cover(last, UNDATED_LAST, floor=UNDATED_LAST)

    def _cover(self, piece: Piece, frontier: int, *, floor: int) -> Generator[Ask, Page, int]:
        """Prove everything from `frontier` down to `floor`, beginning with `piece`; the frontier reached.

        One round for each page, as the module's docstring tells; remembered from round to round are:

        fruitless: rounds in a row that proved nothing.
        joined_at: where the last page that joined begins (-1: none has); a group without a place is read from there.
        late_until: the highest offset at which a page began too late. Pages on the way back down to it bring nothing
            new, which is no sign of trouble.
        """
        fruitless, joined_at, late_until = 0, -1, 0
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
                if fruitless > BARREN:
                    raise PagingError(
                        f"{BARREN} pages in a row around offset {piece.offset} brought nothing new: the server ignores "
                        "`offset`, repeats a page, or its list changes faster than it can be read; nothing was replaced"
                    )
            if piece.first is None and not piece.is_empty and joined_at >= 0:
                piece = yield from self._settle(joined_at, frontier)
            elif not joins:
                late_until = max(late_until, piece.offset)
                back = ceil(max(self._full, 2) / 2) * 2 ** max(fruitless - 1, 0)
                piece = yield from self._ask(max(0, piece.offset - back))
            elif self._may_be_last(piece) and (yield from self._is_nothing_behind(piece)):
                piece = piece._replace(is_end=True)
            elif piece.overlap <= piece.offset and not piece.is_empty:
                late_until = 0  # this leads nowhere further down, so it counts
                piece = yield from self._settle(piece.offset, frontier)
            else:
                piece = yield from self._ask(*self._following(piece, floor))

    @property
    def _step(self) -> int:
        """How far pages lie apart so that each holds the last two records of the one before."""
        return max(self._full - 2, 1)

    @property
    def _knows_full(self) -> bool:
        """Whether a full page has been seen: as long as asked for, or two of a length. One may be the whole list."""
        return self._full >= self._limit or self._full_pages > 1

    def _following(self, piece: Piece, floor: int) -> tuple[int, tuple[Ask, ...]]:
        """Where the page after a piece begins, and pages behind it that are worth having in flight.

        At the overlap, or the multiple of the step just before it where that leads forward: so pages in flight, which
        begin at multiples, are still wanted where several sessions start together. As many as the window still holds.
        """
        on_grid = piece.overlap // self._step * self._step
        offset = on_grid if on_grid > piece.offset else piece.overlap
        if not self._knows_full or piece.first is None or piece.last is None:
            return offset, ()
        pages_left = max(piece.last - floor, 0) // max(piece.first - piece.last, 1) + 1
        # Twice the estimate, since quiet weekends make pages long. One more than can be in flight, so that a late page
        # leaves nobody idle.
        numbers = range(offset // self._step + 1, offset // self._step + 1 + min(self._in_flight, 2 * pages_left))
        return offset, tuple(Ask(self._limit, offset=self._step * number) for number in numbers)

    def _ask(self, offset: int, ahead: tuple[Ask, ...] = ()) -> Generator[Ask, Page, Piece]:
        self._page = page = yield Ask(self._limit, offset=offset, ahead=ahead)
        count = len(page.records)
        if count > self._full:
            self._full, self._full_pages = count, 0
        self._full_pages += count == self._full
        self._inside = max(self._inside, offset + count - 1 if count else -1)
        return self._placed(page.records, offset)

    def _placed(self, records: Sequence[Record], offset: int, *, is_end: bool = False) -> Piece:
        piece = Piece.of(records, offset, undated_key=self._undated_key, is_end=is_end)
        if offset == 0 and piece.first is not None and piece.first < UNDATED_FIRST:
            self._undated_key = UNDATED_LAST
        return piece

    def _may_be_last(self, piece: Piece) -> bool:
        return piece.end - piece.offset < self._full or not self._knows_full

    def _is_nothing_behind(self, piece: Piece) -> Generator[Ask, Page, bool]:
        """Whether an empty page follows the last one; while its own last records are found behind it, further on."""
        end, names = piece.end, self._page.names
        while not piece.is_empty and (behind := (yield Ask(1, include_stats=False, offset=end))).records:
            if behind.names[0] not in names or end - piece.end > self._limit:
                self._full, self._full_pages = piece.end - piece.offset, 1  # the server's cap has sunk
                return False
            end = piece.end + 2 * (end - piece.offset - names.index(behind.names[0]))
        if end > piece.end:
            # Between the two must be those records alone, and fewer than the page's: as many may be what a cap gives.
            moved = (yield Ask(self._limit, include_stats=False, offset=piece.end)).names
            if len(moved) >= len(names) or moved != names[-len(moved) :]:
                return False
        elif not piece.is_empty:
            # Deletions may have moved up what a sunken cap left out: then it stands at the page's end, or next to it.
            last = yield Ask(self._limit, include_stats=False, offset=end - 1)
            if not last.records or not set(last.names) <= set(names):
                return False
        if self._inside >= end:
            # An empty page before records that are there is not the end.
            if piece.is_empty or (yield from self._probe(self._inside)) != LIST_END:
                return False
            self._inside = end - 1
        return True

    def _settle(self, offset: int, frontier: int) -> Generator[Ask, Page, Piece]:
        """A group around pages' ends: read until two readings in a row agree, or one page, one answer, holds all."""
        before = None
        for _ in range(SETTLE_TRIES):
            reading = yield from self._read_group(offset, frontier)
            if reading is not None and (reading == before or reading[1] == self._page.names):
                return reading[0]
            before = reading
        raise PagingError(
            f"The list of sessions kept changing around offset {offset} during {SETTLE_TRIES} readings; "
            "nothing was replaced, run it again when the workspace is quieter"
        )

    def _read_group(self, offset: int, frontier: int) -> Generator[Ask, Page, tuple[Piece, list[str]] | None]:
        """Pages from `offset` until one passes the frontier or ends the list, as one, and what they name.

        Each begins with the last record of the one before; None where it does not, as the list has changed.
        """
        start, joined, last = offset, dict[str, Record](), ""
        while True:
            piece = yield from self._ask(offset)
            if piece.is_empty and not joined:
                return piece, []  # deletions have moved up all of it: it is to be looked for further up
            # A record that is in the page twice counts twice: offsets are of records, not of sessions.
            names = self._page.names
            if last and len(names) > 1 and names[0] != last:
                return None
            is_new = not joined.keys() >= set(names)
            joined |= zip(names, self._page.records, strict=True)
            passed = piece.last is not None and piece.last < frontier
            may_be_end = self._may_be_last(piece) or not is_new
            if passed or (may_be_end and (yield from self._is_nothing_behind(piece))):
                return self._placed(tuple(joined.values()), start, is_end=not passed), list(joined)
            if not is_new:
                return None
            last = names[-1]
            offset += max(1, len(names) - 1)

    def _last_offset_from(self, key: int, low: int) -> Generator[Ask, Page, int]:
        """An offset at most a step before the first session that sorts below `key`; a hint, since the list changes.

        Strides lead from `low`, and a page's length at least, past that session; then the stretch between is quartered.
        """
        high = self._beyond
        while high is None or high - low > self._step:
            if high is None:
                offsets = [max(low * STRIDE, self._limit) * STRIDE**n for n in range(PROBES)]
            else:
                offsets = sorted({low + (high - low) * (n + 1) // (PROBES + 1) for n in range(PROBES)} - {low})
            for number, offset in enumerate(offsets):
                if (yield from self._probe(offset, offsets[number + 1 :])) < key:
                    high = offset
                    break
                low = max(low, offset)
        return low

    def _probe(self, offset: int, ahead: Sequence[int] = ()) -> Generator[Ask, Page, int]:
        """The sort key at an offset, by a page of one record. One that can't be read counts as before the window."""
        if offset > MOST_SESSIONS:
            raise PagingError(
                "The server ignores `offset`, as its list of sessions has no end; nothing was replaced, "
                "check that LANGSMITH_ENDPOINT is the LangSmith API"
            )
        asks = [Ask(1, include_stats=False, offset=one) for one in (offset, *ahead)]
        page = yield asks[0]._replace(ahead=tuple(asks[1:]))
        if not page.records:
            self._beyond = offset
            return LIST_END
        self._inside = max(self._inside, offset)
        key = Piece.of(page.records, offset, undated_key=self._undated_key).first
        return UNDATED_FIRST if key is None else key
