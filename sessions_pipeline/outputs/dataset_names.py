"""What datasets are called: as the API says now, else as experiments say of themselves."""

import difflib
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import TypeAlias

import pyarrow.compute as pc

from sessions_pipeline.errors import UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.tables import REFERENCE_DATASETS, SESSIONS

# Names that the API did not give are looked for in this many of the latest days.
MOST_DAYS = 7
MOST_NAMES = 10
Key: TypeAlias = tuple[str, str]
"""A workspace and a dataset."""


def dataset_names(lake: Lake, keys: AbstractSet[Key], days: Sequence[date]) -> dict[Key, str]:
    """Names of these workspaces' datasets, of which some may have none: those that the API gives.

    For datasets that it gives no name, `extra.metadata.dataset_name` of the latest experiments on the days counts.

    Raises:
        LakeError: a file can't be read.
    """
    listed = lake.load(REFERENCE_DATASETS, None, ("tenant_id", "id", "name"))
    current = {(row["tenant_id"], row["id"]): row["name"] for row in (listed.rows.to_pylist() if listed else ())}
    names = {key: current[key] for key in keys if current.get(key, "").strip()}
    if len(names) < len(keys):
        for day in [day for day in sorted(days, reverse=True) if lake.has(SESSIONS, day)][:MOST_DAYS]:
            for key, name in _said(lake, day):
                if key in keys and key not in names:
                    names[key] = name
    return names


def known_names(lake: Lake, keys: AbstractSet[Key], days: Sequence[date]) -> dict[Key, str]:
    """The same for these datasets and all that the API has listed; one without a name goes by its id."""
    listed = lake.load(REFERENCE_DATASETS, None, ("tenant_id", "id"))
    known = {*keys, *((row["tenant_id"], row["id"]) for row in (listed.rows.to_pylist() if listed else ()))}
    return {key: key[1] for key in known} | dataset_names(lake, known, days)


def dataset_called(wanted: str, names: Mapping[Key, str]) -> str:
    """The id of the dataset that has this name or id.

    Raises:
        UsageError: none has it, or several have; the text says what to write instead.
    """
    ids = sorted({dataset for (_, dataset), name in names.items() if wanted in (name, dataset, dataset.upper())})
    if len(ids) == 1:
        return ids[0]
    instead = ids or difflib.get_close_matches(wanted, names.values(), n=3) or sorted({*names.values()})[:MOST_NAMES]
    raise UsageError(f"{len(ids) or 'no'} datasets are called {wanted!r}; write {' or '.join(instead)}")


def _said(lake: Lake, day: date) -> list[tuple[Key, str]]:
    sessions = lake.read(SESSIONS, day, ("tenant_id", "reference_dataset_id", "extra"))
    # Most sessions do not say it, and decoding all of them in vain takes 2 us each.
    says = pc.match_substring(sessions.column("extra"), '"dataset_name"')
    columns = sessions.filter(pc.and_(pc.is_valid(sessions.column("reference_dataset_id")), says)).to_pydict().values()
    named = [((tenant, dataset), _name(extra)) for tenant, dataset, extra in zip(*columns, strict=True)]
    return [(key, name) for key, name in named if name]


def _name(extra: str) -> str | None:
    try:
        # Integers may have more digits than Python converts.
        name = json.loads(extra, parse_int=str)["metadata"]["dataset_name"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) and name.strip() else None
