"""Feedback statistics of sessions, from JSON objects by key to one row per session, scope and key.

The statistics are free-form in the API's schema; their usual fields are those of `SessionFeedbackStat` in the official
client: `n`, `avg`, `stdev`, `errors`, `values`. What is missing or does not fit is null, never an error.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import in_parts
from sessions_pipeline.tables.sessions import SESSIONS
from sessions_pipeline.tables.table import DayTables, Table, derived

SESSION_FEEDBACK = Table(
    "session_feedback",
    "One row per session, scope and feedback key.",
    (
        column.text("session_id", "The session, canonical UUID", nullable=False),
        column.TENANT,
        column.DATASET,
        column.text(
            "scope",
            "`run`: feedback on its runs; `session`: feedback on the session itself",
            nullable=False,
            repeats=True,
        ),
        column.text("feedback_key", "The feedback's name, such as `correctness`", nullable=False, repeats=True),
        column.count("count", "How many feedbacks"),
        column.number("average", "Their average score"),
        column.number("standard_deviation", "Their standard deviation"),
        column.count("errors", "How many evaluations failed"),
        column.text(
            "values",
            "Counts by value for categorical feedback, JSON text as sent; may hold private data",
            long_text=True,
        ),
    ),
    order=("session_id", "scope", "feedback_key"),
    group="insight",
)

_OWNER = ("id", "tenant_id", "reference_dataset_id")
_SCOPES = {"run": "feedback_stats", "session": "session_feedback_stats"}
_NULL = msgspec.Raw(b"null")
_INT64 = range(-(2**63), 2**63)


class _Stats(msgspec.Struct, gc=False):
    n: int | None = None
    avg: float | None = None
    stdev: float | None = None
    errors: int | None = None
    values: msgspec.Raw = _NULL


_FITS = msgspec.json.Decoder(dict[str, _Stats])
_BY_KEY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_WHOLE, _ANY = msgspec.json.Decoder(int), msgspec.json.Decoder(float)
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {"n": _WHOLE, "avg": _ANY, "stdev": _ANY, "errors": _WHOLE}


@derived(SESSION_FEEDBACK, reads={SESSIONS: (*_OWNER, *_SCOPES.values())})
def session_feedback(day: DayTables) -> pa.Table:
    """The feedback of a day's sessions, in the table's order."""
    return in_parts(_feedback, day[SESSIONS].select([*_OWNER, *_SCOPES.values()]), SESSION_FEEDBACK)


def _feedback(sessions: pa.Table) -> pa.Table:
    rows = list(_rows(sessions))
    owners, scopes, keys, stats = zip(*rows, strict=True) if rows else [()] * 4
    columns = [
        *sessions.select(_OWNER).take(pa.array(owners, pa.int64())).columns,
        scopes,
        keys,
        [_count(one.n) for one in stats],
        [_number(one.avg) for one in stats],
        [_number(one.stdev) for one in stats],
        [_count(one.errors) for one in stats],
        [None if one.values == _NULL else bytes(one.values).decode() for one in stats],
    ]
    return pa.table(columns, SESSION_FEEDBACK.schema)


def _rows(sessions: pa.Table) -> Iterator[tuple[int, str, str, _Stats]]:
    """The place of the session, the scope, the key and the statistics of each feedback."""
    texts = (sessions.column(column).to_pylist() for column in _SCOPES.values())
    for place, of_session in enumerate(zip(*texts, strict=True)):
        for scope, stats in zip(_SCOPES, of_session, strict=True):
            for key, one in _by_key(stats).items() if stats is not None else ():
                yield place, scope, key, one


def _by_key(text: str) -> Mapping[str, _Stats]:
    """The statistics by key, most often in one go; nothing where the text is no object."""
    with suppress(msgspec.DecodeError):
        return _FITS.decode(text)
    with suppress(msgspec.DecodeError):
        return {key: _field_by_field(raw) for key, raw in _BY_KEY.decode(text).items()}
    return {}


def _field_by_field(raw: msgspec.Raw) -> _Stats:
    """The statistics that fit, where the object as a whole does not."""
    fitting = _Stats()
    with suppress(msgspec.DecodeError):
        fields = _BY_KEY.decode(raw)
        fitting.values = fields.get("values", _NULL)
        for name, decoder in _DECODERS.items():
            with suppress(msgspec.DecodeError):
                setattr(fitting, name, decoder.decode(fields.get(name, _NULL)))
    return fitting


def _count(value: int | None) -> int | None:
    return value if value is not None and value in _INT64 else None


def _number(value: float | None) -> float | None:
    """Adding zero makes negative zero the zero that it is."""
    return None if value is None else value + 0.0
