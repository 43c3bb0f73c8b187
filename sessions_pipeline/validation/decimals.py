"""Decimal numbers taken apart as text: exact, and safe from exponents that would fill the memory."""

import re
from typing import NamedTuple

_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?)0*([0-9]+))?")
# No exponent of this many digits can be made up for by the digits of a number that fits into an answer.
_EXPONENT_DIGITS = 12


class Parts(NamedTuple):
    """The number `digits` times ten to the power of `exponent`; `digits` has no zeros at its ends, and none for 0."""

    is_negative: bool
    digits: str
    exponent: int


def decompose(text: str) -> Parts:
    """A decimal number, with or without an exponent, as its significant digits.

    Raises:
        ValueError: the text is no decimal number; signs of plus, spaces, underscores, `.5` and `5.` are not read.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError("is not a decimal number")
    sign, integer, fraction, exponent_sign, exponent_digits = match.groups("")
    significant = (integer + fraction).lstrip("0")
    digits = significant.rstrip("0")
    if not digits:
        return Parts(bool(sign), "", 0)
    if len(exponent_digits) > _EXPONENT_DIGITS:
        exponent_digits = "9" * _EXPONENT_DIGITS
    exponent = int(f"{exponent_sign}{exponent_digits or 0}") - len(fraction) + len(significant) - len(digits)
    return Parts(bool(sign), digits, exponent)
