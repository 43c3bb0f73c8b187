"""One rule for each type of property: what its values may be, and what they become.

A rule reads one value; `Rule.column` reads many at once and takes the same from them. msgspec reads the column as one
JSON array, in C, wherever it decides as the rule does; where it refuses, ever smaller parts of the column are tried,
down to the single values that the rule decides on.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from sessions_pipeline.validation.decimals import read_decimal, read_money
from sessions_pipeline.validation.json_text import TOO_DEEP, UNREADABLE, is_deep, kind, split_array, split_object
from sessions_pipeline.validation.timestamps import parse_timestamp
from sessions_pipeline.validation.types import MONEY, TIMESTAMP

# A property's JSON text: a view of the record's, or a copy.
Text = msgspec.Raw | bytes

_FEW = 16
_INT64 = range(-(2**63), 2**63)
_INT64_DIGITS = 19
_LONGEST_NAME = 80
_LONGEST_VALUE = 40
_LONG_FRACTION, _WEST = re.compile(rb"\.[0-9]{7}"), re.compile(rb"-[0-9]{2}:")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """How the values of a property are read.

    Attributes:
        type: of the column.
        read: makes one value's JSON text, never `null`, the column's value. Raises a `ValueError` whose arguments say
            what is wrong, each beginning with `.inner: ` where it is about a part of the value.
        quick: makes a column's texts what `read` makes of each; None where it is in doubt about any of them.
        is_text: the values are the texts as sent, which `read` and `quick` only check.
        rejects: whether a value that can't be read rejects its record, or else is null with an entry in `problems`.
    """

    type: pa.DataType
    read: Callable[[str], Any]
    quick: Callable[[Sequence[Text]], list[Any] | None]
    is_text: bool = False
    rejects: bool = True

    def column(self, texts: Sequence[Text], wrong: dict[int, ValueError], first: int = 0) -> list[Any]:
        """The values of a column, None for null and for what can't be read, which goes to `wrong` by its place."""
        values = self.quick(texts)
        if values is not None and self.is_text:
            values = [None if text == b"null" else text for text in map(bytes, texts)]
            values = None if any(text is not None and is_deep(text) for text in values) else values
        if values is not None:
            return values
        if len(texts) > _FEW:
            half = len(texts) // 2
            return self.column(texts[:half], wrong, first) + self.column(texts[half:], wrong, first + half)
        values = []
        for place, text in enumerate(texts, first):
            try:
                values.append(self.value(bytes(text)))
            except ValueError as error:
                wrong[place] = error
                values.append(None)
        return values

    def value(self, text: bytes) -> Any:
        """What one value's JSON text means, None for null.

        Raises:
            ValueError: it can't be read.
        """
        if text == b"null":
            return None
        if self.is_text and is_deep(text):
            raise ValueError(TOO_DEEP)
        return self.read(text.decode())


def spelled(text: str, longest: int = _LONGEST_NAME) -> str:
    """A name or value as sent, safe to store and to print, and short enough to read."""
    safe = text[: longest + 1]
    if not safe.isprintable():
        safe = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in safe)
    return safe if len(safe) <= longest else f"{safe[:longest]}…"


def reasons(name: str, error: ValueError) -> list[str]:
    """What is wrong with a property, as `field: what is wrong`."""
    return [f"{name}{what}" if what.startswith(".") else f"{name}: {what}" for what in error.args]


def missing(text: str | None) -> ValueError:
    """What is wrong with a required value that is absent, or else null."""
    return ValueError("is required, but absent" if text is None else "must not be null")


def _decoded(type_: Any, is_plain: Callable[[bytes], Any] = bool) -> Callable[[Sequence[Text]], list[Any] | None]:
    """A column as msgspec decodes it, which is in doubt where it refuses, and where the column is not plain."""
    decoder: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[type_ | None])

    def quick(texts: Sequence[Text]) -> list[Any] | None:
        joined = b"[%b]" % b",".join(texts)
        try:
            return decoder.decode(joined) if is_plain(joined) else None
        except UNREADABLE:
            return None

    return quick


def _only(item: str) -> Callable[[bytes], Any]:
    """Whether all of a column is of this form, or null."""
    return re.compile(rf"\[(?:(?:{item}|null),)*+(?:{item}|null)\]".encode()).fullmatch


def _is_plain_time(joined: bytes) -> bool:
    """Whether msgspec can't round (more digits than microseconds) or leave the years 1 to 9999 (by an offset)."""
    return not (
        b"\\" in joined
        or _LONG_FRACTION.search(joined)
        or _WEST.search(joined)
        or joined.count(b"+") != joined.count(b"+00:00")
    )


