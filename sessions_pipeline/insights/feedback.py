"""Feedback statistics of sessions, from JSON objects by key to one row per session, scope and key.

The statistics are free-form in the API's schema; their usual fields are those of `SessionFeedbackStat` in the official
client: `n`, `avg`, `stdev`, `errors`, `values`. What is missing or does not fit is null, never an error.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from sessions_pipeline.schema.arrays import double_array, int64_array, text_array, utf8_array
from sessions_pipeline.schema.columns import SESSION_FEEDBACK

NEEDED = ("id", "tenant_id", "reference_dataset_id", "feedback_stats", "session_feedback_stats")
"""The columns of `sessions` that feedback is read from."""

_SCOPES = (("run", "feedback_stats"), ("session", "session_feedback_stats"))


_NULL = msgspec.Raw(b"null")
_T = TypeVar("_T")


class _Stats(msgspec.Struct, gc=False):
    n: int | None = None
    avg: float | None = None
    stdev: float | None = None
    errors: int | None = None
    values: msgspec.Raw = _NULL


_ALL_FIT = msgspec.json.Decoder(dict[str, _Stats])
_RAW_BY_KEY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STATS = msgspec.json.Decoder(_Stats)
_COUNT = msgspec.json.Decoder(int)
_NUMBER = msgspec.json.Decoder(float)
_INT64 = range(-(2**63), 2**63)


def session_feedback(sessions: pa.Table) -> pa.Table:
    """The table `session_feedback` of the given sessions, which have at least the columns `NEEDED`."""
    sessions = sessions.select(list(NEEDED)).sort_by("id")
    owners: list[int] = []
    scopes: list[str] = []
    keys: list[str] = []
    stats: list[_Stats] = []
    texts = [sessions.column(column).to_pylist() for _, column in _SCOPES]
    for owner, of_session in enumerate(zip(*texts, strict=True)):
        for (scope, _), text in zip(_SCOPES, of_session, strict=True):
            # Sorted by session, scope and key, the rows are in the table's order.
            found = {} if text is None else _by_key(text)
            ordered = sorted(found)
            owners += [owner] * len(found)
            scopes += [scope] * len(found)
            keys += ordered
            stats += map(found.__getitem__, ordered)
    columns = [
        *sessions.select(["id", "tenant_id", "reference_dataset_id"]).take(int64_array(owners, pa.int64())).columns,
        text_array(scopes),
        text_array(keys),
        _counts([one.n for one in stats]),
        double_array([one.avg for one in stats]),
        double_array([one.stdev for one in stats]),
        _counts([one.errors for one in stats]),
        utf8_array([b"" if text == b"null" else text for text in (bytes(one.values) for one in stats)]),
    ]
    return pa.Table.from_arrays(columns, schema=SESSION_FEEDBACK.schema)


def _by_key(text: str) -> Mapping[str, _Stats]:
    """The statistics by key, most often in one go; nothing where the text is no object."""
    try:
        return _ALL_FIT.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        pass
    try:
        return {key: _one_by_one(raw) for key, raw in _RAW_BY_KEY.decode(text).items()}
    except (msgspec.DecodeError, UnicodeEncodeError):
        return {}


def _one_by_one(raw: msgspec.Raw) -> _Stats:
    try:
        return _STATS.decode(raw)
    except msgspec.DecodeError:
        return _field_by_field(raw)


def _field_by_field(raw: msgspec.Raw) -> _Stats:
    """The statistics that fit, where the object as a whole does not."""
    try:
        fields = _RAW_BY_KEY.decode(raw)
    except msgspec.DecodeError:
        return _Stats()
    return _Stats(
        n=_decoded(_COUNT, fields.get("n")),
        avg=_decoded(_NUMBER, fields.get("avg")),
        stdev=_decoded(_NUMBER, fields.get("stdev")),
        errors=_decoded(_COUNT, fields.get("errors")),
        values=fields.get("values", _NULL),
    )


def _decoded(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw | None) -> _T | None:
    try:
        return None if raw is None else decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def _counts(values: Sequence[int | None]) -> "pa.Array[Any]":
    """Numbers that fit 64 bits; null where one does not."""
    try:
        return int64_array(values, pa.int64())
    except OverflowError:
        return int64_array([value if value in _INT64 else None for value in values], pa.int64())
