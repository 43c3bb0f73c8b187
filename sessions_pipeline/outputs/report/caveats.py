"""The report's caveats: which costs are unknown, unread, rejected, not counted, or kept from earlier readings."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from typing import NamedTuple

import pyarrow.compute as pc

from sessions_pipeline.outputs.formatting import at_least, day_ranges, money, plural, visible
from sessions_pipeline.outputs.formatting import day as day_text
from sessions_pipeline.outputs.report.data import ReportData
from sessions_pipeline.outputs.spending import Totals
from sessions_pipeline.tables.aggregate import known_sum
from sessions_pipeline.tables.day_metadata import rests_on_kept_readings

# Headline and text for caveats that do not apply, by key.
FINE = {
    "unpriced": ("No cost is unknown", "Every experiment that was read has one."),
    "zero_cost": ("No suspicious zero", "No experiment used tokens and cost nothing."),
    "problems": ("No cost had to be left out", "Every cost that was sent could be used."),
    "unread": ("Every day was read", "A day without a row had no experiments."),
    "open_days": ("Every day that was read was over", "No experiment can start on it any more."),
    "rejected": ("No record was rejected", "All records that were read passed validation."),
    "judges": ("The judges of every experiment were measured", "Their cost is shown apart from the experiments' own."),
    "kept": ("No number is from an earlier reading", "The last readings still had every experiment's numbers."),
    "undated": ("Every experiment has a day", "All have a start time."),
}


class Caveat(NamedTuple):
    """Something to know before trusting a number. `fine` is False if it needs the reader's attention."""

    key: str
    headline: str
    text: str
    fine: bool = False


def caveats(data: ReportData) -> list[Caveat]:
    """The caveats; those that need attention come first. Those that do not apply are listed as fine."""
    found = [*_costs(data), *_days(data), *_rejected(data), *_judges(data)]
    # Without the tables sessions and rejected_sessions, nothing can be said about three of them.
    not_fine = {caveat.key for caveat in found} | ({"problems", "rejected", "kept"} if data.unexamined else set())
    # A day that `--as-of` rebuilt as it was before its end is listed as rebuilt, but was not over either.
    not_fine |= {"open_days"} if data.rebuilt & data.unfinished & {*data.days} else set()
    if data.readings and "read_at" not in not_fine:
        at = max(data.readings.values()).astimezone(UTC)
        text = "Costs of experiments that still ran then may have grown since."
        found.append(Caveat("read_at", f"Last read {day_text(at.date())}, {at:%H:%M} UTC", text, fine=True))
    return found + [Caveat(key, *words, fine=True) for key, words in FINE.items() if key not in not_fine]


def _costs(data: ReportData) -> Iterator[Caveat]:
    now, undated = data.now, Totals.of(row for row in data.costs if row["start_date"] is None)
    experiments = data.sessions.filter(pc.is_valid(data.sessions.column("reference_dataset_id")))
    kept = experiments.filter(rests_on_kept_readings(experiments)).column("total_cost")
    if now.unpriced:
        headline = f"{now.unpriced:,d} of {plural(now.sessions, 'experiment')} without a cost"
        yield Caveat("unpriced", headline, "It is unknown and not in the totals, so the true cost is higher.")
    if free := now.zero_with_tokens:
        text = "They used tokens; usually the model has no price in LangSmith. They count as $0.00."
        yield Caveat("zero_cost", f"{plural(free, 'experiment')} cost exactly $0", text)
    if problems := experiments.num_rows - experiments.column("problems").null_count:
        text = "It is negative or not an amount, and counts as unknown. The column problems of sessions has the reason."
        yield Caveat("problems", f"{plural(problems, 'experiment')} with a cost that can't be used", text)
    if len(kept):
        text = "The API no longer gives their numbers; those of an earlier reading are in the totals."
        cost = at_least(known_sum(kept), kept.null_count)
        yield Caveat("kept", f"{plural(len(kept), 'experiment')} kept, {cost}", text)
    if undated.sessions:
        text = f"They belong to no day and no total here. Known cost: {money(undated.cost)}."
        yield Caveat("undated", f"{plural(undated.sessions, 'experiment')} without a start time", text)


