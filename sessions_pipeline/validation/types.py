"""Arrow types of times and money, and parsers for the API's spelling of them.

Date-times are RFC 3339; a missing offset means UTC. Decimal numbers are read exactly, and a huge exponent can't exhaust
the memory.
"""

import re
from datetime import UTC, datetime
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_HALF_EVEN, ROUND_UP, Context, Decimal

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
MONEY = pa.decimal128(38, 18)

# Python's own parser also accepts week dates, the basic format and hour 24, so the form is checked first.
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?"
)
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# Keeps all digits. Beyond exponents of 18 digits a number becomes infinite, or the one next to zero.
_EXACT = Context(MAX_PREC, ROUND_UP, MIN_EMIN, MAX_EMAX, traps=[])
_INTEGER_DIGITS = MONEY.precision - MONEY.scale
# The smallest amount that a column of money holds.
LAST_DIGIT = Decimal(1).scaleb(-MONEY.scale)
_TOO_MUCH = Decimal(1).scaleb(_INTEGER_DIGITS)
_ROUNDING = Context(prec=MONEY.precision + 1, rounding=ROUND_HALF_EVEN)


def parse_timestamp(text: str) -> datetime:
    """Parse an RFC 3339 date-time into UTC; digits beyond microseconds are cut.

    Raises:
        ValueError: the text is not a date-time (a date alone, a number, second 60), or lies outside years 1 to 9999.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError("is not a date-time: not an RFC 3339 date-time")
    try:
        # Python cuts digits beyond microseconds, too. Rounding could move a time over midnight.
        return datetime.fromisoformat(text.upper() if match[1] else f"{text}Z").astimezone(UTC)
    except OverflowError:
        raise ValueError("is not a date-time: outside years 1 to 9999") from None
    except ValueError as error:
        raise ValueError(f"is not a date-time: {error}") from None


class Rounded(Decimal):
    """A cost that was sent with more decimal places than its column holds."""


def read_decimal(text: str) -> Decimal:
    """Parse `-?digits[.digits][e±digits]` exactly. The exponent may be huge, so never write the number out in digits.

    Beyond exponents of 18 digits it is infinite, or the number next to zero.

    Raises:
        ValueError: the text is something else, such as `+1`, `.5`, `5.`, `1_000` or NaN.
    """
    if not _DECIMAL.fullmatch(text):
        raise ValueError("is not a decimal number")
    return _EXACT.create_decimal(text)


def read_money(text: str) -> Decimal | None:
    """Parse an amount of US dollars exactly, or round it half to even (`Rounded`) if it has over 18 decimal places.

    None for an empty text, with which some versions of the API send an unknown cost.

    Raises:
        ValueError: it is not a decimal number, is negative, or has more than 20 digits before the decimal point.
    """
    if not text:
        return None
    exact = read_decimal(text)
    if exact < 0:
        raise ValueError("is negative")
    amount = min(exact, _TOO_MUCH).quantize(LAST_DIGIT, context=_ROUNDING)
    if amount >= _TOO_MUCH:
        raise ValueError(f"has more than {_INTEGER_DIGITS} digits before the decimal point")
    return amount if amount == exact else Rounded(amount)
