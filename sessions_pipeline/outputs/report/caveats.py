"""What the numbers do not say: what is unknown, unread, rejected or kept from earlier readings."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sessions_pipeline.outputs.formatting import day as day_text
from sessions_pipeline.outputs.formatting import day_ranges, money, plural
from sessions_pipeline.outputs.report.data import ReportData


@dataclass(frozen=True, slots=True)
class Caveat:
    """One thing to know before trusting a number. `fine` is False where the reader should look."""

    key: str
    fine: bool
    headline: str
    text: str


def caveats(data: ReportData) -> list[Caveat]:
    """The caveats, what needs a look first. Always the same ones, so that what is fine is said, too."""
    found = [
        _unpriced(data),
        _zero_costs(data),
        _days(data),
        _rejected(data),
        _kept(data),
        _read_at(data),
        *_undated(data),
    ]
    return sorted(found, key=lambda caveat: caveat.fine)


def _unpriced(data: ReportData) -> Caveat:
    unpriced, sessions = data.now.unpriced, data.now.sessions
    if not unpriced:
        return Caveat("unpriced", True, "Every experiment has a cost", "Nothing is missing from the totals.")
    text = "Their cost is unknown and not in the totals, so the true cost is higher."
    return Caveat("unpriced", False, f"{unpriced:,d} of {plural(sessions, 'experiment')} without a cost", text)


def _zero_costs(data: ReportData) -> Caveat:
    count = data.now.zero_with_tokens
    if not count:
        return Caveat("zero_cost", True, "No suspicious zero", "No experiment used tokens and cost nothing.")
    text = "They used tokens; usually the model has no price in LangSmith. They count as $0.00."
    return Caveat("zero_cost", False, f"{plural(count, 'experiment')} cost exactly $0", text)


def _days(data: ReportData) -> Caveat:
    asked, unread = len(data.days), len(data.unread)
    running = data.read_at is not None and data.read_at.astimezone(UTC).date() <= data.last
    late = f"{day_text(data.last)} was not over when it was read; its costs will grow."
    if not unread and running:
        return Caveat("days", False, "The last day is not complete", f"All {asked} days were read. {late}")
    if not unread:
        headline = f"All {asked} days were read" if asked > 1 else "The day was read"
        return Caveat("days", True, headline, "A day without a row had no experiments.")
    text = f"Nothing is known of {day_ranges(data.unread)}.{f' {late}' if running else ''}"
    return Caveat("days", False, f"{unread:,d} of {asked:,d} days not read", text)


def _rejected(data: ReportData) -> Caveat:
    count = sum(data.rejected.values())
    if not count:
        return Caveat("rejected", True, "No record was rejected", "All that the API sent was understood.")
    undated = data.rejected.get(None, 0)
    dated = [(day, rejected) for day, rejected in data.rejected.items() if day is not None]
    where = []
    if dated:
        worst, most = max(dated, key=lambda item: (item[1], item[0]))
        peak = f", most on {day_text(worst)} ({most:,d})" if most > 1 else ""
        where.append(f"on {plural(len(dated), 'day')}{peak}")
    if undated:
        where.append(f"{undated:,d} without a readable day")
    text = f"They failed validation and are in no total: {'; '.join(where)}. See the table rejected_sessions."
    return Caveat("rejected", False, f"{plural(count, 'record')} rejected", text)


def _kept(data: ReportData) -> Caveat:
    kept = data.kept
    if not kept.count:
        return Caveat("kept", True, "All readings are current", "The API still gives every experiment's numbers.")
    text = "The API no longer gives their numbers; an earlier reading stands for them and is in the totals."
    return Caveat("kept", False, f"{plural(kept.count, 'experiment')} kept, {money(kept.cost)}", text)


def _read_at(data: ReportData) -> Caveat:
    if data.read_at is None:
        return Caveat("read_at", False, "Time of reading unknown", "None of the sessions says when it was read.")
    text = "Costs of experiments that still ran then may have grown since."
    return Caveat("read_at", True, f"Read {moment(data.read_at)}", text)


def _undated(data: ReportData) -> Iterator[Caveat]:
    if data.undated.sessions:
        text = f"They belong to no day and no total here. Known cost: {money(data.undated.cost)}."
        yield Caveat("undated", False, f"{plural(data.undated.sessions, 'experiment')} without a start time", text)


def moment(value: datetime) -> str:
    """A time in UTC, to the minute."""
    at = value.astimezone(UTC)
    return f"{day_text(at.date())}, {at:%H:%M} UTC"
