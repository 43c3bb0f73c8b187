"""Splits JSON text into its parts, each with the characters that were sent.

msgspec does the work wherever it can. This module splits text that msgspec refuses (NaN, Infinity, lone surrogates,
deep nesting), so that one such record does not cost its page, and one such value does not hide the rest of its record.
"""

import json
import re
from collections.abc import Mapping
from itertools import accumulate

import msgspec

# Fixed, and far below Python's recursion limit: whether a record is valid must not depend on the depth of the caller.
MAX_DEPTH = 256
LONE_SURROGATE = "half of a surrogate pair, which is no character"
# What msgspec raises for text that it does not accept.
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
# The closing quote is optional: if cut-off text has none, the search would otherwise begin again at each escaped quote,
# which takes quadratic time.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_TOKEN = re.compile(rf"{_STRING.pattern}|[\[\]{{}},]", re.DOTALL)
_MEMBER = re.compile(rf"({_STRING.pattern})[ \t\n\r]*:[ \t\n\r]*", re.DOTALL)
_DEPTH_CHANGE = {"[": 1, "{": 1, "]": -1, "}": -1}
_SPACES = " \t\n\r"
_TYPE_NAMES = {'"': "a string", "{": "an object", "[": "an array", "t": "a boolean", "f": "a boolean", "n": "null"}
# Integers of any length are valid JSON, but int() refuses more than 4,300 digits.
_SYNTAX = json.JSONDecoder(parse_int=str)
_OBJECT: msgspec.json.Decoder[dict[str, msgspec.Raw | bytes]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


def type_name(text: str) -> str:
    """The name of a value's JSON type, with its article, from its first character. NaN and Infinity are numbers."""
    return _TYPE_NAMES.get(text[:1], "a number")


def is_deep(text: bytes) -> bool:
    """Whether a value is nested deeper than `MAX_DEPTH` levels; such a value is not read."""
    # Every level takes two characters, so most values are too short to be searched.
    if len(text) <= 2 * MAX_DEPTH or text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    # Brackets in strings do not count. A list of tokens would take 20 times the memory of the text.
    return max(accumulate(_DEPTH_CHANGE.get(char, 0) for char in _STRING.sub(" ", text.decode()))) > MAX_DEPTH


def flaw(sent: bytes) -> str | None:
    """What is wrong with a JSON value of any type: it is nested too deeply, or is not valid JSON or Unicode."""
    if is_deep(sent):
        return f"is nested deeper than {MAX_DEPTH} levels"
    try:
        msgspec.json.decode(sent, type=msgspec.Raw)
    except UNREADABLE:
        constants: list[str] = []
        json.loads(sent, parse_int=str, parse_constant=constants.append)
        return f"holds {'NaN or Infinity, which JSON does not have' if constants else LONE_SURROGATE}"
    return None


def split_array(text: str) -> list[str]:
    """The elements of a JSON array, verbatim.

    Raises:
        ValueError: the text is not one JSON array.
    """
    return _split(text.strip(_SPACES), "[", "]")


def split_members(text: str) -> list[tuple[str, str]]:
    """The properties of a JSON object in order, each with its verbatim text; a name that occurs twice is listed twice.

    Raises:
        ValueError: the text is not one JSON object.
    """
    members: list[tuple[str, str]] = []
    for part in _split(text.strip(_SPACES), "{", "}"):
        match = _MEMBER.match(part)
        if match is None:
            raise ValueError("a property has no name")
        members.append((json.loads(match[1]), part[match.end() :]))
    return members


def split_record(text: str) -> Mapping[str, msgspec.Raw | bytes]:
    """The properties of a record, which should be a JSON object, each with its verbatim text.

    Raises:
        ValueError: it is not an object; the text says what it is.
    """
    try:
        return _OBJECT.decode(text)
    except UNREADABLE:
        found = type_name(text.lstrip(_SPACES))
    try:
        if found == "an object":
            return {name: value.encode() for name, value in split_members(text)}
        is_json = len(split_array(f"[{text}]")) == 1
    except UnicodeEncodeError:
        raise ValueError("is not Unicode text") from None
    except ValueError:
        is_json = False
    raise ValueError(f"must be an object, not {found}" if is_json else "is not JSON")


def _split(text: str, opening: str, closing: str) -> list[str]:
    """The texts between the outer commas. In parts that are nested too deeply, only the brackets are checked."""
    parts: list[str] = []
    depth, start = 0, 1
    for token in _TOKEN.finditer(text):
        depth += _DEPTH_CHANGE.get(token[0], 0)
        if depth == 0 or (depth == 1 and token[0] == ","):
            parts.append(text[start : token.start()].strip(_SPACES))
            start = token.end()
        if depth == 0:
            break
    if start != len(text) or not (text.startswith(opening) and text.endswith(closing)):
        raise ValueError(f"does not begin with {opening} and end with its {closing}")
    parts = parts if parts != [""] else []
    for part in parts:
        if not is_deep(part.encode()):
            # A comma alone is as wrong as nothing between two commas.
            _SYNTAX.decode(f"{opening}{part or ','}{closing}")
    return parts
