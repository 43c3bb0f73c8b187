"""Numbers, days and names as text for people. Amounts are rounded, but never so far that one looks like zero."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal

from sessions_pipeline.days import ranges

UNKNOWN = "unknown"
SHORT_ID = 8

# A column has 38 digits. Sums of many values, and their quotients, need some more.
_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)
_TWO_DIGITS = Context(prec=2, rounding=ROUND_HALF_EVEN)
_SMALLEST_SHOWN = Decimal("0.000001")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Control characters, Unicode line separators, marks that change the direction of writing, lone surrogates, and others
# without a width, which would let two names look the same. Not the joiners and tags, which emoji consist of.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
# Matches NaN and Infinity, which JSON does not have. Strings are matched, too, so that their contents are skipped.
_STRING_OR_NAN = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")|-?(?:NaN|Infinity)', re.DOTALL)
# Excel takes the full-width characters for the start of a formula, too.
_LIKE_A_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r]")


def exact(value: Decimal | None) -> str:
    """All digits of an amount, without an exponent or trailing zeros; empty if unknown."""
    if value is None:
        return ""
    digits = f"{value:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def money(value: Decimal | None) -> str:
    """US dollars, rounded to cents, or below a dollar to two significant digits: `$1,234.50`, `$0.0012`.

    An unknown amount is `unknown`, and only zero is `$0.00`.
    """
    if value is None:
        return UNKNOWN
    sign, size = ("-" if value < 0 else ""), abs(value)
    if size == 0:
        return "$0.00"
    if size < _SMALLEST_SHOWN:
        return f"{sign}<$0.000001"
    # 0.0123 has its first digit at the second decimal place, so two digits need three places. 0.0996 becomes 0.10.
    places = max(2, 1 - _TWO_DIGITS.plus(size).adjusted())
    return f"{sign}${size.quantize(Decimal(1).scaleb(-places), context=_EXACT):,f}"


def at_least(value: Decimal | None, is_part: object, text: str = "") -> str:
    """An amount, or a text computed from it. It begins with `≥ ` if costs that belong to it are unknown."""
    return f"{'≥ ' if is_part and value is not None else ''}{text or money(value)}"


def money_as_set(value: Decimal) -> str:
    """US dollars that are not to be rounded, such as a limit: at least cents, and all further digits."""
    return f"${value:,.{max(2, len(exact(value).partition('.')[2]))}f}"


def count(value: int | None) -> str:
    """A whole number with thousands separators."""
    return UNKNOWN if value is None else f"{value:,d}"


def share(part: Decimal | None, whole: Decimal | None) -> str:
    """`part` of `whole` in percent: `12.5 %`. Only zero is `0.0 %`; a dash if there is no percentage."""
    if part is None or whole is None or whole == 0:
        return "\N{EN DASH}"
    percent = _EXACT.divide(100 * part, whole)
    if 0 < percent < Decimal("0.1"):
        return "<0.1 %"
    return f"{percent:.1f} %"


def change(now: Decimal | None, before: Decimal | None) -> str:
    """The change from `before` to `now` in percent, with its sign; beyond +1,000 %, a factor.

    `new` if only `before` is zero, `no change` if the two are equal, and `unknown` if one of them is.
    """
    if now is None or before is None:
        return UNKNOWN
    if before == 0:
        return "no change" if now == 0 else "new"
    percent = _EXACT.divide(100 * (now - before), before)
    if percent == 0:
        return "no change"
    if abs(percent) < Decimal("0.1"):
        return "+<0.1 %" if percent > 0 else "\N{MINUS SIGN}<0.1 %"
    if percent >= 1000:  # noqa: PLR2004 - from here on, a factor reads better
        return f"\N{MULTIPLICATION SIGN}{_EXACT.divide(now, before):,.0f}"
    return f"{percent:+.1f} %".replace("-", "\N{MINUS SIGN}")


def signed(value: Decimal) -> str:
    """A difference in US dollars with its sign: `+$1.20`."""
    sign = "+" if value > 0 else "\N{MINUS SIGN}"
    return money(value) if value == 0 else f"{sign}{money(abs(value))}"


def day(value: date) -> str:
    """`3 Mar 2025`, whatever the machine's locale is."""
    return f"{value.day} {_MONTHS[value.month - 1]} {value.year}"


def short_day(value: date) -> str:
    """`3 Mar`."""
    return f"{value.day} {_MONTHS[value.month - 1]}"


def month(value: date) -> str:
    """`Mar 2025`."""
    return f"{_MONTHS[value.month - 1]} {value.year}"


def days(first: date, last: date) -> str:
    """A range of days, both included: `3 Mar \N{EN DASH} 7 Mar 2025`."""
    if first == last:
        return day(first)
    return f"{short_day(first) if first.year == last.year else day(first)} \N{EN DASH} {day(last)}"


def day_ranges(dates: Iterable[date]) -> str:
    """Days as text, with consecutive ones as ranges: `3 Mar 2025, 5 Mar \N{EN DASH} 7 Mar 2025`."""
    return ", ".join(days(first, last) for first, last in ranges(dates))


def plural(number: int, noun: str) -> str:
    """`1 day`, `1,200 days`."""
    return f"{number:,d} {noun}{'' if number == 1 else 's'}"


def visible(text: str) -> str:
    """The text as one line that is safe to print: control characters and the like become symbols or escapes."""
    # Unicode has a symbol for each control character before the space, Python an escape for all others.
    return _UNSAFE.sub(lambda match: chr(0x2400 + ord(match[0])) if match[0] < " " else repr(match[0])[1:-1], text)


def json_line(text: str, encoding: str) -> str:
    """The same JSON value as one line that is safe to print and can be encoded in `encoding`.

    NaN and Infinity, which JSON does not have, become null.
    """

    def escaped(match: re.Match[str]) -> str:
        # A raw tab or line end can only be between values: JSON strings hold none.
        return " " if match[0] in "\t\r\n" else json.dumps(match[0])[1:-1]

    safe = _UNSAFE.sub(escaped, _STRING_OR_NAN.sub(lambda match: match[1] or "null", text))
    try:
        safe.encode(encoding)
    except UnicodeEncodeError:
        return re.sub(r"[^\x00-\x7f]", escaped, safe)
    return safe


def dataset_labels(ids: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """A label for each dataset, by id: its name, else the first digits of its id. No two datasets share a label.

    Those that would share one get the first digits of their id in brackets or, if that is not enough, all of them.
    """
    labels = {id_: visible(names.get(id_) or id_[:SHORT_ID]) for id_ in sorted(set(ids))}
    for digits in (SHORT_ID, None):
        taken = Counter(labels.values())
        for id_, label in labels.items():
            if taken[label] > 1:
                labels[id_] = f"{visible(names[id_])} ({id_[:digits]})" if names.get(id_) else id_[:digits]
    return labels


def spreadsheet_text(name: str) -> str:
    """A name that no spreadsheet takes for a formula: if it begins like one, a quote is put before it."""
    return f"'{name}" if _LIKE_A_FORMULA.match(name) else name
