"""What was spent stays spent: which of a session's versions its stats come from, and which may be forgotten. Pure.

Retention deletes traces after 14 or 400 days, and the API then reports less, or nothing. Numbers that retention has
emptied never replace those read before.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

# How long the API keeps traces, by the session's tier; an unknown tier counts as the shorter.
LONGLIVED = timedelta(days=400)
SHORTLIVED = timedelta(days=14)
USED = ("total_tokens", "prompt_tokens", "completion_tokens", "total_cost", "prompt_cost", "completion_cost")
"""What shows that a session had runs, where they are not counted."""
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
    # Of the costs, so it comes from where they come from.
    "problems",
)
"""The columns of `sessions` that retention empties."""


class Version(NamedTuple):
    """What one raw row says of its session: `runs` is 1 where uncounted but used, 0 where nothing is known.

    `read_at`: the time of its reading. `is_valid`: the row was not rejected.
    """

    row: int
    read_at: datetime
    runs: int
    tier: str | None
    start_time: datetime | None
    is_valid: bool = True


def known_runs(run_count: int | None, used: Iterable[object]) -> int:
    """How many runs a reading of a session knows of; where they are not counted, 1 if anything was used."""
    return int(any(used)) if run_count is None else run_count


def stats_of(versions: Sequence[Version]) -> tuple[Version, bool]:
    """The version that a session's stats come from, and whether the newest says less than one before for no reason.

    `versions` are the valid ones, oldest first, at least one. The newest says less because traces were deleted, not
    corrected, when it has no runs left, or fewer than before when it is as old as its tier's retention.
    """
    newest = source = versions[-1]
    shrinks = False
    for held in reversed(versions[:-1]):
        if source.runs < held.runs:
            if source.runs == 0 or _is_past_retention(newest):
                source = held
            else:
                shrinks = True
    return source, shrinks


def _is_past_retention(version: Version) -> bool:
    tier = (version.tier or "").lower().replace("_", "")
    kept = LONGLIVED if tier == "longlived" else SHORTLIVED
    return version.start_time is not None and version.read_at - version.start_time >= kept


def superseded(versions: Sequence[Version], before: datetime) -> set[int]:
    """The rows of a session's versions, oldest first, that another had replaced by the time `before`.

    Kept are all versions since then, the newest one before, those with more runs than all after them up to it, since
    what was spent rests on them, and the version after each of these. So the day's tables stay the same, now and as of
    any time since `before`. A version that is rejected has no runs.
    """
    old = [version for version in versions if version.read_at <= before]
    needed = {version.row for version in old[-1:]}
    most = old[-1].runs if old else 0
    for version, successor in reversed(list(pairwise(old))):
        if version.runs > most:
            most = version.runs
            needed |= {version.row, successor.row}
    return {version.row for version in old} - needed
