"""Which stored readings may go after a while: old versions of sessions that nothing rests on any more. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa

from sessions_pipeline.tables.readings import Reading
from sessions_pipeline.tables.versions import versions_of
from sessions_pipeline.validation.arrays import flag_array
from sessions_pipeline.validation.validate import validate


def without_superseded(raw: pa.Table, readings: Sequence[Reading], *, before: datetime) -> pa.Table:
    """A day's raw rows without the versions of sessions that another had replaced by the time `before`.

    Kept are all versions since then, the newest one before, those with more runs than all after them up to it, since
    what was spent rests on them, and the version after each of these, which ends the time that they were the newest.
    So the day's tables stay the same, now and as of any time since `before`. The list of readings stays whole.
    """
    if not raw.num_rows:
        return raw
    versions = versions_of(raw, readings)
    several = list(versions.several.values())
    rows = [row for group in several for row in group]
    runs = _runs(raw, rows)
    superseded = {row for group in several for row in _superseded(group, runs, versions.times, before)}
    if not superseded:
        return raw
    return raw.filter(flag_array(bytes(row not in superseded for row in range(raw.num_rows))))


def _superseded(group: Sequence[int], runs: Mapping[int, int], times: Sequence[datetime], before: datetime) -> set[int]:
    old = [row for row in group if times[row] <= before]
    needed = set(old[-1:])
    most = runs.get(old[-1], 0) if old else 0
    for row, successor in reversed(list(pairwise(old))):
        if runs.get(row, 0) > most:
            most = runs[row]
            needed |= {row, successor}
    return set(old) - needed


def _runs(raw: pa.Table, rows: Sequence[int]) -> dict[int, int]:
    """The runs that valid versions tell; one that is rejected has nothing to rest on."""
    judged: pa.Table = validate(raw.column("payload").take(pa.array(rows, pa.int64())).to_pylist()).sessions
    told: Any = zip(judged.column("row").to_pylist(), judged.column("run_count").to_pylist(), strict=True)
    return {rows[index]: count for index, count in told if count is not None}
