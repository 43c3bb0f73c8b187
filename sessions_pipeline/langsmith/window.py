"""Decides which pages to read by offset, and when they prove a window of start times complete. Pure: does no I/O.

The frontier is the start time down to which everything is proven (see `page`). It moves down page by page; each page is
one round of a loop. First the round decides what the page proves: if the page begins above (is newer than) the
frontier, it joins what is proven, and the frontier moves to its last start time. Then it chooses the next page:

- Usually one that begins a little above this page's last start time, so that it joins in its turn.
- If the page begins below the frontier, deletions have moved sessions up past it, and it proves nothing. The next page
  is taken further up the list, at twice the distance each time.
- If all of the page starts at the same time, or has no readable start time, it has no interior. The whole group around
  it is read until two readings in a row agree, and counts as one page.
- If the page is shorter than others, it may be the list's last, or the server may have lowered its page cap. It is the
  last if an empty page follows it, its last record has not moved, and no page has shown records further down.

If this does not come to an end in a bounded number of rounds, that is an error, never a short read.
"""

from collections.abc import Generator, Sequence
from math import ceil

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.page import LIST_END, UNDATED_FIRST, UNDATED_LAST, Page, PageRequest, Piece
from sessions_pipeline.langsmith.records import Record

# Pages in a row without progress before giving up. Steps back double each time, so 12 of them cross 200,000 sessions.
MOST_IDLE = 12
# Readings of a group of equal start times before giving up, if no two in a row agree.
MOST_GROUP_READINGS = 5
# Each stride of a search is four times the one before, so 8 probes cross 1,000,000 sessions.
STRIDE_GROWTH = 4
# Compared with one probe at a time, three together take a third more requests but half the time.
PROBES = 3
# More sessions than any workspace has. A server that returns one at a higher offset ignores `offset`.
MOST_SESSIONS = 100_000_000


