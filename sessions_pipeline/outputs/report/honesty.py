"""What the numbers do not say: what is unknown, unread, rejected or kept from earlier readings."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sessions_pipeline.outputs import formatting as figures
from sessions_pipeline.outputs.report.data import ReportData
from sessions_pipeline.outputs.report.spending import Spending


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to know before trusting a number. `fine` is False where the reader should look."""

    key: str
    fine: bool
    headline: str
    text: str


def notes(data: ReportData, spent: Spending) -> list[Note]:
    """The notes, always the same ones, so that what is fine is said, too."""
    found = [
        _unpriced(spent),
        _zero_costs(spent),
        _days(data, spent),
        _rejected(data),
        _kept(data),
        _read_at(data),
        *_undated(spent),
    ]
    return sorted(found, key=lambda note: note.fine)


def _unpriced(spent: Spending) -> Note:
    unpriced, sessions = spent.now.unpriced, spent.now.sessions
    if not unpriced:
        return Note("unpriced", True, "Every experiment has a cost", "Nothing is missing from the totals.")
    text = "Their cost is unknown and not in the totals, so the true cost is higher."
    return Note("unpriced", False, f"{unpriced:,d} of {_experiments(sessions)} without a cost", text)


def _zero_costs(spent: Spending) -> Note:
    count = spent.now.zero_with_tokens
    if not count:
        return Note("zero_cost", True, "No suspicious zero", "No experiment used tokens and cost nothing.")
    text = "They used tokens; usually the model has no price in LangSmith. They count as $0.00."
    return Note("zero_cost", False, f"{_experiments(count)} cost exactly $0", text)


def _days(data: ReportData, spent: Spending) -> Note:
    asked, unread = len(data.days), len(spent.unread)
    running = data.read_at is not None and data.read_at.astimezone(UTC).date() <= data.last
    late = f"{figures.day(data.last)} was not over when it was read; its costs will grow."
    if not unread and running:
        return Note("days", False, "The last day is not complete", f"All {asked} days were read. {late}")
    if not unread:
        headline = f"All {asked} days were read" if asked > 1 else "The day was read"
        return Note("days", True, headline, "A day without a row had no experiments.")
    text = f"Nothing is known of {figures.ranges(spent.unread)}.{f' {late}' if running else ''}"
    return Note("days", False, f"{unread:,d} of {asked:,d} days not read", text)


def _rejected(data: ReportData) -> Note:
    by_day = [(row["start_date"], row["rejected"]) for row in data.rejected.to_pylist() if row["rejected"]]
    count = sum(rejected for _, rejected in by_day)
    if not count:
        return Note("rejected", True, "No record was rejected", "All that the API sent was understood.")
    undated = sum(rejected for day, rejected in by_day if day is None)
    dated = [(day, rejected) for day, rejected in by_day if day is not None]
    where = []
    if dated:
        worst, most = max(dated, key=lambda item: (item[1], item[0]))
        peak = f", most on {figures.day(worst)} ({most:,d})" if most > 1 else ""
        where.append(f"on {_days_word(len(dated))}{peak}")
    if undated:
        where.append(f"{undated:,d} without a readable day")
    text = f"They failed validation and are in no total: {'; '.join(where)}. See the table rejected_sessions."
    return Note("rejected", False, f"{count:,d} record{'' if count == 1 else 's'} rejected", text)


def _kept(data: ReportData) -> Note:
    kept = data.kept
    if not kept.count:
        return Note("kept", True, "All readings are current", "The API still gives every experiment's numbers.")
    text = "The API no longer gives their numbers; an earlier reading stands for them and is in the totals."
    return Note("kept", False, f"{_experiments(kept.count)} kept, {figures.money(kept.cost)}", text)


def _read_at(data: ReportData) -> Note:
    if data.read_at is None:
        return Note("read_at", False, "Time of reading unknown", "None of the sessions says when it was read.")
    text = "Costs of experiments that still ran then may have grown since."
    return Note("read_at", True, f"Read {moment(data.read_at)}", text)


def _undated(spent: Spending) -> Iterator[Note]:
    if spent.undated.sessions:
        text = f"They belong to no day and no total here. Known cost: {figures.money(spent.undated.cost)}."
        yield Note("undated", False, f"{_experiments(spent.undated.sessions)} without a start time", text)


def moment(value: datetime) -> str:
    """A time in UTC, to the minute."""
    at = value.astimezone(UTC)
    return f"{figures.day(at.date())}, {at:%H:%M} UTC"


def _experiments(count: int) -> str:
    return f"{count:,d} experiment{'' if count == 1 else 's'}"


def _days_word(count: int) -> str:
    return f"{count:,d} day{'' if count == 1 else 's'}"
