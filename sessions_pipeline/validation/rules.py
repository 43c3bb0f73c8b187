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

from sessions_pipeline.validation.json_text import UNREADABLE, flaw, is_deep, kind, split_array, split_object
from sessions_pipeline.validation.types import MONEY, TIMESTAMP, parse_timestamp, read_decimal, read_money

# A property's JSON text: a view of the record's, or a copy.
Text = msgspec.Raw | bytes

_FEW = 16
_INT64 = range(-(2**63), 2**63)
_INT64_DIGITS = 19
_LONGEST_NAME = 80
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """How the values of a property are read.

    Attributes:
        what: it must be, as reasons say it.
        sent_as: what JSON calls it.
        type: of the column.
        read: makes one value the column's: the string, or else the JSON text, that stands there. Raises a `ValueError`
            whose arguments say what is wrong, each beginning with `.inner: ` where it is about a part of the value.
        quick: makes a whole column's texts what `value` makes of each; None where it is in doubt about any of them.
        is_text: the values are the texts as sent, which `read` and `quick` only check.
        rejects: whether a value that can't be read rejects its record, or else is null with an entry in `problems`.
    """

    what: str
    sent_as: str
    type: pa.DataType
    read: Callable[[str], Any]
    quick: Callable[[Sequence[Text]], list[Any] | None]
    is_text: bool = False
    rejects: bool = True

    def value(self, sent: bytes) -> Any:
        """What one value's JSON text means, None for null.

        Raises:
            ValueError: it can't be read; see `read`.
        """
        text = sent.decode()
        found = kind(text)
        if found == "null":
            return None
        if self.rejects and (wrong := flaw(sent)):
            raise ValueError(wrong)
        if found not in self.sent_as:
            raise ValueError(f"must be {self.what}, not {found}")
        return self.read(json.loads(text) if found == "a string" else text)

    def column(self, texts: Sequence[Text], wrong: dict[int, ValueError], first: int = 0) -> list[Any]:
        """The values of a column, None for null and for what can't be read, which goes to `wrong` by its place."""
        values = self.quick(texts)
        if values is not None and self.is_text:
            values = list(map(bytes, texts))
            values = None if any(map(is_deep, values)) else [None if text == b"null" else text for text in values]
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


def spelled(text: str, longest: int = _LONGEST_NAME) -> str:
    """A name or value as sent, safe to store and to print, and short enough to read."""
    safe = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[: longest + 1])
    return safe if len(safe) <= longest else f"{safe[:longest]}…"


def reasons(name: str, error: ValueError) -> list[str]:
    """What is wrong with a property, as `field: what is wrong`."""
    return [f"{name}{what}" if what.startswith(".") else f"{name}: {what}" for what in error.args]


def missing(text: str | None) -> ValueError:
    """What is wrong with a required value that is absent, or else null."""
    return ValueError("is required, but absent" if text is None else "must not be null")


def _decoded(type_: Any, plain: str | None = None) -> Callable[[Sequence[Text]], list[Any] | None]:
    """A column as msgspec decodes it; in doubt where it refuses, and where a text that is not null is not `plain`."""
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
    # What msgspec took out of a record is JSON, and its first character says which. A second reading of an `extra` of
    # 3 kB would take 2 us, a tenth of the validation.
    firsts = {bytes(text)[:1] if isinstance(text, msgspec.Raw) else None for text in texts}
    return list(texts) if firsts <= {b"{", b"n"} else None


def _read_uuid(text: str) -> str:
    if not _UUID.fullmatch(text):
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
    return int(number) if number else 0


def _read_double(text: str) -> float:
    # Adding zero makes negative zero the zero that it is.
    number = float(text) + 0.0
    if not isfinite(number):
        raise ValueError("is a number beyond what a double can hold")
    return number


def _read_objects(text: str) -> str:
    return _checked(text, ((str(place), element, OBJECT) for place, element in enumerate(split_array(text))))


def _read_numbers(text: str) -> str:
    return _checked(text, ((name, number, DOUBLE) for name, number in split_object(text).items()))


def _read_progress(text: str) -> str:
    members = split_object(text)
    return _checked(text, ((name, members.get(name), rule) for name, rule in _PROGRESS.items()))


def _checked(text: str, parts: Iterable[tuple[str, str | None, Rule]]) -> str:
    """The text, if each named part of it can be read by its rule."""
    wrong: list[str] = []
    for name, part, rule in parts:
        try:
            if part is None or part == "null":
                raise missing(part)
            rule.value(part.encode())
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


# Spelt out, which takes a fifth less time than a repeated group.
_PLAIN_UUID = '"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"'
# msgspec rounds what is beyond microseconds, and leaves the years 1 to 9999 by an offset.
_PLAIN_TIME = r'"[0-9-]{10}[Tt ][0-9:]{8}(?:\.[0-9]{1,6})?(?:[Zz]|\+00:00)?"'
_PLAIN_DOUBLE = r"(?!-0)[0-9.eE+-]++"
# The second form is how floats below 0.0001 are written; 9 digits behind the point and e-9 are 18 in the fraction.
_PLAIN_COST = r'"?(?:[0-9]{1,20}(?:\.[0-9]{1,18})?|[0-9]{1,10}(?:\.[0-9]{1,9})?[eE]-0?[1-9])"?'
_TEXT = pa.string()

UUID = Rule("a UUID", "a string", _TEXT, _read_uuid, _decoded(str, _PLAIN_UUID))
TIME = Rule("a date-time", "a string", TIMESTAMP, _read_time, _decoded(datetime, _PLAIN_TIME))
STRING = Rule("a string", "a string", _TEXT, str, _decoded(str))
INTEGER = Rule("an integer", "a number", pa.int64(), _read_integer, _decoded(_BOUNDED))
DOUBLE = Rule("a number", "a number", pa.float64(), _read_double, _decoded(float, _PLAIN_DOUBLE))
COST = Rule(
    "a decimal number", "a string or a number", MONEY, read_money, _decoded(Decimal, _PLAIN_COST), rejects=False
)
OBJECT = Rule("an object", "an object", _TEXT, str, _as_objects, is_text=True)
OBJECTS = Rule("an array", "an array", _TEXT, _read_objects, _decoded(list[_AnyObject]), is_text=True)
_NUMBERS = Rule("an object", "an object", _TEXT, _read_numbers, _decoded(dict[str, float]), is_text=True)
PROGRESS = Rule("an object", "an object", _TEXT, _read_progress, _decoded(_Progress), is_text=True)
_PROGRESS = {"expected_run_count": INTEGER, "run_progress": DOUBLE, "evaluator_progress": _NUMBERS}