def _expect(text: str, what: str, *kinds: str) -> str:
    if kind(text) not in kinds:
        raise ValueError(f"must be {what}, not {kind(text)}")
    return text


def _read_string(text: str, what: str = "a string") -> str:
    string: str = json.loads(_expect(text, what, "a string"))
    return string


def _read_uuid(text: str) -> str:
    value = _read_string(text, "a UUID")
    if not _UUID.fullmatch(value):
        raise ValueError("is not a UUID")
    return value.lower()


def _read_time(text: str) -> datetime:
    value = _read_string(text, "a date-time")
    try:
        return parse_timestamp(value)
    except ValueError as error:
        raise ValueError(f"is not a date-time: {error}") from None


def _read_integer(text: str) -> int:
    number = read_decimal(_expect(text, "an integer", "a number"))
    if number != number.to_integral_value():
        raise ValueError("must be an integer, not a fraction")
    if number and (number.adjusted() >= _INT64_DIGITS or int(number) not in _INT64):
        raise ValueError("is an integer beyond 64 bits")
    return int(number) if number else 0


def _read_double(text: str) -> float:
    # Adding zero makes negative zero the zero that it is.
    number = float(_expect(text, "a number", "a number")) + 0.0
    if not isfinite(number):
        raise ValueError("is a number beyond what a double can hold")
    return number


def _read_cost(text: str) -> Decimal | None:
    if text == '""':
        return None
    try:
        _expect(text, "a decimal number", "a string", "a number")
        return read_money(json.loads(text) if text.startswith('"') else text)
    except ValueError as error:
        sent = text[1:-1] if text.startswith('"') else text
        raise ValueError(f"{error} ({spelled(sent, _LONGEST_VALUE)})") from None


def _read_object(text: str) -> str:
    return _expect(text, "an object", "an object")


def _read_objects(text: str) -> str:
    elements = split_array(_expect(text, "an array", "an array"))
    return _checked(text, ((str(place), element, OBJECT) for place, element in enumerate(elements)))


def _read_numbers(text: str) -> str:
    return _checked(text, ((name, number, DOUBLE) for name, number in split_object(_read_object(text)).items()))


def _read_progress(text: str) -> str:
    members = split_object(_read_object(text))
    return _checked(text, ((name, members.get(name), rule) for name, rule in _PROGRESS.items()))


def _checked(text: str, parts: Iterable[tuple[str, str | None, Rule]]) -> str:
    """The text, if each named part of it can be read by its rule."""
    wrong: list[str] = []
    for name, part, rule in parts:
        try:
            if part is None or part == "null":
                raise missing(part)
            rule.read(part)
        except ValueError as error:
            wrong += reasons(f".{spelled(name)}", error)
    if wrong:
        raise ValueError(*wrong)
    return text


_BOUNDED = Annotated[int, msgspec.Meta(ge=_INT64[0], le=_INT64[-1])]


class _AnyObject(msgspec.Struct):
    """An object of whatever properties."""


class _Progress(msgspec.Struct):
    expected_run_count: _BOUNDED
    run_progress: float
    evaluator_progress: dict[str, float]


UUID = Rule(pa.string(), _read_uuid, _decoded(str, _only('"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"')))
TIME = Rule(TIMESTAMP, _read_time, _decoded(datetime, _is_plain_time))
STRING = Rule(pa.string(), _read_string, _decoded(str))
INTEGER = Rule(pa.int64(), _read_integer, _decoded(_BOUNDED))
DOUBLE = Rule(pa.float64(), _read_double, _decoded(float, lambda joined: b"-0" not in joined))
# The second form is how floats below 0.0001 are written; with so few digits it can't have more than 18 in its fraction.
_PLAIN_COST = r'"?(?:[0-9]{1,20}(?:\.[0-9]{1,18})?|[0-9]{1,10}(?:\.[0-9]{1,9})?[eE]-0?[1-9])"?'
COST = Rule(MONEY, _read_cost, _decoded(Decimal, _only(_PLAIN_COST)), rejects=False)
OBJECT = Rule(pa.string(), _read_object, _decoded(_AnyObject), is_text=True)
OBJECTS = Rule(pa.string(), _read_objects, _decoded(list[_AnyObject]), is_text=True)
PROGRESS = Rule(pa.string(), _read_progress, _decoded(_Progress), is_text=True)
_NUMBERS = Rule(pa.string(), _read_numbers, _decoded(dict[str, float]), is_text=True)
_PROGRESS = {"expected_run_count": INTEGER, "run_progress": DOUBLE, "evaluator_progress": _NUMBERS}
