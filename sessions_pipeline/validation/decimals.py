"""Decimal numbers read exactly, and safe from exponents that would fill the memory."""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal

from sessions_pipeline.validation.types import MONEY

_DECIMAL = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(?:[eE]([+-]?)0*([0-9]+))?")
# No exponent of this many digits can be made up for by the digits of a number that fits into an answer.
_EXPONENT_DIGITS = 12
_INTEGER_DIGITS = MONEY.precision - MONEY.scale
_LAST_DIGIT = Decimal(1).scaleb(-MONEY.scale)
_ROUNDING = Context(prec=MONEY.precision + 1, rounding=ROUND_HALF_EVEN)


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
        amount = exact.quantize(_LAST_DIGIT, context=_ROUNDING)
        if amount.adjusted() < _INTEGER_DIGITS:
            return amount if amount == exact else Rounded(amount)
    raise ValueError(f"has more than {_INTEGER_DIGITS} digits before the decimal point")
