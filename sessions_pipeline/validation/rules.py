"""One rule for each type of property: which values are valid, and how they are read.

`Rule.value` reads one value, and `Rule.column` reads many at once with the same results. For a column, msgspec decodes
all texts as one JSON array, in C, if its decisions are certain to be the rule's. Otherwise the column is halved again
and again, until `Rule.value` decides on the few values in doubt.
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

from sessions_pipeline.validation.json_text import UNREADABLE, flaw, is_deep, split_array, split_object, type_name
from sessions_pipeline.validation.types import MONEY, TIMESTAMP, parse_timestamp, read_decimal, read_money

# A property's JSON text: a view into the record's text, or a copy.
Text = msgspec.Raw | bytes

_FEW = 16  # a column of at most this many doubtful texts is read value by value
_INT64 = range(-(2**63), 2**63)
_INT64_DIGITS = 19
_LONGEST_NAME = 80
IS_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """How the values of a property are read.

    Attributes:
        expected: what a value must be, in the words of the reasons for rejection.
        json_types: the JSON types that it may have, in a text that contains their names (see `type_name`).
        type: of the column.
        read: turns a string, or the JSON text of another value, into the column's value. Raises a `ValueError` whose
            arguments are what is wrong; one about a part of the value begins with that part's name, as `.name: `.
        quick: turns a whole column of texts into the values that `value` would give; None if any of them is in doubt.
        is_text: the column's values are the texts as sent; `read` and `quick` only check them.
        rejects: whether an unreadable value rejects its record. If not, it becomes null with an entry in `problems`.
    """

    expected: str
    json_types: str
    type: pa.DataType
    read: Callable[[str], Any]
    quick: Callable[[Sequence[Text]], list[Any] | None]
    is_text: bool = False
    rejects: bool = True

    def value(self, sent: bytes) -> Any:
        """The value of one JSON text, None for null.

        Raises:
            ValueError: it can't be read; see `read`.
        """
        text = sent.decode()
        found = type_name(text)
        if found == "null":
            return None
        if self.rejects and (problem := flaw(sent)):
            raise ValueError(problem)
        if found not in self.json_types:
            raise ValueError(f"must be {self.expected}, not {found}")
        return self.read(json.loads(text) if found == "a string" else text)

    def column(self, texts: Sequence[Text], errors: dict[int, ValueError], first: int = 0) -> list[Any]:
        """The values of a column, None for null and for unreadable texts, whose errors are added to `errors` by index.

        `first` is the index of the first text.
        """
        values = self.quick(texts)
        if values is not None and self.is_text:
            values = list(map(bytes, texts))
            values = None if any(map(is_deep, values)) else [None if text == b"null" else text for text in values]
        if values is not None:
            return values
        if len(texts) > _FEW:
            half = len(texts) // 2
            return self.column(texts[:half], errors, first) + self.column(texts[half:], errors, first + half)
        values = []
        for index, text in enumerate(texts, first):
            try:
                values.append(self.value(bytes(text)))
            except ValueError as error:
                errors[index] = error
                values.append(None)
        return values


def printable(text: str, longest: int = _LONGEST_NAME) -> str:
    """A name or value as sent, with unprintable characters escaped and cut to `longest` characters."""
    safe = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: longest + 1])
    return safe if len(safe) <= longest else f"{safe[:longest]}…"


def reasons(name: str, error: ValueError) -> list[str]:
    """The reasons for rejection in a property's error, as `field: what is wrong`."""
    return [f"{name}{problem}" if problem.startswith(".") else f"{name}: {problem}" for problem in error.args]


def missing(text: str | None) -> ValueError:
    """The error for a required value that is absent (`text` is None) or null."""
    return ValueError("is required, but absent" if text is None else "must not be null")


def _decoded(type_: Any, plain: str | None = None) -> Callable[[Sequence[Text]], list[Any] | None]:
    """A `Rule.quick` that decodes with msgspec. In doubt if msgspec refuses, or a text is neither `plain` nor null."""
    decode = msgspec.json.Decoder(list[type_ | None]).decode
    is_plain = re.compile(rf"\[(?:(?:{plain}|null),)*+(?:{plain}|null)\]".encode()).fullmatch if plain else bool

    def quick(texts: Sequence[Text]) -> list[Any] | None:
        joined = b"[%b]" % b",".join(texts)
        try:
            return decode(joined) if is_plain(joined) else None
        except UNREADABLE:
            return None

    return quick


