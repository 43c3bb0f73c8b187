"""Where in a list that is paged by offset something lies: probes, each a page of one record. Pure.

Offsets are hints only, as the list changes between two answers.
"""

from collections.abc import Generator, Sequence
from typing import NamedTuple

from sessions_pipeline.langsmith.coverage import LIST_END, UNDATED_FIRST, UNDATED_LAST, Page, Piece

# The search's first strides quadruple: 1,000,000 sessions are crossed by 8 probes.
STRIDE = 4
# Probes asked for together: a third of the requests more than one by one, in half the time.
PROBES = 3
NOT_KNOWN = 2**62


class OffsetAsk(NamedTuple):
    """A page wanted now, and those that will probably be wanted next."""

    offset: int
    limit: int
    include_stats: bool
    ahead: tuple["OffsetAsk", ...] = ()

    @property
    def is_aside(self) -> bool:
        """Whether pages in flight are still wanted after it: never, so that what it says is newer than they are."""
        return False

    def expected(self) -> tuple["OffsetAsk", ...]:
        """Itself and what will probably be wanted next."""
        return (self._replace(ahead=()), *self.ahead)


class Offsets:
    """What is known of a list's offsets.

    `inside` is the highest one known to exist, `beyond` one that was past the end, `total` how long the list is, as the
    last page says; `undated_key` is where sessions without a start time are sorted.
    """

    def __init__(self) -> None:
        self.inside = -1
        self.beyond: int | None = None
        self.total: int | None = None
        self.undated_key = UNDATED_LAST

    def last_from(self, key: int, *, low: int, step: int, limit: int) -> Generator[OffsetAsk, Page, int]:
        """An offset at most a page before the first session that sorts below `key`; a hint, since the list changes.

        `step` is about a page, `limit` the first offset looked at.
        """
        high = NOT_KNOWN if self.beyond is None else self.beyond
        if high == NOT_KNOWN and self.total is not None and low < self.total:
            low, high = yield from self._narrowed([self.total], key, low, high)
        while high == NOT_KNOWN:
            first = max(low * STRIDE, limit)
            low, high = yield from self._narrowed([first * STRIDE**n for n in range(PROBES)], key, low, high)
        while high - low > step:
            between = {low + (high - low) * (n + 1) // (PROBES + 1) for n in range(PROBES)} - {low}
            low, high = yield from self._narrowed(sorted(between), key, low, high)
        return low

    def _narrowed(
        self, offsets: Sequence[int], key: int, low: int, high: int
    ) -> Generator[OffsetAsk, Page, tuple[int, int]]:
        """`low` and `high` nearer to each other by probes at these offsets, which are in flight together."""
        for number, offset in enumerate(offsets):
            if (yield from self.probe(offset, offsets[number + 1 :])) < key:
                return low, offset
            low = max(low, offset)
        return low, high

    def probe(self, offset: int, ahead: Sequence[int] = ()) -> Generator[OffsetAsk, Page, int]:
        """The sort key at an offset, without the costly stats. One that can't be read counts as before the window."""
        asks = [OffsetAsk(one, 1, include_stats=False) for one in (offset, *ahead)]
        page = yield asks[0]._replace(ahead=tuple(asks[1:]))
        if not page.records:
            self.beyond = offset
            return LIST_END
        self.inside = max(self.inside, offset)
        key = Piece.of(page, undated_key=self.undated_key).first
        return UNDATED_FIRST if key is None else key
