"""Where in a list that is paged by offset something lies: probes, each a page of one record. Pure.

Offsets are hints only, as the list changes between two answers.
"""

from collections.abc import Generator, Sequence

from sessions_pipeline.errors import PagingError
from sessions_pipeline.langsmith.page import LIST_END, UNDATED_FIRST, UNDATED_LAST, Ask, Page, Piece

# The search's first strides quadruple: 1,000,000 sessions are crossed by 8 probes.
STRIDE = 4
# Probes asked for together: a third of the requests more than one by one, in half the time.
PROBES = 3
# More sessions than any workspace has: there is none at such an offset.
MOST_SESSIONS = 100_000_000


class Offsets:
    """What is known of a list's offsets.

    `inside` is the highest one known to exist, `beyond` one that was past the end; `undated_key` is where sessions
    without a start time are sorted.
    """

    def __init__(self) -> None:
        self.inside = -1
        self.beyond: int | None = None
        self.undated_key = UNDATED_LAST

    def last_from(self, key: int, *, low: int, step: int, limit: int) -> Generator[Ask, Page, int]:
        """An offset at most `step` before the first session that sorts below `key`; a hint, since the list changes.

        Strides lead from `low`, and `limit` at least, past that session; then the stretch between is quartered.
        """
        high = self.beyond
        while high is None or high - low > step:
            if high is None:
                offsets = [max(low * STRIDE, limit) * STRIDE**n for n in range(PROBES)]
            else:
                offsets = sorted({low + (high - low) * (n + 1) // (PROBES + 1) for n in range(PROBES)} - {low})
            for number, offset in enumerate(offsets):
                if (yield from self.probe(offset, offsets[number + 1 :])) < key:
                    high = offset
                    break
                low = max(low, offset)
        return low

    def probe(self, offset: int, ahead: Sequence[int] = ()) -> Generator[Ask, Page, int]:
        """The sort key at an offset, without the costly stats. One that can't be read counts as before the window.

        Raises:
            PagingError: there is no such offset.
        """
        if offset > MOST_SESSIONS:
            raise PagingError(
                "The server ignores `offset`, as its list of sessions has no end; nothing was replaced, "
                "check that LANGSMITH_ENDPOINT is the LangSmith API"
            )
        asks = [Ask(1, include_stats=False, offset=one) for one in (offset, *ahead)]
        page = yield asks[0]._replace(ahead=tuple(asks[1:]))
        if not page.records:
            self.beyond = offset
            return LIST_END
        self.inside = max(self.inside, offset)
        key = Piece.of(page.records, offset, undated_key=self.undated_key).first
        return UNDATED_FIRST if key is None else key