def _as_objects(texts: Sequence[Text]) -> list[Any] | None:
    # msgspec has already checked each `Raw`, so its first character is enough. Decoding an `extra` of 3 kB again would
    # take 2 µs, a tenth of the validation.
    firsts = {bytes(text)[:1] if isinstance(text, msgspec.Raw) else None for text in texts}
    return list(texts) if firsts <= {b"{", b"n"} else None


def _read_uuid(text: str) -> str:
    if not IS_UUID.fullmatch(text):
        raise ValueError("is not a UUID")
    return text.lower()


def _read_time(text: str) -> datetime:
    try:
        return parse_timestamp(text)
    except ValueError as error:
        raise ValueError(f"is not a date-time: {error}") from None


def _read_integer(text: str) -> int:
    number = read_decimal(text)
    if number != number.to_integral_value():
        raise ValueError("must be an integer, not a fraction")
    if number and (number.adjusted() >= _INT64_DIGITS or int(number) not in _INT64):
        raise ValueError("is an integer beyond 64 bits")
    return int(number)


def _read_double(text: str) -> float:
    # Adding zero turns negative zero into zero.
    number = float(text) + 0.0
    if not isfinite(number):
        raise ValueError("is a number beyond what a double can hold")
    return number


def _read_objects(text: str) -> str:
    return _checked(text, ((str(index), element, OBJECT) for index, element in enumerate(split_array(text))))


def _read_numbers(text: str) -> str:
    return _checked(text, ((name, number, DOUBLE) for name, number in split_object(text).items()))


def _read_progress(text: str) -> str:
    members = split_object(text)
    return _checked(text, ((name, members.get(name), rule) for name, rule in _PROGRESS.items()))


def _checked(text: str, parts: Iterable[tuple[str, str | None, Rule]]) -> str:
    """The text itself, after each named part was read by its rule.

    Raises:
        ValueError: some parts can't be read; the arguments are the reasons for each.
    """
    problems: list[str] = []
    for name, part, rule in parts:
        try:
            if part is None or part == "null":
                raise missing(part)
            rule.value(part.encode())
        except ValueError as error:
            problems += reasons(f".{printable(name)}", error)
    if problems:
        raise ValueError(*problems)
    return text


_Int64 = Annotated[int, msgspec.Meta(ge=_INT64[0], le=_INT64[-1])]


class _AnyObject(msgspec.Struct):
    """An object with any properties."""


class _Progress(msgspec.Struct):
    expected_run_count: _Int64
    run_progress: float
    evaluator_progress: dict[str, float]


# Written out in full, as this matches in a fifth less time than a repeated group.
_PLAIN_UUID = '"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"'
# msgspec rounds digits beyond microseconds, and an offset may take it outside the years 1 to 9999.
_PLAIN_TIME = r'"[0-9-]{10}[Tt ][0-9:]{8}(?:\.[0-9]{1,6})?(?:[Zz]|\+00:00)?"'
_PLAIN_DOUBLE = r"(?!-0)[0-9.eE+-]++"
# The second form is how floats below 0.0001 are written. 9 digits after the point with e-9 make 18 decimal places.
_PLAIN_COST = r'"?(?:[0-9]{1,20}(?:\.[0-9]{1,18})?|[0-9]{1,10}(?:\.[0-9]{1,9})?[eE]-0?[1-9])"?'
_TEXT = pa.string()

UUID = Rule("a UUID", "a string", _TEXT, _read_uuid, _decoded(str, _PLAIN_UUID))
TIME = Rule("a date-time", "a string", TIMESTAMP, _read_time, _decoded(datetime, _PLAIN_TIME))
STRING = Rule("a string", "a string", _TEXT, str, _decoded(str))
INTEGER = Rule("an integer", "a number", pa.int64(), _read_integer, _decoded(_Int64))
DOUBLE = Rule("a number", "a number", pa.float64(), _read_double, _decoded(float, _PLAIN_DOUBLE))
COST = Rule(
    "a decimal number", "a string or a number", MONEY, read_money, _decoded(Decimal, _PLAIN_COST), rejects=False
)
OBJECT = Rule("an object", "an object", _TEXT, str, _as_objects, is_text=True)
OBJECTS = Rule("an array", "an array", _TEXT, _read_objects, _decoded(list[_AnyObject]), is_text=True)
_NUMBERS = Rule("an object", "an object", _TEXT, _read_numbers, _decoded(dict[str, float]), is_text=True)
PROGRESS = Rule("an object", "an object", _TEXT, _read_progress, _decoded(_Progress), is_text=True)
_PROGRESS = {"expected_run_count": INTEGER, "run_progress": DOUBLE, "evaluator_progress": _NUMBERS}
