"""One way down a list whose pages come by cursor. Pure."""

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.page import LIST_END, UNDATED_FIRST, UNDATED_LAST, Ask, Page, Piece, sort_keys
from sessions_pipeline.validation.records import Record

# Pages in a row of one walk that bring nothing new.
TRIES = 12
# Ten million sessions: more than any workspace has, so the list has no end.
MOST_PAGES = 100_000
TOP = UNDATED_FIRST + 1


class Walk:
    """Pages of one size, each asked for with the cursor of the page before.

    `ask` is the page that follows; `lowest` the sort key that the walk has come down to. `seen` has the sort keys of
    the sessions that it saw, but for those that `forget` dropped; `begins` names the first session of each page.
    """

    def __init__(self, ask: Ask, *, most_pages: int = MOST_PAGES) -> None:
        """After `most_pages` pages the list counts as endless."""
        self.ask = ask
        self.lowest = TOP
        self.is_ended = False
        self.seen: dict[str, int] = {}
        self.begins: set[str] = set()
        self._most_pages = most_pages
        self._pages = 0
        self._cursors: set[str] = set()
        self._at_lowest: set[str] = set()
        self._idle = 0
        self._before = TOP  # the first key of the page before

    def take(self, page: Page) -> Piece:
        """Go on to the page; where it lies.

        Raises:
            PagingError: the page is not sorted, or the walk does not get on.
        """
        undated_key = UNDATED_FIRST if self.lowest >= UNDATED_FIRST else UNDATED_LAST
        is_end = page.next_cursor is None
        piece = Piece.of(page.records, self._pages, undated_key=undated_key, is_end=is_end)
        placed = list(zip(map(_name, page.records), sort_keys(page.records, undated_key), strict=True))
        if self._pages:
            # The list's beginning is no place at which a page could have ended.
            self.begins.update(name for name, _ in placed[:1])
        self.seen.update((name, key) for name, key in placed if key is not None)
        self._pages += 1
        self._idle = 0 if self._gets_on(placed) else self._idle + 1
        if is_end and self._idle and piece.first is not None and piece.first >= self._before:
            raise PagingError(
                "The API ends its list of sessions with a page that was read already; nothing was replaced"
            )
        self._before = piece.first or TOP
        if page.next_cursor is None:
            self.is_ended, self.lowest = True, LIST_END
        else:
            self._go_on(page.next_cursor)
        return piece

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

    def _go_on(self, cursor: str) -> None:
        if cursor in self._cursors:
            raise PagingError("The API's cursor leads back to a page that was read already; nothing was replaced")
        if self._idle > TRIES or self._pages > self._most_pages:
            raise PagingError(
                f"The API's cursor leads on, but {self._idle or self._pages} pages in a row brought "
                f"{'nothing new' if self._idle else 'no end of the list'}; nothing was replaced"
            )
        self._cursors.add(cursor)
        self.ask = self.ask._replace(cursor=cursor)


def _name(record: Record) -> str:
    """What tells a record in all walks; the text won't do, as it differs with the stats."""
    return record.session_id.lower() if record.session_id else record.start_time or ""
