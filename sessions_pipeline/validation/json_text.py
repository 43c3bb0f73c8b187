"""JSON text taken apart without losing a character: what was sent stays as it was spelt.

msgspec does the work wherever it can. What is here reads what msgspec refuses (NaN, Infinity, half surrogate pairs,
deep nesting), so that one such record can be told apart from its page, and one such value from its record.
"""

import json
import re
from collections.abc import Mapping
from itertools import accumulate

import msgspec

# Fixed, and far below Python's own limit: what a record is must not depend on how deep the caller stands.
MAX_DEPTH = 256
HALF_PAIR = "half of a surrogate pair, which is no character"
# What msgspec raises for text that it does not take.
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(rf"{_STRING}|[\[\]{{}},]", re.DOTALL)
_MEMBER = re.compile(rf"({_STRING})[ \t\n\r]*:[ \t\n\r]*", re.DOTALL)
_NO_BRACKET = re.compile(rf'{_STRING}|[^\[\]{{}}"]++|"', re.DOTALL)
_CLOSING = {"[": "]", "{": "}"}
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_SPACES = " \t\n\r"
_KINDS = {'"': "a string", "{": "an object", "[": "an array", "t": "a boolean", "f": "a boolean", "n": "null"}
# Integers of any length are valid JSON; Python would refuse those of more than 4,300 digits.
_SYNTAX = json.JSONDecoder(parse_int=str)
_OBJECT: msgspec.json.Decoder[dict[str, msgspec.Raw | bytes]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


def kind(text: str) -> str:
    """What JSON calls a value, with its article, told from its text; NaN and Infinity count as numbers."""
    return _KINDS.get(text[:1], "a number")


def is_deep(text: bytes) -> bool:
    """Whether a value is not read because it is nested deeper than `MAX_DEPTH` levels."""
    # Every level takes two characters: most values are too short to look at.
    if len(text) <= 2 * MAX_DEPTH or text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    return max(accumulate(map(_STEP.__getitem__, _NO_BRACKET.sub("", text.decode()))), default=0) > MAX_DEPTH


def flaw(sent: bytes) -> str | None:
    """What is wrong with a JSON value whatever it means: nesting, and what JSON or Unicode do not have."""
    if is_deep(sent):
        return f"is nested deeper than {MAX_DEPTH} levels"
    try:
        msgspec.json.decode(sent, type=msgspec.Raw)
    except UNREADABLE:
        constants: list[str] = []
        json.loads(sent, parse_int=str, parse_constant=constants.append)
        return f"holds {'NaN or Infinity, which JSON does not have' if constants else HALF_PAIR}"
    return None


def split_array(text: str) -> list[str]:
    """The elements of a JSON array, verbatim.

    Raises:
        ValueError: the text is not one JSON array.
    """
    return _split(text.strip(_SPACES), "[")


def split_object(text: str) -> dict[str, str]:
    """The properties of a JSON object, each with its verbatim text. Of a name given twice the last counts.

    Raises:
        ValueError: the text is not one JSON object.
    """
    members: dict[str, str] = {}
    for name, value in split_members(text):
        members.pop(name, None)  # so that it stands where it was given last
        members[name] = value
    return members


def split_members(text: str) -> list[tuple[str, str]]:
    """The properties of a JSON object in their order, each with its verbatim text, as often as they were given.

    Raises:
        ValueError: the text is not one JSON object.
    """
    members: list[tuple[str, str]] = []
    for part in _split(text.strip(_SPACES), "{"):
        match = _MEMBER.match(part)
        if match is None:
            raise ValueError("a property has no name")
        members.append((json.loads(match[1]), part[match.end() :]))
    return members


def split_record(text: str) -> Mapping[str, msgspec.Raw | bytes]:
    """The properties of what should be a JSON object, each with its verbatim text.

    Raises:
        ValueError: it is something else, and says what.
    """
    try:
        return _OBJECT.decode(text)
    except UNREADABLE:
        found = kind(text.lstrip(_SPACES))
    try:
        if found == "an object":
            return {name: value.encode() for name, value in split_object(text).items()}
        is_json = len(split_array(f"[{text}]")) == 1
    except UnicodeEncodeError:
        raise ValueError("is not Unicode text") from None
    except ValueError:
        is_json = False
    raise ValueError(f"must be an object, not {found}" if is_json else "is not JSON")


def _split(text: str, opening: str) -> list[str]:
    """What stands between the outer commas. Of what is nested too deeply only the brackets are looked at."""
    closing = _CLOSING[opening]
    parts: list[str] = []
    depth, start = 0, 1
    for token in _TOKEN.finditer(text):
        depth += _STEP.get(token[0], 0)
        if depth == 0 or (depth == 1 and token[0] == ","):
            parts.append(text[start : token.start()].strip(_SPACES))
            start = token.end()
        if depth == 0:
            break
    if depth or start != len(text) or not (text.startswith(opening) and text.endswith(closing)):
        raise ValueError(f"does not begin with {opening} and end with its {closing}")
    for part in parts:
        if not part and len(parts) > 1:
            raise ValueError("has nothing between two commas")
        if not is_deep(part.encode()):
            _SYNTAX.decode(f"{opening}{part}{closing}")
    return parts if parts != [""] else []
