"""JSON text taken apart without losing a character: what was sent stays as it was spelt.

Python's `json` reads what msgspec refuses (NaN, Infinity, lone surrogates), so that one such record can be told apart
from its page. Numbers are never made into floats or ints here: their text is kept.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

# Fixed, and far below Python's own limit: the verdict on a record must not depend on how deep the caller stands.
MAX_DEPTH = 256


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number, or one of NaN, Infinity and -Infinity, as written."""

    text: str

    @property
    def is_finite(self) -> bool:
        """False for NaN, Infinity and -Infinity only."""
        return not self.text.endswith(("N", "y"))


class TooDeep:
    """Stands for a value that is nested deeper than `MAX_DEPTH`."""


class Member(NamedTuple):
    """A property of an object: the value that `json` gives, numbers as `Number`, and its verbatim text."""

    value: Any
    text: str


TOO_DEEP = TooDeep()
_DECODER = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=Number)
_SPACES = frozenset(" \t\n\r")
_SPACE = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{}]', re.DOTALL)
_CLOSING = {"[": "]", "{": "}"}


def split_array(text: str) -> Iterator[Member]:
    """The elements of a JSON array, each with its verbatim text.

    Raises:
        ValueError: the text is not one JSON array.
    """
    position = _opening(text, "[")
    if text.startswith("]", position):
        return _end(text, position + 1)
    while True:
        element, position = _value(text, position)
        yield element
        if not text.startswith(",", position):
            break
        position = _skip(text, position + 1)
    if not text.startswith("]", position):
        raise ValueError("the array is not closed")
    return _end(text, position + 1)


def split_object(text: str) -> list[tuple[str, Member]]:
    """The properties of a JSON object as sent; a name given twice is there twice.

    Raises:
        ValueError: the text is not one JSON object.
    """
    position = _opening(text, "{")
    properties: list[tuple[str, Member]] = []
    if text.startswith("}", position):
        _end(text, position + 1)
        return properties
    while True:
        if not text.startswith('"', position):
            raise ValueError("a property has no name")
        name, position = _DECODER.raw_decode(text, position)
        position = _skip(text, position)
        if not text.startswith(":", position):
            raise ValueError("a property has no value")
        member, position = _value(text, _skip(text, position + 1))
        properties.append((name, member))
        if not text.startswith(",", position):
            break
        position = _skip(text, position + 1)
    if not text.startswith("}", position):
        raise ValueError("the object is not closed")
    _end(text, position + 1)
    return properties


def split_value(text: str) -> Member:
    """Any JSON value, with its verbatim text.

    Raises:
        ValueError: the text is not one JSON value.
    """
    member, position = _value(text, _skip(text, 0))
    _end(text, position)
    return member


def _value(text: str, start: int) -> tuple[Member, int]:
    """The value that starts here, and where the next token stands."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        value, end = TOO_DEEP, _closing(text, start)[0]
    else:
        # A depth takes two characters a level: most values are too short to look at.
        if end - start > 2 * MAX_DEPTH and text[start] in _CLOSING and _closing(text, start)[1] > MAX_DEPTH:
            value = TOO_DEEP
    return Member(value, text[start:end]), _skip(text, end)


def _closing(text: str, start: int) -> tuple[int, int]:
    """Where the value that starts here ends, and how deep it is nested, found without recursion."""
    awaited: list[str] = []
    depth = 0
    for token in _TOKEN.finditer(text, start):
        mark = token[0]
        if mark in _CLOSING:
            awaited.append(_CLOSING[mark])
            depth = max(depth, len(awaited))
        elif mark in ("]", "}"):
            if not awaited or awaited.pop() != mark:
                break
        elif mark == '"':
            break
        if not awaited:
            return token.end(), depth
    raise ValueError("a value is not closed")


def _opening(text: str, mark: str) -> int:
    position = _skip(text, 0)
    if not text.startswith(mark, position):
        raise ValueError(f"does not start with {mark}")
    return _skip(text, position + 1)


def _end(text: str, position: int) -> None:
    if _skip(text, position) != len(text):
        raise ValueError("goes on after its end")


def _skip(text: str, position: int) -> int:
    if text[position : position + 1] not in _SPACES:
        return position
    match = _SPACE.match(text, position)
    return match.end() if match else position
