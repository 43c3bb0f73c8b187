"""`_lake.json` at the lake's root: the layout's version, and the query that the lake was filled with.

A lake of an older layout is migrated where it is. First the marker says so, with the new layout and the one to come
`from`, so that older versions refuse the lake from then on; then each step is done; then the marker says that it is
whole. A crash anywhere leaves a lake whose migration the next run does again, from its first step.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from sessions_pipeline.errors import LakeError, LakeMismatchError
from sessions_pipeline.lake.store import Store

MARKER = "_lake.json"

Migration = Callable[[Store], None]

MIGRATIONS: dict[int, Migration] = {}
"""By the layout that it starts from: what makes that layout the next one.

Each is done again after a crash, so it must bear to find its work done in part. It replaces whole objects only.
"""


def layout() -> int:
    """The layout that this version writes."""
    return max(MIGRATIONS, default=0) + 1


def check(store: Store, query: Mapping[str, Any]) -> int | None:
    """The layout of the lake in `store`, or that from which it has still to be migrated; None if it is not there.

    Raises:
        LakeMismatchError: it was filled with another query, or by a newer version of this package.
        LakeError: the marker can't be read.
    """
    try:
        content = json.loads(store.read(MARKER))
        found, filled_with = int(content["layout"]), _canonical(content["query"])
        migrated_from = int(content.get("from", found))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LakeError(
            f"{store.uri(MARKER)}: broken; put it back from a backup, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere"
        ) from None
    if found > layout():
        raise LakeMismatchError(
            f"{store.uri(MARKER)}: layout {found} is newer than this version's {layout()}; upgrade sessions-pipeline"
        )
    if filled_with != _canonical(query):
        raise LakeMismatchError(
            f"{store.uri(MARKER)}: filled with the query {filled_with}, not {_canonical(query)}; set"
            " SESSIONS_PIPELINE_QUERY as it was, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere"
        )
    return migrated_from


def write(store: Store, query: Mapping[str, Any], *, migrated_from: int | None = None) -> None:
    """Say that the lake in `store` has this version's layout, or is about to get it, and is filled with `query`."""
    still = {} if migrated_from is None else {"from": migrated_from}
    content = {"layout": layout(), **still, "query": json.loads(_canonical(query))}
    store.put(MARKER, json.dumps(content, indent=2).encode() + b"\n")


def steps(store: Store, found: int) -> list[Migration]:
    """What brings a lake of an older layout to this version's, in order.

    Raises:
        LakeError: this version knows no way.
    """
    for version in range(found, layout()):
        if version not in MIGRATIONS:
            raise LakeError(f"{store.uri(MARKER)}: layout {version} is too old to be migrated; materialize anew")
    return [MIGRATIONS[version] for version in range(found, layout())]


def _canonical(query: Mapping[str, Any]) -> str:
    """One spelling for one meaning: sorted keys, sorted lists (all of the API's are sets), nothing that is None."""
    spelled = {
        name: sorted(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else value
        for name, value in query.items()
        if value is not None
    }
    return json.dumps(spelled, sort_keys=True, default=str)
