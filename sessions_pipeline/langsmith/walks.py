"""One way down a list whose pages come by cursor, and when two such ways saw the same. Pure."""

from collections import deque
from collections.abc import Sequence
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
from sessions_pipeline.validation.records import Record

# Pages in a row of one walk that bring nothing new.
TRIES = 12
# Ten million sessions: more than any workspace has, so the list has no end.
MOST_PAGES = 100_000
TOP = UNDATED_FIRST + 1


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

    def expected(self) -> tuple["CursorAsk", ...]:
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

    def __init__(self, size: int, *, include_stats: bool, ids: tuple[str, ...], most_pages: int) -> None:
        self.size = size
        self.lowest = TOP
        self.is_ended = False
        self.pages = 0
        self.trail: deque[_Step] = deque()
        self._include_stats = include_stats
        self._ids = ids
        self._most_pages = most_pages
        self._cursor: str | None = None
        self._cursors: set[str] = set()
        self._at_lowest: set[str] = set()
        self._idle = 0
        self._before = TOP  # the first key of the page before

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
        self._before = piece.first or TOP
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
        if self._idle > TRIES or self.pages > self._most_pages:
            raise PagingError(
                f"The API's cursor leads on, but {self._idle or self.pages} pages in a row brought "
                f"{'nothing new' if self._idle else 'no end of the list'}; nothing was replaced"
            )
        self._cursors.add(cursor)
        self._cursor = cursor


def agree(walks: Sequence[Walk], low: int, *, on_ties: bool) -> bool:
    """Whether walks saw the same sessions down to a sort key, each two neighbours of them within a page of some walk.

    The order of equal start times is not stable, so that neighbours say less there.
    """
    keys = [step.key for step in walks[0].trail if step.key >= low]
    if not on_ties and len(set(keys)) < len(keys):
        return False
    seen = [[step.name for step in walk.trail if step.key > low] for walk in walks]
    begun = [{step.name for step in walk.trail if step.key >= low and step.begins_page} for walk in walks]
    return all(names == seen[0] for names in seen) and not set.intersection(*begun)


def _name(record: Record) -> str:
    """What tells a record in all walks; the text won't do, as it differs with the stats."""
    return record.session_id.lower() if record.session_id else record.start_time or ""
