"""Spent money stays spent: which state of a session its stats come from, and which states may be deleted. Pure.

Retention deletes traces after 14 or 400 days. From then on the API reports lower numbers for their session, or none.
Such numbers never replace the ones that were read before.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

# How long the API keeps traces, by the session's tier; an unknown tier counts as short-lived.
LONGLIVED = timedelta(days=400)
SHORTLIVED = timedelta(days=14)
USED = ("total_tokens", "prompt_tokens", "completion_tokens", "total_cost", "prompt_cost", "completion_cost")
"""If no run is counted, a known amount other than zero in any of these shows that the session had runs."""
STATS = (
    "run_count",
    *USED,
    "latency_p50",
    "latency_p99",
    "first_token_p50",
    "first_token_p99",
    "error_rate",
    "streaming_rate",
    "feedback_stats",
    "session_feedback_stats",
    "run_facets",
    # Explains null costs, so it must come from the same state as the costs.
    "problems",
)
"""The columns of `sessions` that retention empties."""


class SessionState(NamedTuple):
    """One state of a session, from one raw row.

    `row`: the index of the raw row. `read_at`: when its reading began. `runs`: see `known_runs`; 0 if the row was
    rejected, so that it never replaces the numbers of a valid one.
    """

    row: int
    read_at: datetime
    runs: int
    tier: str | None
    start_time: datetime | None


def known_runs(run_count: int | None, used: Iterable[object]) -> int:
    """The run count; if it is unknown or zero, 1 if any of the `used` amounts is known and not zero, else 0."""
    return max(run_count or 0, int(any(used)))


def stats_of(states: Sequence[SessionState]) -> tuple[SessionState, bool]:
    """The state that a session's stats come from, and whether they have shrunk although retention can't explain it.

    `states`: the session's states, oldest first; the newest was not rejected. Usually it is the source.
    """
    sources = _sources(states)
    has_shrunk = sources[-1].runs < max(state.runs for state in sources)
    return sources[-1], has_shrunk and not _is_past_retention(states[-1])


def _sources(states: Sequence[SessionState]) -> list[SessionState]:
    """Those of the states that stats have come from, in this order; the stats now come from the last one.

    A state with fewer runs than the source does not become one if retention explains the difference: no runs are left,
    or the session is older than its tier's retention time. Otherwise the lower number is a correction, and counts from
    then on, also when retention empties the session later.
    """
    sources = [*states[:1]]
    for state in states[1:]:
        if state.runs >= sources[-1].runs or (state.runs and not _is_past_retention(state)):
            sources.append(state)
    return sources


def _is_past_retention(state: SessionState) -> bool:
    tier = (state.tier or "").lower().replace("_", "")
    retention = LONGLIVED if tier == "longlived" else SHORTLIVED
    return state.start_time is not None and state.read_at - state.start_time >= retention


def superseded(states: Sequence[SessionState], before: datetime) -> set[int]:
    """The raw rows that may be deleted: those of states that no result since the time `before` depends on.

    `states`: all states of one session, oldest first. Kept are all states read after `before`, the newest one until
    then and, of the `_sources` until then, the last one, each earlier one with more runs than any that follows, and the
    successor of each of those, which corrected it. So the day's tables stay the same, now and as of any time since
    `before`.
    """
    old = [state for state in states if state.read_at <= before]
    sources, needed, most = _sources(old), set[int](), -1
    # The first pair is the last source and the newest state.
    for state, successor in reversed(list(zip(sources, [*sources[1:], *old[-1:]], strict=True))):
        if state.runs > most:
            most = state.runs
            needed |= {state.row, successor.row}
    return {state.row for state in old} - needed
