"""What the numbers do not say: what is unknown, unread, rejected, uncounted or kept from earlier readings."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from typing import NamedTuple

from sessions_pipeline.outputs.formatting import day as day_text
from sessions_pipeline.outputs.formatting import day_ranges, money, plural, visible
from sessions_pipeline.outputs.report.data import ReportData

# What the tables sessions and rejected_sessions say.
EXAMINED = {"problems", "rejected", "kept"}


class Caveat(NamedTuple):
    """One thing to know before trusting a number. `fine` is False where the reader should look."""

    key: str
    fine: bool
    headline: str
    text: str


def caveats(data: ReportData) -> list[Caveat]:
    """The caveats, what needs a look first. Always the same ones, so that what is known to be fine is said, too."""
    known = [one for one in _caveats(data) if not (data.unexamined and one.fine and one.key in EXAMINED)]
    return sorted(known, key=lambda caveat: caveat.fine)


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
    if problems := data.doubtful.problems:
        text = "What LangSmith sent for it is negative, or no amount. See the column problems of the table sessions."
        yield Caveat("problems", False, f"{plural(problems, 'experiment')} with a cost that can't be used", text)
    else:
        yield Caveat("problems", True, "No cost had to be left out", "All that were sent are amounts.")
    yield from _days(data)
    yield _rejected(data)
    yield from _judges(data)
    if data.doubtful.kept:
        text = "The API no longer gives their numbers; an earlier reading stands for them and is in the totals."
        headline = f"{plural(data.doubtful.kept, 'experiment')} kept, {money(data.doubtful.cost)}"
        yield Caveat("kept", False, headline, text)
    else:
        text = "When its day was read last, the API still gave every experiment's numbers."
        yield Caveat("kept", True, "No number is from an earlier reading", text)
    if data.undated.sessions:
        text = f"They belong to no day and no total here. Known cost: {money(data.undated.cost)}."
        yield Caveat("undated", False, f"{plural(data.undated.sessions, 'experiment')} without a start time", text)
    else:
        yield Caveat("undated", True, "Every experiment has a day", "None was read without a start time.")


def _days(data: ReportData) -> Iterator[Caveat]:
    asked, late = len(data.days), data.open_days
    if data.unread:
        headline = f"{len(data.unread):,d} of {plural(asked, 'day')} not read"
        yield Caveat("unread", False, headline, f"Nothing is known of {day_ranges(data.unread)}.")
    else:
        headline = f"All {asked} days were read" if asked > 1 else "The day was read"
        yield Caveat("unread", True, headline, "A day without a row had no experiments.")
    for workspace, days in data.unread_of.items():
        headline = f"A workspace was not read on {plural(len(days), 'day')}"
        yield Caveat("workspaces", False, headline, f"Nothing is known of {workspace} on {day_ranges(days)}.")
    if data.unexamined:
        text = f"What was rejected or left out there is not known: {day_ranges(data.unexamined)}."
        headline = f"{plural(len(data.unexamined), 'day')} without the tables sessions and rejected_sessions"
        yield Caveat("unexamined", False, headline, text)
    if late:
        was = "was not over when it was" if len(late) == 1 else "were not over when they were"
        headline = "The last day is not complete" if late == [data.last] else f"{plural(len(late), 'day')} not complete"
        yield Caveat("open_days", False, headline, f"{day_ranges(late)} {was} last read; costs will grow.")
    else:
        yield Caveat("open_days", True, "Every day that was read was over", "No experiment can start on it any more.")
    parts = [bucket.long_label for bucket in data.buckets if bucket.is_part]
    if parts:
        text = f"The period has only {' and '.join(parts)} of it, so it can't be compared with whole ones."
        headline = f"{plural(len(parts), 'part')} of a {data.unit}"
        yield Caveat("parts", False, headline, text)
    unnoted = [day for day in data.days if day in data.days_read and day not in data.readings]
    if unnoted:
        text = f"No note of it, or a broken one, is in the lake: {day_ranges(unnoted)}."
        yield Caveat("read_at", False, f"No time of the last reading of {plural(len(unnoted), 'day')}", text)
    elif data.readings:
        at = max(data.readings.values()).astimezone(UTC)
        text = "Costs of experiments that still ran then may have grown since."
        yield Caveat("read_at", True, f"Last read {day_text(at.date())}, {at:%H:%M} UTC", text)


def _judges(data: ReportData) -> Iterator[Caveat]:
    spent, readings = data.spent, data.judge_readings
    uncounted = spent.not_measured + spent.unknown
    reasons = [f"{workspace}: {problem}" for workspace, problem in readings.problems.items()]
    skipped = sum((Counter(reading.skipped) for reading in readings.readings.values()), Counter[str]())
    reasons += [f"{count:,d}: {reason}" for reason, count in skipped.items()]
    why = f" At the last try, {'; '.join(map(visible, reasons))}." if reasons else ""
    if not spent.measured:
        text = (
            "Evaluators trace theirs to a project of their own; the job measure_judge_costs has measured none of them."
        )
        yield Caveat("judges", False, "Judge calls are not counted", text + why)
    elif uncounted:
        experiments = plural(spent.measured + spent.not_measured, "experiment")
        headline = f"Judges of {uncounted:,d} of {experiments} not counted"
        yield Caveat("judges", False, headline, f"What they cost is not known, so the true cost is higher.{why}")
    else:
        text = "What they cost stands apart from the experiments' own cost."
        yield Caveat("judges", True, "The judges of every experiment were measured", text)
    inexact = [reading for reading in readings.readings.values() if not reading.is_exact]
    below = [reading for reading in readings.readings.values() if (reading.unattributed_cost or 0) < 0]
    if below:
        text = "More is claimed by experiments than their project has spent: something is counted twice, or wrongly."
        yield Caveat("unattributed", False, "Judges' costs do not add up", text)
    elif inexact:
        text = "Their project moved while it was read, or retention has emptied some of it."
        yield Caveat("unattributed", False, "What judges spent on no experiment is inexact", text)


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
