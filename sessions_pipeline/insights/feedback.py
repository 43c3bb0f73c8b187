"""Feedback statistics of sessions, from JSON objects by key to one row per session, scope and key.

The statistics are free-form in the API's schema; their usual fields are those of `SessionFeedbackStat` in the official
client: `n`, `avg`, `stdev`, `errors`, `values`. What is missing or does not fit is null, never an error.
"""

from collections.abc import Iterator
from typing import TypeAlias, TypeVar

import msgspec
import pyarrow as pa

from sessions_pipeline.schema.columns import SESSION_FEEDBACK

NEEDED = ("id", "tenant_id", "reference_dataset_id", "feedback_stats", "session_feedback_stats")
"""The columns of `sessions` that feedback is read from."""

_SCOPES = (("run", "feedback_stats"), ("session", "session_feedback_stats"))


_NULL = msgspec.Raw(b"null")
_T = TypeVar("_T")


class _Stats(msgspec.Struct):
    n: int | None = None
    avg: float | None = None
    stdev: float | None = None
    errors: int | None = None
    values: msgspec.Raw = _NULL


_Row: TypeAlias = tuple[str, int | None, float | None, float | None, int | None, str | None]
_FIELDS = ("feedback_key", "count", "average", "standard_deviation", "errors", "values")

_BY_KEY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STATS = msgspec.json.Decoder(_Stats)
_COUNT = msgspec.json.Decoder(int)
_NUMBER = msgspec.json.Decoder(float)
_INT64 = range(-(2**63), 2**63)


def session_feedback(sessions: pa.Table) -> pa.Table:
    """The table `session_feedback` of the given sessions, which have at least the columns `NEEDED`."""
    rows: list[_Row] = []
    parents: list[int] = []
    scopes: list[str] = []
    for scope, column in _SCOPES:
        for parent, text in enumerate(sessions.column(column).to_pylist()):
            if text is not None:
                found = list(_rows(text))
                rows += found
                parents += [parent] * len(found)
                scopes += [scope] * len(found)
    owners = sessions.select(["id", "tenant_id", "reference_dataset_id"]).take(pa.array(parents, pa.int64()))
    columns = list(zip(*rows, strict=True)) or [()] * len(_FIELDS)
    schema = SESSION_FEEDBACK.schema
    stats = [pa.array(values, schema.field(name).type) for name, values in zip(_FIELDS, columns, strict=True)]
    table = pa.Table.from_arrays([*owners.columns, pa.array(scopes, pa.string()), *stats], schema=schema)
    return table.sort_by([(name, "ascending") for name in SESSION_FEEDBACK.order])


def _rows(text: str) -> Iterator[_Row]:
    try:
        by_key = _BY_KEY.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return
    for key, raw in by_key.items():
        try:
            stats = _STATS.decode(raw)
        except msgspec.DecodeError:
            stats = _field_by_field(raw)
        yield key, _int64(stats.n), stats.avg, stats.stdev, _int64(stats.errors), _text(stats.values)


def _field_by_field(raw: msgspec.Raw) -> _Stats:
    """The statistics that fit, where the object as a whole does not."""
    try:
        fields = _BY_KEY.decode(raw)
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


def _int64(value: int | None) -> int | None:
    return value if value is None or value in _INT64 else None


def _text(raw: msgspec.Raw) -> str | None:
    text = bytes(raw).decode()
    return None if text == "null" else text
