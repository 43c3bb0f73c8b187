"""Feedback statistics of sessions, from JSON objects by key to one row per session, scope and key.

The statistics are free-form in the API's schema; their usual fields are those of `SessionFeedbackStat` in the official
client: `n`, `avg`, `stdev`, `errors`, `values`. What is missing or does not fit is null, never an error.
"""

from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from sessions_pipeline.tables.table import DATASET, TENANT, Table, count, number, registered, text
from sessions_pipeline.validation.arrays import (
    double_array,
    few_texts_array,
    int64_array,
    number_array,
    text_array,
    utf8_array,
)

SESSION_FEEDBACK = registered(
    Table(
        "session_feedback",
        "One row per session, scope and feedback key.",
        (
            text("session_id", "The session, canonical UUID", nullable=False),
            TENANT,
            DATASET,
            text(
                "scope",
                "`run`: feedback on its runs; `session`: feedback on the session itself",
                nullable=False,
                repeats=True,
            ),
            text("feedback_key", "The feedback's name, such as `correctness`", nullable=False, repeats=True),
            count("count", "How many feedbacks"),
            number("average", "Their average score"),
            number("standard_deviation", "Their standard deviation"),
            count("errors", "How many evaluations failed"),
            text(
                "values",
                "Counts by value for categorical feedback, JSON text as sent; may hold private data",
                long_text=True,
            ),
        ),
        order=("session_id", "scope", "feedback_key"),
        group="insight",
    )
)

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


_COLUMN_FITS = msgspec.json.Decoder(list[dict[str, _Stats] | None])
_ALL_FIT = msgspec.json.Decoder(dict[str, _Stats])
_RAW_BY_KEY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STATS = msgspec.json.Decoder(_Stats)
_COUNT = msgspec.json.Decoder(int)
_NUMBER = msgspec.json.Decoder(float)
_INT64 = range(-(2**63), 2**63)


def session_feedback(sessions: pa.Table) -> pa.Table:
    """The table `session_feedback` of the given sessions, which have at least the columns `NEEDED`."""
    sessions = sessions.select(list(NEEDED)).sort_by("id")
    found = [_decoded_column(sessions.column(column).to_pylist()) for _, column in _SCOPES]
    owners, scopes, keys = array("q"), array("b"), list[str]()
    stats: list[_Stats] = []
    for owner, of_session in enumerate(zip(*found, strict=True)):
        for scope, by_key in enumerate(of_session):
            if by_key:
                # Sorted by session, scope and key, the rows are in the table's order.
                ordered = sorted(by_key)
                owners.extend([owner] * len(ordered))
                scopes.extend([scope] * len(ordered))
                keys += ordered
                stats += map(by_key.__getitem__, ordered)
    rows = map(msgspec.structs.astuple, stats)
    numbers, averages, deviations, errors, values = zip(*rows, strict=True) if stats else [()] * 5
    columns = [
        *sessions.select(["id", "tenant_id", "reference_dataset_id"]).take(number_array(owners)).columns,
        text_array([scope for scope, _ in _SCOPES]).take(number_array(scopes)),
        few_texts_array(keys),
        _counts(numbers),
        double_array(averages),
        double_array(deviations),
        _counts(errors),
        utf8_array([b"" if text == b"null" else text for text in map(bytes, values)]),
    ]
    return pa.Table.from_arrays(columns, schema=SESSION_FEEDBACK.schema)


def _decoded_column(texts: Sequence[str | None]) -> Sequence[Mapping[str, _Stats] | None]:
    """The statistics by key of each text: all in one go where they are as they should be, which is ten times faster."""
    with suppress(msgspec.DecodeError, UnicodeEncodeError):
        column = _COLUMN_FITS.decode("[" + ",".join([text or "null" for text in texts]) + "]")
        if len(column) == len(texts):
            return column
    return [None if text is None else _by_key(text) for text in texts]


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
