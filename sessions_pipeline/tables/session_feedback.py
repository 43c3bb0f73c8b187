"""Feedback statistics of sessions: JSON objects by feedback key become one row per session, scope and key.

The API's schema leaves the statistics free-form. Their usual fields are those of `SessionFeedbackStat` in the official
client: `n`, `avg`, `stdev`, `errors`, `values`. A field that is absent or has another type is null, never an error.
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
from sessions_pipeline.tables.table import Table, Tables, derived

SESSION_FEEDBACK = Table(
    "session_feedback",
    "One row per session, scope and feedback key.",
    (
        column.text("session_id", "The session, canonical UUID", nullable=False),
        column.TENANT,
        column.DATASET,
        column.text("scope", "`run`: feedback on its runs; `session`: feedback on the session itself", nullable=False),
        column.text("feedback_key", "The feedback's name, such as `correctness`", nullable=False),
        column.count("count", "Number of feedback entries"),
        column.number("average", "Their average score"),
        column.number("standard_deviation", "Their standard deviation"),
        column.count("errors", "Number of evaluations that failed"),
        column.text("values", "Counts by value for categorical feedback, JSON text as sent; may contain private data"),
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


_ALL_STATS = msgspec.json.Decoder(list[dict[str, _Stats] | None])
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_INT, _FLOAT = msgspec.json.Decoder(_INT64), msgspec.json.Decoder(float)
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {"n": _INT, "avg": _FLOAT, "stdev": _FLOAT, "errors": _INT}


@derived(SESSION_FEEDBACK, reads={SESSIONS: (*OWNER, *_SCOPES.values())}, by_session=True)
def session_feedback(tables: Tables) -> pa.Table:
    """The day's feedback."""
    sessions = tables[SESSIONS].select([*OWNER, *_SCOPES.values()])
    stats_by_scope = (_stats_by_key(sessions.column(column).to_pylist()) for column in _SCOPES.values())
    # The two scopes of each session follow one another, so index // 2 is the session and index & 1 the scope.
    alternating = [stats or {} for both in zip(*stats_by_scope, strict=True) for stats in both]
    indices, keys, stats = entries(alternating)
    values = pa.array(map(bytes, [stat.values for stat in stats]), pa.binary()).cast(pa.string())
    columns = [
        *sessions.select(OWNER).take(pc.divide(indices, len(_SCOPES))).columns,
        pa.array(_SCOPES).take(pc.bit_wise_and(indices, 1)),
        keys,
        [stat.n for stat in stats],
        _numbers([stat.avg for stat in stats]),
        _numbers([stat.stdev for stat in stats]),
        [stat.errors for stat in stats],
        pc.if_else(pc.equal(values, "null"), None, values),
    ]
    return pa.table(columns, SESSION_FEEDBACK.schema)


def _stats_by_key(texts: Sequence[str | None]) -> Sequence[Mapping[str, _Stats] | None]:
    """The statistics of each session by feedback key. Validation has made sure that the texts are JSON objects."""
    with suppress(msgspec.DecodeError):
        return _ALL_STATS.decode(f"[{','.join(text or 'null' for text in texts)}]")
    # Some field has an unusual type, so decode field by field.
    return [{key: _usable_stats(raw) for key, raw in _MEMBERS.decode(text or "{}").items()} for text in texts]


def _usable_stats(raw: msgspec.Raw) -> _Stats:
    """The fields that have the usual type; the others are null."""
    stats = _Stats()
    with suppress(msgspec.DecodeError):
        fields = _MEMBERS.decode(raw)
        stats.values = fields.get("values", _NULL)
        for name, decoder in _DECODERS.items():
            with suppress(msgspec.DecodeError):
                setattr(stats, name, decoder.decode(fields.get(name, _NULL)))
    return stats


def _numbers(values: list[float | None]) -> "pa.Array[pa.DoubleScalar]":
    # Adding zero turns negative zero into zero.
    return pc.add(pa.array(values, pa.float64()), 0.0)
