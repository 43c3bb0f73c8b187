"""The verdict on one record: a row of `sessions`, or every reason why it is none. Pure.

This is the truth that `batch` must agree with; it is exact, not fast.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sessions_pipeline.tables import SESSIONS
from sessions_pipeline.validation.json_text import MAX_DEPTH, TOO_DEEP, Member, split_object, split_value
from sessions_pipeline.validation.model import TracerSession, TraceTier, kind

COLUMNS = SESSIONS.columns[: 1 + [column.name for column in SESSIONS.columns].index("unknown_fields")]
KNOWN = frozenset(TracerSession.model_fields)
JSON_COLUMNS = ("extra", "feedback_stats", "session_feedback_stats", "run_facets", "experiment_progress")
TIERS = frozenset(TraceTier)
_LONGEST_NAME = 80
_STRING_OR_NOT_FINITE = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(NaN|Infinity)')
# Pairs and other escapes are consumed, so that what is left over is a half alone.
_ESCAPES = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]|(\\u[dD][89a-fA-F])|\\.")
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"
_EXPECTED = {
    "string_type": "must be a string",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "list_type": "must be an array",
}


class Valid(NamedTuple):
    """A session: one value per column of `sessions` up to `unknown_fields`, and what the schema does not name."""

    values: dict[str, Any]
    drift: tuple[str, ...]


class Rejected(NamedTuple):
    """Not a session: every reason, as `field: what is wrong`."""

    reasons: tuple[str, ...]


def judge(payload: str) -> Valid | Rejected:
    """Whether a record's JSON text is a session of the API's schema. Never raises, whatever the text."""
    try:
        payload.encode()
        properties = split_object(payload)
    except UnicodeEncodeError:
        return Rejected(("record: is not Unicode text",))
    except ValueError:
        return Rejected((_not_an_object(payload),))
    members = _last_of_each(properties)
    flaws: dict[str, str] = {}
    if any(sign in payload for sign in ("\\u", "NaN", "Infinity")):
        flaws = {name: flaw for name, member in properties if (flaw := _flaw(name, member))}
    flaws |= {name: _TOO_DEEP for name, member in members.items() if member.value is TOO_DEEP}
    members = {name: member for name, member in members.items() if name not in flaws}
    reasons = [f"{_spelled(name)}: {flaw}" for name, flaw in flaws.items()]
    try:
        session = TracerSession.model_validate({name: member.value for name, member in members.items()})
    except ValidationError as error:
        details = error.errors(include_url=False)
        reasons += [_reason(detail) for detail in details if detail["loc"][0] not in flaws]
    if reasons:
        return Rejected(tuple(reasons))
    return _valid(session, members)


def unknown_name(name: str) -> str:
    """How `unknown_fields` begins a property: its name and a colon, as JSON."""
    return f"{json.dumps(name, ensure_ascii=False)}:"


def _last_of_each(properties: Sequence[tuple[str, Member]]) -> dict[str, Member]:
    """Of a name given twice the last counts, value and place."""
    members: dict[str, Member] = {}
    for name, member in properties:
        members.pop(name, None)
        members[name] = member
    return members


def _valid(session: TracerSession, members: Mapping[str, Member]) -> Valid:
    unknown = {name: member.text for name, member in members.items() if name not in KNOWN}
    values: dict[str, Any] = {column.name: getattr(session, column.name, None) for column in COLUMNS}
    for name, value in values.items():
        if isinstance(value, UUID):
            values[name] = str(value)
        elif name in JSON_COLUMNS and value is not None:
            values[name] = members[name].text
    texts = [unknown_name(name) + text for name, text in unknown.items()]
    values["unknown_fields"] = "{" + ",".join(texts) + "}" if texts else None
    tier = session.trace_tier
    new_tier = [] if tier is None or tier in TIERS else [f"trace_tier={tier}"]
    return Valid(values, (*new_tier, *unknown))


def _flaw(name: str, member: Member) -> str | None:
    """What is wrong with a property whatever it means: what JSON or Unicode do not have."""
    if any(match[1] for match in _STRING_OR_NOT_FINITE.finditer(member.text)):
        return "holds NaN or Infinity, which JSON does not have"
    if _has_surrogate(name) or any(match[1] for match in _ESCAPES.finditer(member.text)):
        return "holds half of a surrogate pair, which is no character"
    return None


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text) if not text.isascii() else False


def _not_an_object(payload: str) -> str:
    try:
        value = split_value(payload).value
    except ValueError:
        return "record: is not JSON"
    return f"record: must be an object, not {'an array' if value is TOO_DEEP else kind(value)}"


def _reason(detail: ErrorDetails) -> str:
    place = ".".join(_spelled(str(part)) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{place}: is required, but absent"
    if detail["input"] is None:
        return f"{place}: must not be null"
    if detail["type"] == "value_error":
        return f"{place}: {detail['ctx']['error']}"
    return f"{place}: {_EXPECTED[detail['type']]}, not {kind(detail['input'])}"


def _spelled(name: str) -> str:
    """A property's name that is safe to store and short enough to read."""
    safe = name.encode(errors="backslashreplace").decode()
    return safe if len(safe) <= _LONGEST_NAME else f"{safe[:_LONGEST_NAME]}…"
