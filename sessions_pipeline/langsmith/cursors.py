"""Decides which pages to read by cursor, and when they prove a window of start times complete. Pure: does no I/O.

A cursor only leads forwards, and pages do not overlap: if a session is deleted between two requests, another may move
up from the next page onto one that was already read, and is missed. So the list is walked twice at the same time:

1. The main walk reads the sessions. A second walk, the witness, reads without the costly stats and in pages of another
   size. Then the page breaks of one walk lie within pages of the other, and a page proves its interior (see `page`).
2. Sessions that only a witness has seen were missed by the main walk, and are read by id.
3. If page breaks of both lie too close together to prove anything, another witness begins, with yet another size.
4. If no other size is left, walks that saw the same sessions are believed, unless they have a page break in common,
   among these sessions or right below them: all may have missed a session there. An empty page at the list's end is a
   break if the page before it was full. A group of equal start times that is larger than a page is read in this way.
"""

from collections.abc import Generator
from itertools import combinations
from operator import attrgetter

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith import batches
from sessions_pipeline.langsmith.page import LIST_END, UNDATED_FIRST, UNDATED_LAST, Page, PageRequest, Piece, sort_keys
from sessions_pipeline.langsmith.records import Record
from sessions_pipeline.validation.rules import IS_UUID

# Pages in a row of one walk that bring nothing new, before giving up.
MOST_IDLE = 12
TOP = UNDATED_FIRST + 1


class Walk:
    """One pass down the list in pages of one size, each requested with the cursor of the page before.

    `request` is the one for the next page, `lowest` the lowest sort key reached. `seen` maps each session seen to its
    sort key, without those that `forget` dropped. `first_ids` holds the first session of each page after the first.
    `longest` is the length of the longest page, as a server may return fewer sessions than requested.
    """

    def __init__(self, request: PageRequest) -> None:
        """Begin with `request`."""
        self.request = request
        self.lowest = TOP
        self.is_ended = False
        self.seen: dict[str, int] = {}
        self.first_ids: set[str] = set()
        self._pages = 0
        self._at_lowest: set[str] = set()
        self._idle = 0
        self._previous_first = TOP  # first sort key of the page before
        self.longest = self._latest_length = 0  # the latter is the length of the latest page that was not empty
        self._ends_with_break = False  # an empty page ended the list after a full one: a session may be missed between

    def take(self, page: Page) -> Piece:
        """Add `page` to the walk and return its place on the time line.

        Raises:
            PagingError: the page is not sorted, or the walk makes no progress.
        """
        undated_key = UNDATED_FIRST if self.lowest >= UNDATED_FIRST else UNDATED_LAST
        is_end = not page.next_cursor
        piece = Piece.of(page.records, self._pages, undated_key=undated_key, is_end=is_end)
        placed = list(zip(map(_stable_identity, page.records), sort_keys(page.records, undated_key), strict=True))
        if self._pages:
            # Not for the first page: nothing can be missed before the list's beginning.
            self.first_ids.update(id_ for id_, _ in placed[:1])
        self.seen.update((id_, key) for id_, key in placed if key is not None)
        # A list of one or two sessions is believed: with any smaller page size, all its pages would be full.
        self._ends_with_break = not placed and self._latest_length == self.longest > (2 if self._pages == 1 else 0)
        self._latest_length = len(placed) or self._latest_length
        self.longest = max(self.longest, self._latest_length)
        self._pages += 1
        self._idle = 0 if self._makes_progress(placed) else self._idle + 1
        if is_end and self._idle and piece.first is not None and piece.first >= self._previous_first:
            raise PagingError(
                "The API ends its list of sessions with a page that was read already; nothing was replaced"
            )
        self._previous_first = piece.first or TOP
        if not page.next_cursor:
            self.is_ended, self.lowest = True, LIST_END
        elif self._idle > MOST_IDLE:
            raise PagingError(
                f"The API's cursor leads on, but {self._idle} pages in a row brought nothing new; nothing was replaced"
            )
        self.request = self.request._replace(cursor=page.next_cursor)
        return piece

    def page_breaks(self, low: int) -> set[str]:
        """First sessions of pages, and `""` if the next sort key at or below `low`, or the end, is at a page break."""
        below = max((key for key in self.seen.values() if key <= low), default=None)
        begins = any(key == below for id_, key in self.seen.items() if id_ in self.first_ids)
        is_break = self._ends_with_break if below is None else begins
        return (self.first_ids & self.seen.keys()) | ({""} if is_break else set())

    def forget(self, frontier: int) -> None:
        """Drop the sessions seen above a sort key."""
        self.seen = {id_: key for id_, key in self.seen.items() if key <= frontier}

    def _makes_progress(self, placed: list[tuple[str, int | None]]) -> bool:
        """Whether the page leads further down, or has new sessions of the lowest start time so far."""
        progress = False
        for id_, key in placed:
            if key is not None and key < self.lowest:
                self.lowest, self._at_lowest, progress = key, {id_}, True
            elif key in (None, self.lowest) and id_ not in self._at_lowest:
                self._at_lowest.add(id_)
                progress = True
        return progress


