"""What datasets are called. The API's sessions hold only ids, so a name is what experiments say of themselves. Pure."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.validation.arrays import text_array

NEEDED = ("reference_dataset_id", "extra")
# Where evaluation code commonly leaves the dataset's name in `extra.metadata`.
KEYS = ("dataset_name", "dataset")


class _Extra(msgspec.Struct):
    metadata: dict[str, Any] | None = None


_EXTRA = msgspec.json.Decoder(_Extra)


def dataset_names(days: Iterable[pa.Table]) -> dict[str, str]:
    """Names by dataset id, from tables with the columns `NEEDED`; the first table that tells one counts."""
    names: dict[str, str] = {}
    for sessions in days:
        experiments = sessions.filter(pc.is_valid(sessions.column("reference_dataset_id")))
        unnamed = pc.invert(pc.is_in(experiments.column("reference_dataset_id"), text_array(list(names))))
        # Most experiments say nothing of it, and decoding all in vain takes 2 us each.
        telling = pc.match_substring(experiments.column("extra"), '"dataset')
        rows = experiments.filter(pc.and_(unnamed, telling))
        ids, extras = (rows.column(name).to_pylist() for name in NEEDED)
        for dataset, extra in zip(ids, extras, strict=True):
            if dataset not in names and extra is not None and (name := _name(extra)):
                names[dataset] = name
    return names


def _name(extra: str) -> str | None:
    try:
        metadata = _EXTRA.decode(extra).metadata or {}
    except msgspec.DecodeError:
        return None
    return next((metadata[key] for key in KEYS if isinstance(metadata.get(key), str) and metadata[key]), None)
