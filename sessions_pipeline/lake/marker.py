"""`_lake.json` at the lake's root: the layout's version, and the query that the lake was filled with."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from sessions_pipeline.errors import LakeError, LakeMismatchError
from sessions_pipeline.lake.store import Store

MARKER = "_lake.json"
LAYOUT = 1

Migration = Callable[[Store], None]

MIGRATIONS: dict[int, Migration] = {}
"""By the layout that it starts from: what makes that layout the next one. Each may be run again after a crash."""


def check(store: Store, query: Mapping[str, Any]) -> int | None:
    """The layout of the lake in `store`; None if it has not been written to.

    Raises:
        LakeMismatchError: it was filled with another query, or by a newer version of this package.
        LakeError: the marker can't be read.
    """
    try:
        content = json.loads(store.read(MARKER))
        layout, filled_with = int(content["layout"]), _canonical(content["query"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LakeError(
            f"{store.uri(MARKER)}: broken; put it back from a backup, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere"
        ) from None
    if layout > LAYOUT:
        raise LakeMismatchError(
            f"{store.uri(MARKER)}: layout {layout} is newer than this version's {LAYOUT}; upgrade sessions-pipeline"
        )
    if filled_with != _canonical(query):
        raise LakeMismatchError(
            f"{store.uri(MARKER)}: filled with the query {filled_with}, not {_canonical(query)}; set"
            " SESSIONS_PIPELINE_QUERY as it was, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere"
        )
    return layout


def write(store: Store, query: Mapping[str, Any]) -> None:
    """Say that the lake in `store` has this version's layout and is filled with `query`."""
    content = {"layout": LAYOUT, "query": json.loads(_canonical(query))}
    store.put(MARKER, json.dumps(content, indent=2).encode() + b"\n")


def migrate(store: Store, layout: int) -> None:
    """Bring an older lake to this version's layout, a step at a time.

    Raises:
        LakeError: this version knows no way.
    """
    for version in range(layout, LAYOUT):
        if version not in MIGRATIONS:
            raise LakeError(f"{store.uri(MARKER)}: layout {version} is too old to be migrated; materialize anew")
        MIGRATIONS[version](store)


def _canonical(query: Mapping[str, Any]) -> str:
    """One spelling for one meaning: sorted keys, sorted lists (all of the API's are sets), nothing that is None."""
    spelled = {
        name: sorted(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else value
        for name, value in query.items()
        if value is not None
    }
    return json.dumps(spelled, sort_keys=True, default=str)