def _stable_identity(record: Record) -> str:
    """A key that is the same in all walks. The record's text would not be: it differs with the stats."""
    return (record.session_id or record.start_time or "").lower()


# Page sizes of the witnesses, as shares of the longest page: close to it, so that requests are few, and with few common
# multiples, so that page breaks rarely coincide.
WITNESS_SHARES = (0.97, 0.89, 0.79, 0.71, 0.61)


class CursorReader:
    """Requests the pages that prove a window complete, newest first, and reads the undated sessions on the way.

    `read()` is a generator that yields each `PageRequest` and must be sent its `Page`. `frontier` is the start time, in
    microseconds since the epoch, above which the window is proven complete and was on pages with stats.
    """

    def __init__(self, *, start_us: int, end_us: int, page_size: int) -> None:
        """A window from `start_us` (inclusive) to `end_us` (exclusive), microseconds since the epoch."""
        self.start_us = start_us
        self.frontier = TOP
        self.highest_known = -1  # as offsets are never used
        self._end_us = end_us
        self._main = Walk(PageRequest(page_size))
        self._walks = [self._main]
        self._shares = iter(WITNESS_SHARES)
        self._pieces: list[Piece] = []  # pages that may still prove something
        self._proven = TOP  # sort key above which everything is proven, perhaps by a witness alone

    def read(self) -> Generator[PageRequest, Page, None]:
        """Read the window and everything newer, since a cursor can only start at the top of the list."""
        while not self._is_done:
            walk = self._next_walk()
            if walk is not None:
                page = yield walk.request._replace(prefetch=self._next_requests)
                self._pieces.append(walk.take(page))
                walk.forget(self.frontier)
                self._advance()
            elif not (self._begin_witness() or self._walks_agree()):
                raise PagingError(
                    f"The list of sessions kept changing during {len(self._walks)} readings, or its pages of "
                    f"{self._longest} are too short to prove it; nothing was replaced, run it again when it is quieter"
                )
            if self._reached < self.frontier:
                yield from self._read_lost()
                self.frontier = self._reached
                for walk in self._walks:
                    walk.forget(self.frontier)

    @property
    def _longest(self) -> int:
        return max(walk.longest for walk in self._walks)

    @property
    def _reached(self) -> int:
        """The sort key above which everything is proven and the main walk, perhaps behind its witness, has passed."""
        return max(self._proven, self._main.lowest)

    @property
    def _is_done(self) -> bool:
        # Once the undated sessions at the list's end are reached, all of them are read.
        return self._reached < self.start_us and self._reached != UNDATED_LAST

    def _next_walk(self) -> Walk | None:
        """The walk to continue: the first two side by side, a further witness only where these two are not enough."""
        behind = [walk for walk in self._walks if not walk.is_ended and walk.lowest >= self._reached]
        pair = [walk for walk in behind if walk in self._walks[:2]]
        by_lowest = attrgetter("lowest")
        return max(pair, key=by_lowest) if pair else min(behind, key=by_lowest, default=None)

    @property
    def _next_requests(self) -> tuple[PageRequest, ...]:
        """The next requests of the first two walks."""
        return tuple(walk.request for walk in self._walks[:2] if not walk.is_ended and walk.lowest >= self.start_us)

    def _advance(self) -> None:
        """Move `_proven` down as far as the pages prove."""
        before = None
        while self._proven != before:
            before = self._proven
            for piece in self._pieces:
                self._proven = piece.lowered(self._proven)
            if self._end_us <= self._proven < UNDATED_FIRST:
                # Sessions newer than the window need no proof.
                self._proven = self._end_us - 1
        self._pieces = [piece for piece in self._pieces if piece.reach is not None and piece.reach < self._proven]

    def _begin_witness(self) -> bool:
        """Begin a walk with smaller pages; whether there was a smaller size left."""
        share, previous_size = next(self._shares, None), self._walks[-1].request.limit
        size = 0 if share is None else min(max(int(self._longest * share), 1), previous_size - 1)
        if size > 0:
            self._walks.append(Walk(PageRequest(size, include_stats=False)))
        return size > 0

    def _walks_agree(self) -> bool:
        """Whether walks without a common page break saw the same sessions; then what they have passed is proven."""
        for number in range(2, len(self._walks) + 1):
            for group in combinations(self._walks, number):
                low = max(walk.lowest for walk in group)
                seen = [{id_ for id_, key in walk.seen.items() if key > low} for walk in group]
                common_breaks = set.intersection(*(walk.page_breaks(low) for walk in group))
                if not common_breaks and all(ids == seen[0] for ids in seen):
                    self._proven = low
                    return True
        return False

    def _read_lost(self) -> Generator[PageRequest, Page, None]:
        """Read by id the proven sessions that only witnesses saw. Those not returned have been deleted meanwhile."""
        seen = {id_ for walk in self._walks for id_, key in walk.seen.items() if key > self._reached}
        ids = sorted(filter(IS_UUID.fullmatch, seen - self._main.seen.keys()))
        for batch in batches(ids):
            walk = Walk(self._main.request._replace(cursor=None, ids=batch))
            while not walk.is_ended:
                walk.take((yield walk.request))
