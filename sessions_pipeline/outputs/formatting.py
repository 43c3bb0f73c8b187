"""Numbers and names as people read them: rounded for the eye, never so far that something becomes nothing."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal

from sessions_pipeline.days import ranges

UNKNOWN = "unknown"
SHORT_ID = 8

# 38 digits fill a column; a sum of a year's columns, and its quotients, need some more.
EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)
_TWO_DIGITS = Context(prec=2, rounding=ROUND_HALF_EVEN)
_SMALLEST_SHOWN = Decimal("0.000001")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Control characters, line ends of other scripts, marks that turn the direction of writing, halves of surrogate pairs.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# A string, or what JSON does not have.
_NO_NUMBER = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")|-?(?:NaN|Infinity)', re.DOTALL)
# Excel takes the full-width forms for formulas, too.
_LIKE_A_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r]")


def exact(value: Decimal | None) -> str:
    """Every digit, without an exponent or closing zeros; empty for unknown."""
    if value is None:
        return ""
    digits = f"{value:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def money(value: Decimal | None) -> str:
    """US dollars for reading: cents, and below a dollar two significant digits.

    An unknown amount is `unknown`, and only zero is `$0.00`.
    """
    if value is None:
        return UNKNOWN
    sign, size = ("-" if value < 0 else ""), abs(value)
    if size == 0:
        return "$0.00"
    if size < _SMALLEST_SHOWN:
        return f"{sign}<$0.000001"
    # 0.0123 has its first digit at the second place, so its two digits need three places; 0.0996 is 0.10.
    places = max(2, 1 - _TWO_DIGITS.plus(size).adjusted())
    return f"{sign}${size.quantize(Decimal(1).scaleb(-places), context=EXACT):,f}"


def money_as_set(value: Decimal) -> str:
    """US dollars that somebody set, such as a limit: cents, and whatever digits follow them."""
    return f"${value:,.{max(2, len(exact(value).partition('.')[2]))}f}"


def count(value: int | None) -> str:
    """A whole number with thousands separators."""
    return UNKNOWN if value is None else f"{value:,d}"


def number(value: float | None, digits: int = 3) -> str:
    """A measurement with so many significant digits."""
    return UNKNOWN if value is None else f"{value:.{digits}g}"


def share(part: Decimal | None, whole: Decimal | None) -> str:
    """`part` of `whole` in percent; something is never shown as 0 %."""
    if part is None or whole is None or whole == 0:
        return "\N{EN DASH}"
    percent = EXACT.divide(100 * part, whole)
    if 0 < percent < Decimal("0.1"):
        return "<0.1 %"
    return f"{percent:.1f} %"


def change(now: Decimal | None, before: Decimal | None) -> str:
    """How `now` differs from `before`, signed, in percent; `new` and `unknown` where there is no percentage."""
    if now is None or before is None:
        return UNKNOWN
    if before == 0:
        return "no change" if now == 0 else "new"
    percent = EXACT.divide(100 * (now - before), before)
    if percent == 0:
        return "no change"
    if abs(percent) < Decimal("0.1"):
        return "+<0.1 %" if percent > 0 else "\N{MINUS SIGN}<0.1 %"
    if percent >= 1000:  # noqa: PLR2004 - beyond, a factor reads better
        return f"\N{MULTIPLICATION SIGN}{EXACT.divide(now, before):,.0f}"
    return f"{percent:+.1f} %".replace("-", "\N{MINUS SIGN}")


def signed(value: Decimal) -> str:
    """A difference of money with its sign."""
    sign = "+" if value > 0 else "\N{MINUS SIGN}"
    return money(value) if value == 0 else f"{sign}{money(abs(value))}"


def day(value: date) -> str:
    """`3 Mar 2025`, whatever the machine's language is."""
    return f"{value.day} {_MONTHS[value.month - 1]} {value.year}"


def short_day(value: date) -> str:
    """`3 Mar`."""
    return f"{value.day} {_MONTHS[value.month - 1]}"


def month(value: date) -> str:
    """`Mar 2025`."""
    return f"{_MONTHS[value.month - 1]} {value.year}"


def days(first: date, last: date) -> str:
    """A range of days, both included."""
    if first == last:
        return day(first)
    return f"{short_day(first) if first.year == last.year else day(first)} \N{EN DASH} {day(last)}"


def day_ranges(dates: Iterable[date]) -> str:
    """Days in words, neighbours joined: `3 Mar 2025, 5 Mar \N{EN DASH} 7 Mar 2025`."""
    return ", ".join(days(first, last) for first, last in ranges(dates))


def plural(number: int, noun: str) -> str:
    """`1 day`, `1,200 days`."""
    return f"{number:,d} {noun}{'' if number == 1 else 's'}"


def visible(text: str) -> str:
    """One line that does nothing to a terminal: control characters and the like become pictures or escapes."""
    return _UNSAFE.sub(lambda found: _pictured(ord(found[0])), text)


def _pictured(code: int) -> str:
    if code < 0x20:  # noqa: PLR2004 - Unicode has a picture for each of these
        return chr(0x2400 + code)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - as Python writes them


def json_line(text: str, encoding: str) -> str:
    """A JSON text as one line that an encoding can hold and that does nothing to a terminal; the same value.

    NaN and Infinity, which JSON does not have, are null.
    """

    def escaped(found: re.Match[str]) -> str:
        # White space between values; no string can hold it as it is.
        return " " if found[0] in "\t\r\n" else json.dumps(found[0])[1:-1]

    safe = _UNSAFE.sub(escaped, _NO_NUMBER.sub(lambda found: found[1] or "null", text))
    try:
        safe.encode(encoding)
    except UnicodeEncodeError:
        return re.sub(r"[^\x00-\x7f]", escaped, safe)
    return safe


def dataset_labels(ids: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """What each dataset is called: its name, else the first digits of its id. No two have the same label."""
    labels = {one: visible(names.get(one) or one[:SHORT_ID]) for one in sorted(set(ids))}
    for digits in (SHORT_ID, None):
        taken = Counter(labels.values())
        for one, label in labels.items():
            if taken[label] > 1:
                labels[one] = f"{visible(names[one])} ({one[:digits]})" if names.get(one) else one[:digits]
    return labels


def spreadsheet_text(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if _LIKE_A_FORMULA.match(name) else name
