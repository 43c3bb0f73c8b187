"""Moments and money: their Arrow types, and how the API spells them.

Date-times are RFC 3339, where a missing offset means UTC. Decimal numbers are read exactly, and are safe from exponents
that would fill the memory.
"""

import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
MONEY = pa.decimal128(38, 18)

# Python's own reader also takes week dates, basic format and hour 24, so the form is checked first. At most six
# digits of the fraction are captured: what is beyond microseconds is cut, never rounded over midnight.
_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]((?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2})(?:(\.[0-9]{1,6})[0-9]*)?"
    r"(?:[Zz]|([+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))?"
)
_DECIMAL = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(?:[eE]([+-]?)0*([0-9]+))?")
# No exponent of this many digits can be made up for by the digits of a number that fits into an answer.
_EXPONENT_DIGITS = 12
_INTEGER_DIGITS = MONEY.precision - MONEY.scale
# The smallest amount that a column of money holds.
LAST_DIGIT = Decimal(1).scaleb(-MONEY.scale)
_ROUNDING = Context(prec=MONEY.precision + 1, rounding=ROUND_HALF_EVEN)


def parse_timestamp(text: str) -> datetime:
    """The moment that an RFC 3339 date-time names, in UTC, digits beyond microseconds cut.

    Raises:
        ValueError: the text is no date-time (a date alone, a number, second 60), or lies outside years 1 to 9999.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 date-time")
    day, time, fraction, offset = match.groups()
    try:
        return datetime.fromisoformat(f"{day}T{time}{fraction or ''}{offset or '+00:00'}").astimezone(UTC)
    except OverflowError:
        raise ValueError("outside years 1 to 9999") from None


class Rounded(Decimal):
    """A cost that had more digits than its column holds."""


def read_decimal(text: str) -> Decimal:
    """The number that `-?digits[.digits][e±digits]` names, exact. Its exponent may be huge: don't write it out.

    Raises:
        ValueError: the text is something else, such as `+1`, `.5`, `5.`, `1_000` or NaN.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError("is not a decimal number")
    number, sign, exponent = match.groups("")
    if len(exponent) > _EXPONENT_DIGITS:
        exponent = "9" * _EXPONENT_DIGITS
    return Decimal(f"{number}e{sign}{exponent or 0}")


def read_money(text: str) -> Decimal | None:
    """An amount of US dollars, exact; as `Rounded`, half to even, if it has more digits than the column's 18.

    None for no text, which is how some versions of the API spell an unknown cost.

    Raises:
        ValueError: it is no decimal number, negative, or has more than 20 digits before the point.
    """
    if not text:
        return None
    exact = read_decimal(text)
    if not exact:
        return Decimal(0)
    if exact < 0:
        raise ValueError("is negative")
    if exact.adjusted() < _INTEGER_DIGITS:
        amount = exact.quantize(LAST_DIGIT, context=_ROUNDING)
        if amount.adjusted() < _INTEGER_DIGITS:
            return amount if amount == exact else Rounded(amount)
    raise ValueError(f"has more than {_INTEGER_DIGITS} digits before the decimal point")
