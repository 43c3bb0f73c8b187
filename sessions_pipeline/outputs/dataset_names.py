"""What datasets are called. The API's sessions hold only ids, so a name is what experiments say of themselves."""

import json
from collections.abc import Sequence
from datetime import date

import pyarrow.compute as pc

from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.tables import SESSIONS

# Names are looked for in this many of the latest days.
MOST_DAYS = 7
# Where evaluation code commonly leaves the dataset's name in `extra.metadata`.
_KEYS = ("dataset_name", "dataset")


def dataset_names(lake: Lake, days: Sequence[date]) -> dict[str, str]:
    """Datasets' names by id; of several names the latest day's counts.

    Raises:
        LakeError: a file can't be read.
    """
    names: dict[str, str] = {}
    for day in [day for day in sorted(days, reverse=True) if lake.has(SESSIONS, day)][:MOST_DAYS]:
        sessions = lake.read(SESSIONS, day, ("reference_dataset_id", "extra"))
        # Most sessions do not say it, and decoding all of them in vain takes 2 us each.
        named = sessions.filter(
            pc.and_(pc.is_valid(sessions.column(0)), pc.match_substring(sessions.column("extra"), '"dataset'))
        )
        for dataset, extra in zip(*(named.column(name).to_pylist() for name in sessions.column_names), strict=True):
            if dataset not in names and (name := _name(extra)):
                names[dataset] = name
    return names


def _name(extra: str) -> str | None:
    try:
        # Integers may have more digits than Python converts.
        metadata = json.loads(extra, parse_int=str).get("metadata")
    except (ValueError, RecursionError, AttributeError):
        return None
    found = (metadata.get(key) for key in _KEYS) if isinstance(metadata, dict) else ()
    return next((name for name in found if isinstance(name, str) and name), None)
