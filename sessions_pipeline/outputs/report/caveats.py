"""What the numbers do not say: what is unknown, unread, rejected or kept from earlier readings."""

from collections.abc import Iterator
from datetime import UTC
from typing import NamedTuple

from sessions_pipeline.outputs.formatting import day as day_text
from sessions_pipeline.outputs.formatting import day_ranges, money, plural
from sessions_pipeline.outputs.report.data import ReportData


class Caveat(NamedTuple):
    """One thing to know before trusting a number. `fine` is False where the reader should look."""

    key: str
    fine: bool
    headline: str
    text: str


def caveats(data: ReportData) -> list[Caveat]:
    """The caveats, what needs a look first. Always the same ones, so that what is fine is said, too."""
    return sorted(_caveats(data), key=lambda caveat: caveat.fine)


def _caveats(data: ReportData) -> Iterator[Caveat]:
    if unpriced := data.now.unpriced:
        headline = f"{unpriced:,d} of {plural(data.now.sessions, 'experiment')} without a cost"
        yield Caveat("unpriced", False, headline, "It is unknown and not in the totals, so the true cost is higher.")
    else:
        yield Caveat("unpriced", True, "No cost is unknown", "Every experiment that was read has one.")
    if free := data.now.zero_with_tokens:
        text = "They used tokens; usually the model has no price in LangSmith. They count as $0.00."
        yield Caveat("zero_cost", False, f"{plural(free, 'experiment')} cost exactly $0", text)
    else:
        yield Caveat("zero_cost", True, "No suspicious zero", "No experiment used tokens and cost nothing.")
    yield _days(data)
    yield _rejected(data)
    if data.kept.count:
        text = "The API no longer gives their numbers; an earlier reading stands for them and is in the totals."
        headline = f"{plural(data.kept.count, 'experiment')} kept, {money(data.kept.cost)}"
        yield Caveat("kept", False, headline, text)
    else:
        text = "When its day was read last, the API still gave every experiment's numbers."
        yield Caveat("kept", True, "No number is from an earlier reading", text)
    if data.read_at is not None:
        headline = (
            f"Last read {day_text(data.read_at.astimezone(UTC).date())}, {data.read_at.astimezone(UTC):%H:%M} UTC"
        )
        yield Caveat("read_at", True, headline, "Costs of experiments that still ran then may have grown since.")
    if data.undated.sessions:
        text = f"They belong to no day and no total here. Known cost: {money(data.undated.cost)}."
        yield Caveat("undated", False, f"{plural(data.undated.sessions, 'experiment')} without a start time", text)


def _days(data: ReportData) -> Caveat:
    asked, unread, unfinished = len(data.days), data.unread, data.unfinished
    was = "was not over when it was" if len(unfinished) == 1 else "were not over when they were"
    late = f"{day_ranges(unfinished)} {was} last read; costs will grow." if unfinished else ""
    if unread:
        text = f"Nothing is known of {day_ranges(unread)}. {late}".rstrip()
        return Caveat("days", False, f"{len(unread):,d} of {plural(asked, 'day')} not read", text)
    if unfinished:
        is_last = unfinished == [data.last]
        headline = "The last day is not complete" if is_last else f"{plural(len(unfinished), 'day')} not complete"
        return Caveat("days", False, headline, late)
    headline = f"All {asked} days were read" if asked > 1 else "The day was read"
    return Caveat("days", True, headline, "And were over by then. A day without a row had no experiments.")


def _rejected(data: ReportData) -> Caveat:
    if not data.rejected:
        return Caveat("rejected", True, "No record was rejected", "All that were read passed validation.")
    dated = {day: count for day, count in data.rejected.items() if day is not None}
    where = []
    if dated:
        worst = max(dated, key=lambda day: (dated[day], day))
        peak = f", most on {day_text(worst)} ({dated[worst]:,d})" if dated[worst] > 1 else ""
        where.append(f"on {plural(len(dated), 'day')}{peak}")
    if undated := data.rejected.get(None):
        where.append(f"{undated:,d} without a readable day")
    text = f"They failed validation and are in no total: {'; '.join(where)}. See the table rejected_sessions."
    return Caveat("rejected", False, f"{plural(sum(data.rejected.values()), 'record')} rejected", text)
