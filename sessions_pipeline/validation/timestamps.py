"""Reading the API's date-times: RFC 3339, where a missing offset means UTC."""

import re
from datetime import UTC, datetime

# Python's own reader also takes week dates, basic format and hour 24, so the form is checked first. At most six
# digits of the fraction are captured: what is beyond microseconds is cut, never rounded over midnight.
_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]((?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2})(?:(\.[0-9]{1,6})[0-9]*)?"
    r"(?:[Zz]|([+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))?"
)


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