class WindowReader:
    """Requests the pages that prove a window complete, newest first, and all sessions without a start time.

    `read()` is a generator that yields each `PageRequest` and must be sent its `Page`. `frontier` is the start time, in
    microseconds since the epoch, above which the window is proven complete and was on pages with stats.
    """

    def __init__(self, *, start_us: int, end_us: int, page_size: int, in_flight: int, length: int = 0) -> None:
        """A window from `start_us` to before `end_us`; `length` is the list's when it was last read (0: unknown)."""
        self.start_us = start_us
        self.frontier = end_us - 1
        self._end_us = end_us
        self._limit = page_size
        self._in_flight = in_flight
        self._length = min(length, MOST_SESSIONS)  # it comes from a file, so it may be any number
        self.highest_known = -1  # highest offset at which a record was seen
        self._undated_key = UNDATED_FIRST  # sort key of undated sessions; UNDATED_LAST once a dated one leads the list
        self._page = Page(())  # the page received last
        self._longest = 0  # length of the longest page since the server last lowered its cap
        self._longest_pages = 0  # number of pages of that length

    def read(self) -> Generator[PageRequest, Page, None]:
        """Read undated sessions that sort first, then the window, then undated sessions that sort last."""
        start = front = yield from self._request(0)
        # If nothing on the first page has a start time, only later pages can show where undated sessions are sorted.
        may_be_undated = front.first in (None, UNDATED_FIRST)
        if may_be_undated and (yield from self._cover(front, UNDATED_FIRST, floor=UNDATED_FIRST)) == LIST_END:
            return
        if not front.is_empty and (front.last is None or front.last >= self._end_us):
            start = yield from self._request((yield from self._offset_before(self._end_us, 0)))
        frontier = yield from self._cover(start, self._end_us - 1, floor=self.start_us)
        if frontier > LIST_END and self._undated_key == UNDATED_LAST:
            # Half a page before its last known end, so that a few new or deleted sessions make no difference.
            low, likely = max(self.highest_known, 0), self._length - self._step // 2
            last = yield from self._request((yield from self._offset_before(UNDATED_LAST, low, likely)))
            yield from self._cover(last, UNDATED_LAST, floor=UNDATED_LAST)

    def _cover(self, piece: Piece, frontier: int, *, floor: int) -> Generator[PageRequest, Page, int]:
        """Prove everything from `frontier` down to `floor`, starting with `piece`, and return the frontier reached.

        The module's docstring describes a round. Kept from one round to the next:

        idle: rounds in a row that proved nothing.
        joined_at: offset of the last page that joined (-1: none yet). A group without start times is read from there.
        stepped_back_from: highest offset of a page that began below the frontier. Pages on the way back down to it are
            expected to bring nothing new, so they are not counted as idle.
        """
        idle, joined_at, stepped_back_from = 0, -1, 0
        while True:
            joins = piece.begins_before(frontier)
            joined_at = piece.offset if joins else joined_at
            lowered = piece.lowered(frontier)
            if lowered < frontier:
                idle, frontier = 0, lowered
                self.frontier = min(self.frontier, frontier)
                if frontier < floor:
                    return frontier
            elif not joins or piece.is_empty or piece.offset >= stepped_back_from:
                idle += 1
                if idle > MOST_IDLE:
                    raise PagingError(
                        f"{MOST_IDLE} pages in a row around offset {piece.offset} brought nothing new: the server "
                        "ignores `offset`, repeats a page or changes its list too fast to be read; nothing was replaced"
                    )
            if piece.first is None and not piece.is_empty and joined_at >= 0:
                piece = yield from self._read_stable_group(joined_at, frontier)
            elif not joins:
                stepped_back_from = max(stepped_back_from, piece.offset)
                back = ceil(max(self._longest, 2) / 2) * 2 ** max(idle - 1, 0)
                piece = yield from self._request(max(0, piece.offset - back))
            elif self._may_be_last(piece) and (yield from self._ends_here(piece)):
                piece = piece._replace(reach=LIST_END)
            elif piece.overlap <= piece.offset and not piece.is_empty:
                stepped_back_from = 0  # a group is not on the way back down, so a lack of progress counts again
                piece = yield from self._read_stable_group(piece.offset, frontier)
            else:
                piece = yield from self._request(*self._next_page(piece, floor))

    @property
    def _step(self) -> int:
        """Distance between the offsets of pages of which each repeats the last two records of the one before."""
        return max(self._longest - 2, 1)

    @property
    def _knows_page_length(self) -> bool:
        """Whether a full page was seen: as long as requested, or two equally long ones (one may be the whole list)."""
        return self._longest >= self._limit or self._longest_pages > 1

    def _next_page(self, piece: Piece, floor: int) -> tuple[int, tuple[PageRequest, ...]]:
        """Return the offset of the page after `piece`, and the requests after it that are worth having in flight.

        The offset is the overlap, or the multiple of the step just before it if that still leads forward. Pages in
        flight begin at such multiples, so they stay useful when several sessions start at the same time. There are
        `in_flight` besides the next one, fewer if the window needs fewer: a slow page must leave no thread idle.
        """
        on_grid = piece.overlap // self._step * self._step
        offset = on_grid if on_grid > piece.offset else piece.overlap
        if not self._knows_page_length or piece.first is None or piece.last is None:
            return offset, ()
        pages_left = max(piece.last - floor, 0) // max(piece.first - piece.last, 1) + 1
        # Twice the estimate, which a page that spans a quiet weekend makes too low.
        numbers = range(offset // self._step + 1, offset // self._step + 1 + min(self._in_flight, 2 * pages_left))
        return offset, tuple(PageRequest(self._limit, offset=self._step * number) for number in numbers)

    def _request(self, offset: int, prefetch: tuple[PageRequest, ...] = ()) -> Generator[PageRequest, Page, Piece]:
        self._page = page = yield PageRequest(self._limit, offset=offset, prefetch=prefetch)
        count = len(page.records)
        if count > self._longest:
            self._longest, self._longest_pages = count, 0
        self._longest_pages += count == self._longest
        self.highest_known = max(self.highest_known, offset + count - 1 if count else -1)
        return self._place(page.records, offset)

    def _place(self, records: Sequence[Record], offset: int, *, is_end: bool = False) -> Piece:
        piece = Piece.of(records, offset, undated_key=self._undated_key, is_end=is_end)
        if offset == 0 and piece.first is not None and piece.first < UNDATED_FIRST:
            self._undated_key = UNDATED_LAST
        return piece

    def _may_be_last(self, piece: Piece) -> bool:
        return piece.end - piece.offset < self._longest or not self._knows_page_length

    def _ends_here(self, piece: Piece) -> Generator[PageRequest, Page, bool]:
        """Whether an empty page follows `piece`, the latest page; insertions may have pushed its records behind it."""
        end, ids = piece.end, self._page.identities
        while not piece.is_empty and (behind := (yield PageRequest(1, include_stats=False, offset=end))).records:
            if behind.identities[0] not in ids or end - piece.end > self._limit:
                self._longest, self._longest_pages = piece.end - piece.offset, 1  # the server has lowered its cap
                return False
            end = piece.end + 2 * (end - piece.offset - ids.index(behind.identities[0]))
        if end > piece.end:
            # Only the page's own last records may lie between. If they fill a page, a cap may hide others behind them.
            moved = (yield PageRequest(self._limit, include_stats=False, offset=piece.end)).identities
            if len(moved) >= len(ids) or moved != ids[-len(moved) :]:
                return False
        elif not piece.is_empty:
            # Deletions may have moved up records that a lowered cap had cut off, to `end - 1` or next to it.
            last = yield PageRequest(self._limit, include_stats=False, offset=end - 1)
            if not last.records or not set(last.identities) <= set(ids):
                return False
        if self.highest_known >= end:
            # An empty page above records that are still there is not the end.
            if piece.is_empty or (yield from self._probe(self.highest_known)) != LIST_END:
                return False
            self.highest_known = end - 1
        return True

    def _read_stable_group(self, offset: int, frontier: int) -> Generator[PageRequest, Page, Piece]:
        """Read a group of equal start times until two readings in a row agree, or one page holds all of it."""
        before = None
        for _ in range(MOST_GROUP_READINGS):
            reading = yield from self._read_group(offset, frontier)
            if reading is not None and (reading == before or reading[1] == self._page.identities):
                return reading[0]
            before = reading
        raise PagingError(
            f"The list of sessions kept changing around offset {offset} during {MOST_GROUP_READINGS} readings; "
            "nothing was replaced, run it again when the workspace is quieter"
        )

    def _read_group(self, offset: int, frontier: int) -> Generator[PageRequest, Page, tuple[Piece, list[str]] | None]:
        """Read pages from `offset` until one passes the frontier or ends the list; return them as one, with their ids.

        None if the list has changed: then a page does not begin with the last record of the one before.
        """
        start, joined, last = offset, dict[str, Record](), ""
        while True:
            piece = yield from self._request(offset)
            if piece.is_empty and not joined:
                return piece, []  # deletions have moved the whole group up: the caller looks for it further up
            # A record that is on the page twice counts twice, because offsets count records, not sessions.
            ids = self._page.identities
            if last and len(ids) > 1 and ids[0] != last:
                return None
            is_new = not joined.keys() >= set(ids)
            joined |= zip(ids, self._page.records, strict=True)
            passed = piece.last is not None and piece.last < frontier
            may_be_end = self._may_be_last(piece) or not is_new
            if passed or (may_be_end and (yield from self._ends_here(piece))):
                return self._place(tuple(joined.values()), start, is_end=not passed), list(joined)
            if not is_new:
                return None
            last = ids[-1]
            offset += max(1, len(ids) - 1)

    def _offset_before(self, key: int, low: int, likely: int = 0) -> Generator[PageRequest, Page, int]:
        """Find an offset at most a step before the first session that sorts below `key`; a hint, as the list changes.

        Growing strides from `low`, or from `likely` if it is higher, find one past it; the range between is quartered.
        """
        start, stride = (likely, max(self._step // 3, 1)) if likely > low else (low + self._limit, self._limit)
        high = strides = 0  # none found, none tried
        while not high or high - low > self._step:
            if not high:
                offsets = [start + stride * (STRIDE_GROWTH**n - 1) for n in range(strides, strides + PROBES)]
                strides += PROBES
            else:
                offsets = sorted({low + (high - low) * (n + 1) // (PROBES + 1) for n in range(PROBES)} - {low})
            for number, offset in enumerate(offsets):
                if (yield from self._probe(offset, offsets[number + 1 :])) < key:
                    high = offset
                    break
                low = max(low, offset)
        return low

    def _probe(self, offset: int, prefetch: Sequence[int] = ()) -> Generator[PageRequest, Page, int]:
        """Read the sort key at an offset, from a page of one record. An unreadable key counts as above the window."""
        if offset > MOST_SESSIONS:
            raise PagingError(
                "The server ignores `offset`, as its list of sessions has no end; nothing was replaced, "
                "check that LANGSMITH_ENDPOINT is the LangSmith API"
            )
        first, *others = [PageRequest(1, include_stats=False, offset=at) for at in (offset, *prefetch)]
        page = yield first._replace(prefetch=tuple(others))
        if not page.records:
            return LIST_END
        self.highest_known = max(self.highest_known, offset)
        key = Piece.of(page.records, offset, undated_key=self._undated_key).first
        return UNDATED_FIRST if key is None else key
