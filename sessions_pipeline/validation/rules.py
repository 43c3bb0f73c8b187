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
from typing import Annotated, Any, get_type_hints
from uuid import UUID

import msgspec
import pyarrow as pa

from sessions_pipeline.validation.json_text import UNREADABLE, flaw, is_deep, split_array, split_members, type_name
from sessions_pipeline.validation.types import MONEY, TIMESTAMP, parse_timestamp, read_decimal, read_money

# A property's JSON text: a view into the record's text, or a copy.
Text = msgspec.Raw | bytes

_LONGEST_NAME = 80
IS_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """How the values of a property are read.

    Attributes:
        json_types: the JSON types that a value may have, in a text that contains their names (see `type_name`).
        type: of the column.
        read: turns a string, or the JSON text of another value, into the column's value. Raises a `ValueError` whose
            arguments are what is wrong; one about a part of the value begins with that part's name, as `.name: `.
        quick: turns a whole column of texts into the values that `value` would give; None if any of them is in doubt.
        expected: what a value must be, in the words of the reasons for rejection; if empty, `json_types` says it.
        is_text: the column's values are the texts as sent; `read` and `quick` only check them.
        rejects: whether an unreadable value rejects its record. If not, it becomes null with an entry in `problems`.
    """

    json_types: str
    type: pa.DataType
    read: Callable[[str], Any]
    quick: Callable[[Sequence[Text]], list[Any] | None]
    expected: str = ""
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
            raise ValueError(f"must be {self.expected or self.json_types}, not {found}")
        return self.read(json.loads(text) if found == "a string" else text)

    def column(self, texts: Sequence[Text], errors: dict[int, ValueError], first: int = 0) -> list[Any]:
        """The values of a column, None for null and for unreadable texts, whose errors are added to `errors` by index.

        `first` is the index of the first text.
        """
        half = len(texts) // 2
        if not half:
            # Without `quick`, which has nearly always been in doubt before a column is halved down to one text.
            try:
                return [self.value(bytes(texts[0]))]
            except ValueError as error:
                errors[first] = error
                return [None]
        values = self.quick(texts)
        if values is not None and self.is_text:
            values = list(map(bytes, texts))
            values = None if any(map(is_deep, values)) else [None if text == b"null" else text for text in values]
        if values is not None:
            return values
        return self.column(texts[:half], errors, first) + self.column(texts[half:], errors, first + half)


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


def _read_integer(text: str) -> int:
    number = read_decimal(text)
    if number != number.to_integral_value():
        raise ValueError("must be an integer, not a fraction")
    if not -(2**63) <= number < 2**63:
        raise ValueError("is an integer beyond 64 bits")
    return int(number)


def _read_double(text: str) -> float:
    # Adding zero turns negative zero into zero.
    number = float(text) + 0.0
    if not isfinite(number):
        raise ValueError("is a number beyond what a double can hold")
    return number


def _read_objects(text: str) -> str:
    elements = enumerate(split_array(text))
    return _checked(text, ((str(index), element, RULES[dict[str, Any]]) for index, element in elements))


def _read_numbers(text: str) -> str:
    return _checked(text, ((name, number, RULES[float]) for name, number in dict(split_members(text)).items()))


def _read_progress(text: str) -> str:
    members = dict(split_members(text))
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


_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass
class ExperimentProgress:
    """Progress of an experiment: runs expected, and the shares (0 to 1) of runs done and of each evaluator's work."""

    expected_run_count: _Int64
    run_progress: float
    evaluator_progress: dict[str, float]


# Written out in full, as this matches in a fifth less time than a repeated group, and possessive (`+`), which takes a
# third less again.
_PLAIN_UUID = '"[0-9a-f]{8}+-[0-9a-f]{4}+-[0-9a-f]{4}+-[0-9a-f]{4}+-[0-9a-f]{12}+"'
# msgspec rounds digits beyond microseconds, and an offset may take it outside the years 1 to 9999.
_PLAIN_TIME = r'"[0-9-]{10}+[Tt ][0-9:]{8}+(?:\.[0-9]{1,6}+)?+(?:[Zz]|\+00:00)?+"'
# No negative zero, nor what is too small for a double and would become it.
_PLAIN_DOUBLE = r"(?:[0-9][0-9.eE+-]*+|-[1-9][0-9.]*+)"
# The second form is how floats below 0.0001 are written. 9 digits after the point with e-9 make 18 decimal places.
_PLAIN_COST = r'"?+(?:[0-9]{1,20}+(?:\.[0-9]{1,18}+)?+|[0-9]{1,10}+(?:\.[0-9]{1,9}+)?+[eE]-0?[1-9])"?+'
_TEXT = pa.string()

RULES: dict[Any, Rule] = {
    UUID: Rule("a string", _TEXT, _read_uuid, _decoded(str, _PLAIN_UUID), "a UUID"),
    datetime: Rule("a string", TIMESTAMP, parse_timestamp, _decoded(datetime, _PLAIN_TIME), "a date-time"),
    str: Rule("a string", _TEXT, str, _decoded(str)),
    int: Rule("a number", pa.int64(), _read_integer, _decoded(_Int64), "an integer"),
    float: Rule("a number", pa.float64(), _read_double, _decoded(float, _PLAIN_DOUBLE)),
    Decimal: Rule(
        "a string or a number", MONEY, read_money, _decoded(Decimal, _PLAIN_COST), "a decimal number", rejects=False
    ),
    dict[str, Any]: Rule("an object", _TEXT, str, _as_objects, is_text=True),
    # A bare `Struct` is an object with any properties, none of which is kept.
    list[dict[str, Any]]: Rule("an array", _TEXT, _read_objects, _decoded(list[msgspec.Struct]), is_text=True),
    dict[str, float]: Rule("an object", _TEXT, _read_numbers, _decoded(dict[str, float]), is_text=True),
    ExperimentProgress: Rule("an object", _TEXT, _read_progress, _decoded(ExperimentProgress), is_text=True),
}
"""How a property of each type is read."""
_PROGRESS = {name: RULES[kind] for name, kind in get_type_hints(ExperimentProgress).items()}
