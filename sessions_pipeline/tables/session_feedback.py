"""Feedback statistics of sessions, from JSON objects by key to one row per session, scope and key.

The statistics are free-form in the API's schema; their usual fields are those of `SessionFeedbackStat` in the official
client: `n`, `avg`, `stdev`, `errors`, `values`. What is missing or does not fit is null, never an error.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import OWNER, rows_of_sessions
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

_SCOPES = {"run": "feedback_stats", "session": "session_feedback_stats"}
_NULL = b"null"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_WHOLE = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None)
_NUMBER = msgspec.json.Decoder(float | None)
_NUMBERS = {"n": _WHOLE, "avg": _NUMBER, "stdev": _NUMBER, "errors": _WHOLE}


@derived(SESSION_FEEDBACK, reads={SESSIONS: (*OWNER, *_SCOPES.values())})
def session_feedback(day: DayTables) -> pa.Table:
    """The feedback of a day's sessions, in the table's order."""
    return rows_of_sessions(SESSION_FEEDBACK, day[SESSIONS], [*_SCOPES.values()], _rows)


def _rows(*texts: str | None) -> Iterator[tuple[Any, ...]]:
    """Scope, key, numbers and values of each feedback on a session."""
    for scope, text in zip(_SCOPES, texts, strict=True):
        for key, sent in _decoded(_OBJECT, text or _NULL, {}).items():
            stats = _decoded(_OBJECT, sent, {})
            # Each by itself, so that one that does not fit takes no other with it.
            numbers = (_decoded(decoder, stats.get(name, _NULL), None) for name, decoder in _NUMBERS.items())
            values = bytes(stats.get("values", _NULL))
            yield scope, key, *numbers, None if values == _NULL else values.decode()


def _decoded(decoder: msgspec.json.Decoder[Any], text: Any, otherwise: Any) -> Any:
    """The value, or `otherwise` where the text is of another type."""
    try:
        return decoder.decode(text)
    except msgspec.DecodeError:
        return otherwise
