"""Validation of many records at once."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from sessions_pipeline.validation.batch import judge_batch
from sessions_pipeline.validation.drift import absent_properties


class Validated(NamedTuple):
    """What a batch of records came to."""

    sessions: pa.Table
    rejected: dict[int, tuple[str, ...]]
    drift: Counter[str]
    rounded: int


def validate(payloads: Sequence[str]) -> Validated:
    """Validate records by their JSON text."""
    judged = judge_batch(payloads)
    sessions = judged.sessions.add_column(
        judged.sessions.num_columns - 1,
        pa.field("problems", pa.list_(pa.string())),
        pa.nulls(judged.sessions.num_rows, pa.list_(pa.string())),
    )
    absent = Counter({f"without {name}": sessions.num_rows for name in absent_properties(payloads)})
    return Validated(sessions, judged.rejected, judged.drift + absent, 0)