def _days(data: ReportData) -> Iterator[Caveat]:
    if data.asked_for and data.asked_for > data.last:
        text = f"Days up to {day_text(data.asked_for)} were requested; this page ends with {day_text(data.last)}."
        yield Caveat("to_come", "Part of the period is still to come", text)
    if never := [day for day in data.unread if day not in data.rebuilt.union(*data.unread_of.values())]:
        headline = f"{len(never):,d} of {plural(len(data.days), 'day')} not read"
        yield Caveat("unread", headline, f"Nothing is known of {day_ranges(never)}.")
    for workspace, unread in data.unread_of.items():
        if days := [day for day in unread if day >= data.first]:
            headline = f"A workspace was not read on {plural(len(days), 'day')}"
            yield Caveat("unread", headline, f"Nothing is known of {workspace} on {day_ranges(days)}.")
    if rebuilt := data.rebuilt.intersection(data.days):
        text = f"Materialize them without it: {day_ranges(rebuilt)}."
        yield Caveat("rebuilt", f"{plural(len(rebuilt), 'day')} as known earlier, rebuilt by --as-of", text)
    if data.unexamined:
        text = f"What was rejected or left out on them is not known: {day_ranges(data.unexamined)}."
        headline = f"{plural(len(data.unexamined), 'day')} without the tables sessions and rejected_sessions"
        yield Caveat("unexamined", headline, text)
    if late := [day for day in data.days if day in data.unfinished - data.rebuilt]:
        headline = "The last day is not complete" if late == [data.last] else f"{plural(len(late), 'day')} not complete"
        yield Caveat("open_days", headline, f"{day_ranges(late)}: not over when last read; costs will grow.")
    if parts := [bucket.long_label for bucket in data.buckets if bucket.is_part]:
        text = f"Only {' and '.join(parts)} are in the period; don't compare them with whole {data.unit}s."
        yield Caveat("parts", f"{plural(len(parts), 'part')} of a {data.unit}", text)
    if unnoted := [day for day in data.days if day in data.days_read and day not in data.readings]:
        text = f"The lake's note of it is missing or broken: {day_ranges(unnoted)}."
        yield Caveat("read_at", f"{plural(len(unnoted), 'day')} without the time of the last reading", text)


def _judges(data: ReportData) -> Iterator[Caveat]:
    now, night = data.now, data.judge_readings
    readings = night.readings.values()
    reasons = [f"{workspace} ({problem})" for workspace, problem in night.problems.items()]
    skipped = sum((Counter(reading.skipped) for reading in readings), Counter[str]())
    reasons += [f"{plural(count, 'experiment')} of all days ({reason})" for reason, count in skipped.items()]
    why = f" Left out at the last try: {'; '.join(map(visible, reasons))}." if reasons else ""
    if readings and not night.problems and now.judges_not_measured > skipped.total():
        why += " The others were not in the lake yet when judges were last measured."
    if not now.judges_measured:
        text = "Evaluators trace them to a project of their own; the job measure_judge_costs has measured none of them."
        yield Caveat("judges", "Judge calls are not counted", text + why)
    elif now.unjudged:
        headline = f"Judges of {now.unjudged:,d} of {plural(now.sessions, 'experiment')} not counted"
        yield Caveat("judges", headline, f"Their cost is unknown, so the true cost is higher.{why}")
    if night.overspent:
        text = "The judges of all experiments cost more than their project: something is counted twice or wrongly."
        yield Caveat("unattributed", "Judges' costs do not add up", text)
    elif not all(reading.is_exact for reading in readings):
        text = "The judges' project changed while it was read, or retention has emptied some of it."
        yield Caveat("unattributed", "The judges' cost that belongs to no experiment is inexact", text)


def _rejected(data: ReportData) -> Iterator[Caveat]:
    dated, where = {day: count for day, count in data.rejected.items() if day is not None}, list[str]()
    if dated:
        worst = max(dated, key=lambda day: (dated[day], day))
        peak = f", most on {day_text(worst)} ({dated[worst]:,d})" if dated[worst] > 1 else ""
        where.append(f"on {plural(len(dated), 'day')}{peak}")
    if undated := data.rejected.get(None):
        where.append(f"{undated:,d} without a readable day")
    if where:
        text = f"They failed validation and are in no total: {'; '.join(where)}. See the table rejected_sessions."
        yield Caveat("rejected", f"{plural(sum(data.rejected.values()), 'record')} rejected", text)
