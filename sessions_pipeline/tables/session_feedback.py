"""Feedback statistics of sessions, from JSON objects by key to one row per session, scope and key.

The statistics are free-form in the API's schema; their usual fields are those of `SessionFeedbackStat` in the official
client: `n`, `avg`, `stdev`, `errors`, `values`. What is missing or does not fit is null, never an error.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import entries
from sessions_pipeline.tables.sessions import OWNER, SESSIONS
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
    group="experiments",
)

_SCOPES = {"run": "feedback_stats", "session": "session_feedback_stats"}
_NULL = msgspec.Raw(b"null")
_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Stats(msgspec.Struct, gc=False):
    n: _INT64 | None = None
    avg: float | None = None
    stdev: float | None = None
    errors: _INT64 | None = None
    values: msgspec.Raw = _NULL


_FIT = msgspec.json.Decoder(list[dict[str, _Stats] | None])
_BY_KEY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_WHOLE, _ANY = msgspec.json.Decoder(_INT64), msgspec.json.Decoder(float)
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {"n": _WHOLE, "avg": _ANY, "stdev": _ANY, "errors": _WHOLE}


@derived(SESSION_FEEDBACK, reads={SESSIONS: (*OWNER, *_SCOPES.values())}, by_session=True)
def session_feedback(day: DayTables) -> pa.Table:
    """The feedback of sessions."""
    sessions = day[SESSIONS].select([*OWNER, *_SCOPES.values()])
    said = zip(*(_by_key(sessions.column(column).to_pylist()) for column in _SCOPES.values()), strict=True)
    # A row's place is twice its session's, and its scope's added.
    places, keys, stats = entries([by_key or {} for of_session in said for by_key in of_session])
    values = pa.array(map(bytes, [one.values for one in stats]), pa.binary()).cast(pa.string())
    columns = [
        *sessions.select(OWNER).take(pc.divide(places, len(_SCOPES))).columns,
        pa.array(_SCOPES).take(pc.bit_wise_and(places, 1)),
        keys,
        [one.n for one in stats],
        _numbers([one.avg for one in stats]),
        _numbers([one.stdev for one in stats]),
        [one.errors for one in stats],
        pc.if_else(pc.equal(values, "null"), None, values),
    ]
    return pa.table(columns, SESSION_FEEDBACK.schema)


def _by_key(texts: Sequence[str | None]) -> Sequence[Mapping[str, _Stats] | None]:
    """The statistics of each session by key, most often in one go; the texts are objects, as they were validated."""
    with suppress(msgspec.DecodeError):
        return _FIT.decode(f"[{','.join(text or 'null' for text in texts)}]")
    return [{key: _field_by_field(raw) for key, raw in _BY_KEY.decode(text or "{}").items()} for text in texts]


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


def _numbers(values: list[float | None]) -> "pa.Array[pa.DoubleScalar]":
    """Adding zero makes negative zero the zero that it is."""
    return pc.add(pa.array(values, pa.float64()), 0.0)
