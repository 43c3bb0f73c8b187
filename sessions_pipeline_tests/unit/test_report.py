"""The contents of the report: sums, comparisons with the period before, caveats, and names that never become markup."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from html.parser import HTMLParser
from typing import Any

import pyarrow.compute as pc
import pytest

from sessions_pipeline.days import period_of
from sessions_pipeline.outputs.report.caveats import caveats
from sessions_pipeline.outputs.spending import JudgeReadings, Spending, Totals, totals_by
from sessions_pipeline.tables.aggregate import EXACT
from sessions_pipeline_tests.builders import TENANT, dataset
from sessions_pipeline_tests.builders_report import (
    FIRST,
    LAST,
    SCRIPT,
    budget,
    by_attribute,
    daily,
    html_of,
    judge_reading,
    judged,
    made_up,
    nothing_read,
    project,
    report_of,
    summary,
)

BEFORE = FIRST - timedelta(days=1)
YEAR = date(2025, 1, 1), date(2025, 12, 31)


class Page(HTMLParser):
    """A page's text, its scripts, its start tags, and the values of its `data` elements by row."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.values: dict[str | None, list[str]] = {}
        self._row: str | None = None
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._inside = tag
        if tag == "tr":
            self._row = next((value for name, value in attrs if name.startswith("data-")), None)
        if tag == "data":
            self.values.setdefault(self._row, []).append(attributes["value"] or "")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        if tag == "tr":
            self._row = None
        self.text += " " * (tag in ("td", "th", "dt", "dd"))

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    @property
    def embedded(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


def words(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_the_total_is_the_exact_sum_of_the_period_alone() -> None:
    data = report_of(
        daily(FIRST, 1, "0.1"),
        daily(LAST, 2, "99999999999999999999.000000000000000001"),
        daily(BEFORE, 1, "1000"),
        daily(LAST + timedelta(days=1), 1, "1000"),
        daily(None, 1, "1000"),
    )
    assert data.now.cost == Decimal("99999999999999999999.100000000000000001")
    assert "$99,999,999,999,999,999,999.10" in words(html_of(data))


def test_each_datasets_row_holds_its_exact_cost_its_experiments_and_those_without_a_cost() -> None:
    html = html_of(report_of(daily(FIRST, 1, "1.000000000000000007"), daily(LAST, 1, None), daily(BEFORE, 1, "2")))
    assert Page(html).values[dataset(1)] == ["1.000000000000000007", "-0.999999999999999993", "2", "1"]


def test_an_unknown_cost_is_called_unknown_and_never_zero() -> None:
    text = words(html_of(report_of(daily(FIRST, 1, None))))
    assert "unknown" in text
    assert "$0" not in text.split("cost exactly")[0]


@pytest.mark.parametrize(("days", "unit"), [(1, "day"), (45, "day"), (46, "week"), (200, "week"), (201, "month")])
def test_the_bars_are_days_weeks_or_months_and_add_up_to_the_total(days: int, unit: str) -> None:
    data = made_up(LAST - timedelta(days=days - 1), LAST, datasets=3, experiments=0)
    assert data.unit == unit
    parts = [part.cost for bucket in data.buckets for part in bucket.parts.values()]
    assert sum(cost or 0 for cost in parts) == sum(bucket.totals.cost or 0 for bucket in data.buckets) == data.now.cost
    assert sum(not bucket.is_read for bucket in data.buckets) == len(data.unread)


@pytest.mark.parametrize(
    ("rows", "unread", "said"),
    [
        ([daily(BEFORE, 1, "8")], [], "+25.0 % against the 30 days before (30 Jan \N{EN DASH} 28 Feb 2025): $8.00."),
        ([daily(BEFORE, 1, "20")], [], "▼ \N{MINUS SIGN}50.0 % against the 30 days before"),
        ([daily(BEFORE, 1, "10")], [], "no change against"),
        ([daily(BEFORE, 1, None)], [], "unknown against"),
        ([], [], "No experiments in the period before"),
        (
            [daily(BEFORE, 1, "8"), daily(FIRST + timedelta(days=26), 1, "99")],
            [BEFORE - timedelta(days=3)],
            "+25.0 % like for like: $10.00 against $8.00, on the 29 of 30 days that are complete in both periods",
        ),
        (
            [daily(BEFORE, 1, "99"), daily(BEFORE - timedelta(days=29), 1, "8")],
            [LAST],
            "+25.0 % like for like: $10.00 against $8.00, on the 29 of 30 days",
        ),
        (
            [],
            [FIRST - timedelta(days=back) for back in range(1, 31)],
            "Fewer than half of the days are complete in both this period and the one before (30 Jan \N{EN DASH} 28",
        ),
    ],
)
def test_the_change_compares_the_same_number_of_days_of_both_periods(
    rows: list[dict[str, Any]], unread: list[date], said: str
) -> None:
    assert said in words(html_of(report_of(daily(FIRST, 1, "10"), *rows, unread=unread)))


def test_a_period_that_was_read_without_experiments_cost_nothing_and_is_not_unknown() -> None:
    text = words(html_of(report_of()))
    assert "What experiments cost 1 Mar \N{EN DASH} 30 Mar 2025 none Judge calls" in text
    assert "Experiments 0 Datasets 0 Traces 0 Tokens 0 " in text


def test_days_without_experiments_are_compared_as_zero_and_not_as_unknown() -> None:
    rows = [daily(LAST, 1, "3"), daily(BEFORE - timedelta(days=3), 1, "5"), daily(date(2025, 2, 3), 1, "7")]
    text = words(html_of(report_of(*rows, unfinished=[LAST])))
    assert "none now like for like: none against $12.00, on the 29 of 30 days that are complete in both" in text
    assert "Against Feb 2025 none now none against $12.00, on 28 days complete in both months" in text


def test_a_day_that_is_not_over_is_left_out_of_the_comparison() -> None:
    rows = [daily(FIRST, 1, "10"), daily(LAST, 1, "0.01"), daily(FIRST - timedelta(days=30), 1, "5")]
    rows.append(daily(BEFORE, 1, "1000"))
    data = report_of(*rows, unfinished=[LAST])
    assert data.now.cost == Decimal("10.01")
    assert (data.whole.alike.cost, data.whole.before.cost, data.movers[0].difference) == (10, 5, 5)
    assert "like for like: $10.00 against $5.00, on the 29 of 30 days that are complete" in words(html_of(data))


def test_a_report_without_a_day_that_is_over_does_not_call_the_days_before_unread() -> None:
    days = [FIRST + timedelta(days=number) for number in range(30)]
    text = words(html_of(report_of(daily(FIRST, 1, "10"), daily(BEFORE, 1, "8"), unfinished=days)))
    assert "Fewer than half of the days are complete in both this period and the one before" in text
    assert "Against Feb 2025 not known Fewer than half of these days are complete in both months" in text


def test_a_change_on_fewer_than_half_of_the_days_is_not_shown() -> None:
    before = [FIRST - timedelta(days=back) for back in range(1, 31)]
    rows = daily(FIRST, 1, "10"), daily(before[-1], 1, "8")
    half, fewer = (html_of(report_of(*rows, unread=before[:unread])) for unread in (15, 16))
    assert "+25.0 % like for like: $10.00 against $8.00, on the 15 of 30 days" in words(half)
    text = words(fewer)
    assert "Fewer than half of the days are complete in both this period and the one before" in text
    assert "Against Feb 2025 not known Fewer than half of these days are complete in both months" in text
    assert "Cost by dataset, 1 Mar \N{EN DASH} 30 Mar 2025, judge calls not counted, most expensive first" in text
    assert not {"delta", "movers"} & set(re.findall(r'class="(\w+)', fewer))


def test_rises_are_named_before_falls_and_the_largest_first() -> None:
    names = {dataset(1): "golden", dataset(2): "support", dataset(3): "search"}
    html = html_of(report_of(daily(FIRST, 1, "10"), daily(BEFORE, 2, "30"), daily(FIRST, 3, "1"), names=names))
    text = words(html)
    moved = text[text.index("golden rose") :]
    assert moved.startswith(
        "golden rose by $10.00 (new). Also up: search +$1.00 (new). support fell by $30.00 (none now)."
    )


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        # A value that changed by more than the whole, and those that offset it: one by its name, several together.
        (
            {"opus": "1", "haiku": "9"},
            {"opus": "20", "haiku": "5"},
            "rose by $15.00: model opus +$19.00, haiku -$4.00.",
        ),
        (
            {"opus": "1", "haiku": "5", "gpt": "4"},
            {"opus": "20", "haiku": "3", "gpt": "2"},
            "rose by $15.00: model opus +$19.00, others -$4.00.",
        ),
        # Two causes. The second is named even if values that offset it are larger; a small third one is not named.
        (
            {"opus": "5", "haiku": "5"},
            {"opus": "12", "haiku": "13"},
            "rose by $15.00: model haiku +$8.00, opus +$7.00.",
        ),
        (
            {"opus": "5", "haiku": "5", "gpt": "5"},
            {"opus": "12", "haiku": "12", "gpt": "6"},
            "rose by $15.00: model haiku +$7.00, opus +$7.00, gpt +$1.00.",
        ),
        (
            {"opus": "1", "haiku": "1", "gpt": "92", "o9": "6"},
            {"opus": "80", "haiku": "31", "gpt": "3", "o9": "1"},
            "rose by $15.00: model opus +$79.00, haiku +$30.00, others -$94.00.",
        ),
        # The second makes up exactly a quarter, and then less.
        (
            {"opus": "1", "haiku": "1", "gpt": "1"},
            {"opus": "9", "haiku": "4.75", "gpt": "4.25"},
            "rose by $15.00: model opus +$8.00, haiku +$3.75, gpt +$3.25.",
        ),
        (
            {"opus": "1", "haiku": "1", "gpt": "1"},
            {"opus": "10", "haiku": "4.5", "gpt": "3.5"},
            "rose by $15.00: model opus +$9.00, others +$6.00.",
        ),
        # Two are named at most, even if a third one makes up a quarter.
        (
            dict.fromkeys(("opus", "haiku", "gpt", "o9"), "1"),
            {"opus": "6", "haiku": "5", "gpt": "4.75", "o9": "3.25"},
            "rose by $15.00: model opus +$5.00, haiku +$4.00, others +$6.00.",
        ),
        # Missing values may be the second cause.
        (
            {None: "1", "haiku": "1"},
            {None: "7", "haiku": "10"},
            "rose by $15.00: model haiku +$9.00, (not stated) +$6.00.",
        ),
        # One value is the whole change, and the others are unchanged.
        ({"opus": "5", "haiku": "5"}, {"opus": "20", "haiku": "5"}, "rose by $15.00: model opus +$15.00."),
        # A value whose cost is now unknown counts among the others.
        (
            {"opus": "5", "haiku": "5"},
            {"opus": "25", "haiku": None},
            "rose by $15.00: model opus +$20.00, others -$5.00.",
        ),
        # Falls are shown in the same way.
        (
            {"opus": "25", "haiku": "1"},
            {"opus": "5", "haiku": "6"},
            "fell by $15.00: model opus -$20.00, haiku +$5.00.",
        ),
        # Half of the change, many small parts, the only value of an attribute, and missing values are no explanation.
        (dict.fromkeys("abcd", "1"), {"a": "8.5", **dict.fromkeys("bcd", "3.5")}, "rose by $15.00."),
        (dict.fromkeys("abcde", "1"), dict.fromkeys("abcde", "4"), "rose by $15.00."),
        ({"opus": "10"}, {"opus": "25"}, "rose by $15.00."),
        ({None: "1", "haiku": "9"}, {None: "16", "haiku": "9"}, "rose by $15.00."),
    ],
)
def test_the_largest_change_is_shown_with_the_values_that_make_up_most_of_it(
    before: Mapping[str | None, str | None], now: Mapping[str | None, str | None], said: str
) -> None:
    then = FIRST - timedelta(days=30)
    of_both = ((then, before), (FIRST, now))
    values = [
        by_attribute(day, 1, value, cost, attribute="models") for day, costs in of_both for value, cost in costs.items()
    ]
    rows = [daily(day, 1, str(sum(Decimal(cost or 0) for cost in costs.values()))) for day, costs in of_both]
    data = report_of(*rows, attributes=values, names={dataset(1): "golden"})
    assert f"golden {said} Experiments".replace("-$", "\N{MINUS SIGN}$") in words(html_of(data))
    if causes := data.causes(data.movers[0]):
        assert sum(part for _, part in causes.parts) == data.movers[0].difference
    # Days that were not summed by the attribute give no explanation.
    assert replace(data, attribute_days={"models": frozenset([FIRST])}).causes(data.movers[0]) is None


def test_of_equal_changes_that_of_the_most_expensive_dataset_is_first() -> None:
    then = FIRST - timedelta(days=30)
    costs = {1: ("5", "10"), 2: ("15", "20")}
    rows = [daily(day, number, cost[at]) for at, day in enumerate((then, FIRST)) for number, cost in costs.items()]
    assert [one.key for one in report_of(*rows).movers] == [dataset(2), dataset(1)]


def test_a_change_is_explained_by_the_attribute_whose_value_makes_up_most_of_it() -> None:
    values = [
        by_attribute(FIRST, 1, value, cost, attribute=key)
        for key, value, cost in (
            ("models", "a", "8"),
            ("models", "b", "7"),
            ("git.branch", "x", "14"),
            ("git.branch", "y", "1"),
        )
    ]
    rows = daily(FIRST, 1, "15"), daily(FIRST, 2, "1"), daily(BEFORE, 2, "3")
    text = words(html_of(report_of(*rows, attributes=values, names={dataset(1): "golden", dataset(2): "other"})))
    assert "golden rose by $15.00 (new): branch x +$14.00, y +$1.00. other fell by $2.00." in text


def test_a_budget_shows_the_same_state_as_the_terminal_and_a_forecast_beyond_its_limit() -> None:
    status = replace(budget("all", "400", "300"), forecast=Decimal(465))
    page = Page(html_of(report_of(daily(FIRST, 1, "5"), budgets=[status])))
    assert "$465.00 ok the forecast, $465.00, is over the limit" in " ".join(page.text.split())


def test_the_page_says_that_days_are_complete_or_what_they_lack() -> None:
    data = report_of(daily(FIRST, 1, "5"), first=FIRST, last=FIRST + timedelta(days=1), unread=[FIRST])
    (table,) = re.findall(r'<table class="buckets">.*?</table>', html_of(data), re.DOTALL)
    assert [row.split()[-1] for row in rows_of(table)] == ["Complete", "read", "yes"]


def test_missing_data_are_listed_first_and_what_is_fine_is_also_listed() -> None:
    kept = {"reference_dataset_id": dataset(1), "total_cost": Decimal(3), "missing_since": None, "problems": None}
    at = datetime(2025, 4, 1, tzinfo=UTC)
    data = report_of(
        daily(FIRST, 1, "5", zero_cost_with_tokens_count=2),
        daily(FIRST, 2, None),
        daily(None, 2, "7"),
        rejected=[FIRST, FIRST, LAST, None],
        sessions=[
            {**kept, "fetched_at": at, "stats_as_of": at - timedelta(days=9)},
            {**kept, "fetched_at": at, "stats_as_of": at, "missing_since": at, "total_cost": None},
            {**kept, "fetched_at": at, "stats_as_of": None, "missing_since": at, "total_cost": Decimal(1)},
            {**kept, "fetched_at": at, "stats_as_of": at, "problems": ["total_cost: is negative (-1)"]},
            {**kept, "fetched_at": at, "stats_as_of": at - timedelta(days=9), "reference_dataset_id": None},
        ],
        unread=[date(2025, 3, 5), date(2025, 3, 6), date(2025, 3, 9)],
        unfinished=[LAST],
    )
    texts = {caveat.key: (caveat.fine, f"{caveat.headline} {caveat.text}") for caveat in caveats(data)}
    assert not any(fine for key, (fine, _) in texts.items() if key != "read_at")
    assert texts["unpriced"][1].startswith("1 of 2 experiments without a cost")
    assert texts["zero_cost"][1].startswith("2 experiments cost exactly $0")
    assert texts["unread"][1] == "3 of 30 days not read Nothing is known of 5 Mar \N{EN DASH} 6 Mar 2025, 9 Mar 2025."
    assert texts["open_days"][1].startswith("The last day is not complete 30 Mar 2025: not over when last read")
    assert texts["problems"][1].startswith("1 experiment with a cost that can't be used")
    assert texts["rejected"][1].startswith("4 records rejected")
    assert "on 2 days, most on 1 Mar 2025 (2); 1 without a readable day" in texts["rejected"][1]
    assert texts["kept"][1].startswith("3 experiments kept, ≥ $4.00")
    assert texts["read_at"][1].startswith("Last read 2 Apr 2025, 09:30 UTC")
    assert texts["undated"][1].startswith("1 experiment without a start time")

    assert "Nothing is missing" not in words(html_of(data))


EMPTIED = {
    "reference_dataset_id": dataset(1),
    "fetched_at": datetime(2025, 4, 1, tzinfo=UTC),
    "stats_as_of": datetime(2025, 3, 1, tzinfo=UTC),
}
BROKEN: dict[str, dict[str, Any]] = {
    "unpriced": {"rows": [daily(FIRST, 1, None)]},
    "zero_cost": {"rows": [daily(FIRST, 1, "5", zero_cost_with_tokens_count=1)]},
    "undated": {"rows": [daily(FIRST, 1, "5"), daily(None, 1, "5")]},
    "unread": {"unread": [LAST]},
    "open_days": {"unfinished": [LAST]},
    "parts": {"first": date(2025, 1, 1)},
    "rejected": {"rejected": [None]},
    "kept": {"sessions": [EMPTIED]},
    "problems": {
        "sessions": [{**EMPTIED, "stats_as_of": EMPTIED["fetched_at"], "problems": ["total_cost: is negative"]}]
    },
    "judges": {"judges": [judged(FIRST, 1, None)]},
    "unattributed": {"judge_readings": judge_reading("1", "1", is_exact=False)},
}


@pytest.mark.parametrize("key", BROKEN)
def test_the_page_says_that_nothing_is_missing_only_if_that_is_so(key: str) -> None:
    measured = {"rows": [daily(FIRST, 1, "5")], "judges": [judged(FIRST, 1, "2")]}
    fine = report_of(*measured["rows"], judges=measured["judges"], judge_readings=judge_reading("2", "2"))
    assert [caveat.key for caveat in caveats(fine) if not caveat.fine] == []
    assert "Nothing is missing from the totals" in words(html_of(fine))
    options = {**measured, **BROKEN[key]}
    data = report_of(*options.pop("rows"), **options)
    assert [caveat.key for caveat in caveats(data) if not caveat.fine] == [key]
    text = words(html_of(data))
    assert "Nothing is missing" not in text
    assert "One thing to know before you quote them" in text


def test_days_that_were_never_read_after_their_end_are_listed() -> None:
    data = report_of(daily(FIRST, 1, "5"), unfinished=[FIRST + timedelta(days=days) for days in (1, 2)])
    (caveat,) = (caveat for caveat in caveats(data) if caveat.key == "open_days")
    assert (caveat.fine, caveat.headline) == (False, "2 days not complete")
    assert caveat.text == "2 Mar \N{EN DASH} 3 Mar 2025: not over when last read; costs will grow."


def test_a_rebuilt_day_that_was_not_over_is_never_said_to_have_been_over() -> None:
    data = report_of(daily(FIRST, 1, "5"), unfinished=[FIRST], rebuilt=frozenset([FIRST]))
    said = [caveat.headline for caveat in caveats(data)]
    assert "1 day as known earlier, rebuilt by --as-of" in said
    assert "Every day that was read was over" not in said


def test_a_day_before_the_last_that_was_not_over_is_not_called_the_last() -> None:
    (caveat,) = (one for one in caveats(report_of(daily(FIRST, 1, "1"), unfinished=[FIRST])) if one.key == "open_days")
    assert caveat.headline == "1 day not complete"


def test_incomplete_weeks_are_listed_and_marked() -> None:
    first = date(2025, 1, 2)
    data = report_of(daily(first, 1, "5"), first=first, last=date(2025, 3, 31))
    assert [bucket.gaps for bucket in data.buckets if bucket.gaps] == [
        "only 4 of the week's 7 days",
        "only 1 of the week's 7 days",
    ]
    (caveat,) = (caveat for caveat in caveats(data) if caveat.key == "parts")
    assert caveat.headline == "2 parts of a week"
    assert "2 Jan \N{EN DASH} 5 Jan 2025 and 31 Mar 2025" in caveat.text
    assert not [caveat for caveat in caveats(report_of(daily(FIRST, 1, "5"))) if caveat.key == "parts"]


def test_missing_notes_of_readings_are_reported() -> None:
    data = replace(report_of(daily(FIRST, 1, "5")), readings={})
    (caveat,) = (caveat for caveat in caveats(data) if caveat.key == "read_at")
    assert (caveat.fine, caveat.headline) == (False, "30 days without the time of the last reading")


def test_the_month_so_far_is_forecast_from_its_third_day() -> None:
    def month(last: date, **options: Any) -> Any:
        rows = [daily(date(2025, 3, day), 1, "2") for day in range(1, last.day + 1)]
        before = [daily(date(2025, 2, 3), 1, "4"), daily(date(2025, 2, 28), 1, "100")]
        return report_of(*rows, *before, first=last - timedelta(days=29), last=last, **options)

    data = month(date(2025, 3, 10), unfinished=[date(2025, 3, 10)])
    assert data.month.spending.now.cost == 20
    assert data.month.forecast == 20 + Decimal(18) / 9 * 21
    assert (data.month.spending.alike.cost, data.month.spending.before.cost) == (18, 4)
    text = words(html_of(data))
    assert "Mar 2025 so far 1 Mar \N{EN DASH} 10 Mar 2025 $20.00 10 days, the last not over" in text
    assert "$62.00 If days to come cost what 9 whole days did on average" in text
    assert "Against Feb 2025 ▲ +350.0 % $18.00 against $4.00, on 9 days complete in both months" in text
    assert month(date(2025, 3, 2)).month.forecast is None
    assert "From the third day on" in words(html_of(month(date(2025, 3, 2))))
    morning = month(date(2025, 3, 10), unfinished=[date(2025, 3, 10)])
    morning = replace(morning, daily=morning.daily.filter(pc.field("start_date") != date(2025, 3, 10)))
    assert morning.month.forecast == 18 + Decimal(18) / 9 * 21
    assert month(date(2025, 3, 10), unread=[date(2025, 3, 4)]).month.forecast is None
    assert month(date(2025, 3, 10), latest=date(2025, 4, 1)).month.forecast is None
    unknown = [daily(date(2025, 3, 1), 1, None), daily(LAST, 1, "2")]
    assert "No cost of a whole day is known" in words(html_of(report_of(*unknown, unfinished=[LAST])))
    over = month(date(2025, 3, 31))
    assert over.month.forecast is None
    assert "The month is over" in words(html_of(over))
    assert over.month.spending.before.cost == 104
    assert month(date(2025, 3, 31), unfinished=[date(2025, 3, 31)]).month.forecast == 62


ATTRIBUTES = [
    by_attribute(FIRST, 1, "main", "1.000000000000000001", run_count=10),
    by_attribute(FIRST, 1, "fix-42", "5", run_count=10, session_count=2),
    by_attribute(FIRST, 2, "main", "2", run_count=10),
    by_attribute(FIRST, 2, None, None, run_count=3),
    by_attribute(FIRST - timedelta(days=30), 1, "fix-42", "4", run_count=10),
    by_attribute(FIRST - timedelta(days=30), 2, "gone", "9", run_count=10),
    by_attribute(FIRST, 2, SCRIPT, "0.5", run_count=10, attribute="models"),
]


def rows_of(table: str) -> list[str]:
    return [words(row) for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)]


def test_costs_by_attribute_are_shown_with_their_change_and_cost_per_run() -> None:
    data = report_of(daily(FIRST, 1, "6"), daily(FIRST, 2, "2"), attributes=ATTRIBUTES, names={dataset(2): "golden"})
    html = html_of(data)
    (table,) = re.findall(r'<caption id="attribute-1-1">.*?</table>', html, re.DOTALL)
    assert "Cost by git.branch, all datasets, judge calls not counted, largest change first" in words(table)
    assert rows_of(table)[1:] == [
        "gone none \N{EN DASH} \N{MINUS SIGN}$9.00 none now unknown 0 0",
        "main $3.00 37.5 % +$3.00 new $0.15 2 0",
        "fix-42 $5.00 62.5 % +$1.00 ▲ +25.0 % $0.50 ▲ +25.0 % 2 0",
        "(not stated) unknown \N{EN DASH} unknown unknown 1 1",
        "All ≥ $8.00 ≈ \N{MINUS SIGN}$5.00 ▼ ≈ \N{MINUS SIGN}38.5 % ≥ $0.24 ▼ ≈ \N{MINUS SIGN}62.7 % 5 1",
    ]


def test_costs_by_attribute_are_compared_on_the_same_days_as_the_total() -> None:
    data = report_of(daily(FIRST, 1, "6"), attributes=ATTRIBUTES, unfinished=[LAST])
    assert LAST not in data.period.alike
    assert {attribute.period for attribute in data.by_attribute} == {data.period}


def test_costs_by_attribute_can_be_shown_for_one_dataset_and_all_are_shown_without_scripts() -> None:
    data = report_of(daily(FIRST, 1, "6"), daily(FIRST, 2, "2"), attributes=ATTRIBUTES, names={dataset(2): "golden"})
    page = Page(html_of(data))
    scopes = [(one["data-scope"], "hidden" in one) for _, one in page.tags if "data-scope" in one]
    assert scopes == [("", False), (dataset(1), True), (dataset(2), True)] * 2
    assert [one["value"] for tag, one in page.tags if tag == "option"] == ["", dataset(1), dataset(2)]
    whole, *_, golden = data.by_attribute[0].groups
    assert whole.whole.now.cost == Decimal("8.000000000000000001")
    assert {one.name: one.now.cost for one in golden.values} == {"gone": None, "main": 2, "(not stated)": None}


def test_the_least_expensive_values_are_summed_in_one_row() -> None:
    rows = [by_attribute(FIRST, 1, f"branch-{number}", f"{number}.1") for number in range(1, 21)]
    (attribute,) = report_of(daily(FIRST, 1, "212"), attributes=rows).by_attribute
    group = attribute.groups[0]
    assert [one.key for one in group.values] == [f"branch-{number}" for number in range(20, 8, -1)]
    assert group.others is not None
    assert (group.others.name, group.others.now.cost) == ("8 others", Decimal("36.8"))


def test_days_not_summed_by_an_attribute_are_reported_and_not_compared() -> None:
    days = frozenset([FIRST, FIRST + timedelta(days=1), FIRST - timedelta(days=30)])
    data = replace(report_of(daily(FIRST, 1, "6"), attributes=ATTRIBUTES), attribute_days={"git.branch": days})
    (attribute,) = data.by_attribute
    assert (attribute.unread, attribute.period.alike) == (28, frozenset())
    assert "Not summed by this attribute: 28 days of this period." in words(html_of(data))


def test_a_lake_without_costs_by_attribute_says_how_to_get_them() -> None:
    unread = [FIRST - timedelta(days=30)]
    text = words(html_of(report_of(daily(FIRST, 1, "5"), unread=unread)))
    assert "the lake has no table daily_cost_by_attribute for this period" in text
    assert "--select daily_cost_by_attribute --from 2025-01-31 --to 2025-03-30" in text


def test_without_measured_judges_the_page_has_no_time_of_measurement() -> None:
    (caveat,) = (one for one in caveats(report_of(daily(FIRST, 1, "1"))) if one.key == "judges")
    assert caveat.text.endswith("the job measure_judge_costs has measured none of them.")


def test_without_measured_judges_every_total_says_so_and_why() -> None:
    tried = JudgeReadings({}, {TENANT: "the API ignores it"})
    text = words(html_of(replace(made_up(), judges=report_of().judges, judge_readings=tried)))
    assert "Judge calls are not counted" in text
    assert f"Left out at the last try: {TENANT} (the API ignores it)." in text
    assert text.count("udge calls not counted") >= 8
    assert "--from 2025-03-30 --to 2025-03-30 --select judge_cost_by_experiment" in text


def test_judge_costs_are_shown_by_dataset_with_the_unattributed_rest() -> None:
    rows = daily(FIRST, 1, "252.000000000000000001"), daily(FIRST, 2, "1"), daily(LAST, 2, None)
    judges = [judged(FIRST, 1, "160"), judged(FIRST, 2, None)]
    reading = judge_reading("200", "160", is_exact=False, skipped={"another experiment has the same name": 1})
    data = report_of(*rows, judges=judges, judge_readings=reading, names={dataset(1): "support-answers"})
    html = html_of(data)
    text = words(html)
    assert "≥ $253.00 ≥ $160.00 more for their judges: ≥ $413.00 in all." in text
    assert "Judges of 2 experiments are not counted." in text
    assert Page(html).values[dataset(1)][-4:] == ["252.000000000000000001", "160", "412.000000000000000001", "0"]
    assert "support-answers $252.00 $160.00 $412.00 38.8 % 0" in text
    assert "da000000 ≥ $1.00 unknown ≥ $1.00 \N{EN DASH} 2" in text
    assert "All ≥ $253.00 ≥ $160.00 ≥ $413.00 ≈ 38.7 % 2" in text
    dear = words(html_of(replace(data, judges=report_of(judges=[judged(FIRST, 2, "900")]).judges)))
    assert dear.index("da000000 ≥ $1.00 ≥ $900.00 ≥ $901.00") < dear.index("support-answers $252.00 unknown ≥ $252.00")
    assert "By 2 Apr 2025 the judge project evaluators had spent $200.00 in all (inexact): $160.00 on the" in text
    assert "and $40.00 on none of them (unattributed). This is not an error" in text
    assert "Judges of 2 of 3 experiments not counted" in text
    assert "Left out at the last try: 1 experiment of all days (another experiment has the same name)." in text


def test_a_negative_unattributed_judge_cost_is_shown_as_an_error() -> None:
    data = report_of(daily(FIRST, 1, "5"), judges=[judged(FIRST, 1, "2")], judge_readings=judge_reading("1", "2"))
    text = words(html_of(data))
    assert "Judges' costs do not add up" in text
    assert "and -$1.00 on none of them (unattributed)." in text
    assert "no error" not in text


def test_the_ten_most_expensive_experiments_are_listed_with_exact_costs() -> None:
    rows = [summary(number, f"{number}.000000000000000001") for number in range(1, 15)]
    found = Page(html_of(report_of(daily(FIRST, 1, "5"), experiments=[*rows, summary(99, None)]))).values
    listed = [(key, values[0]) for key, values in found.items() if key and key.startswith("5e")]
    assert listed == [(rows[at]["id"], f"{at + 1}.000000000000000001") for at in range(13, 3, -1)]


def test_the_most_expensive_experiments_are_listed_with_judge_cost_and_whole_cost() -> None:
    rows = [summary(1, "4.000000000000000001"), summary(2, "3"), summary(3, "2")]
    judges = [judged(FIRST, 1, "6"), judged(FIRST, 2, None)]
    html = html_of(report_of(daily(FIRST, 1, "9"), experiments=rows, judges=judges))
    assert Page(html).values[rows[0]["id"]] == ["4.000000000000000001", "6", "10.000000000000000001"]
    text = words(html)
    assert "experiment 2 $3.00 unknown unknown" in text
    assert "experiment 3 $2.00 not measured unknown" in text


def test_an_experiment_is_shown_with_the_score_that_it_got_most_often() -> None:
    keys = (("apt", "run", None), ("kind", "session", 9), ("safe", "run", 9), ("brief", "run", 8))
    scores = [
        {"feedback_key": key, "scope": scope, "average": 0.5, "count": count} for key, scope, count in reversed(keys)
    ]
    text = words(html_of(report_of(daily(FIRST, 1, "1"), experiments=[summary(1, "1", scores=scores)])))
    assert "0.5 kind (session)" in text
    assert not any(f"0.5 {key}" in text for key in ("apt", "safe", "brief"))


def test_projects_are_summed_over_their_days_and_inexact_days_are_reported() -> None:
    used = [project(FIRST, 1, "1.5"), project(LAST, 1, "2.25", is_exact=False), project(LAST, 2, None)]
    used.append(project(LAST, 3, "7", reference_dataset_id=dataset(1)))
    used[1]["name"] = "renamed"
    html = html_of(report_of(daily(FIRST, 1, "5"), projects=used, measured_days=2))
    assert Page(html).values[used[0]["id"]][0] == "3.75"
    assert "2 days, 1 not exact" in words(html)
    assert "Not exact: usage changed while it was measured, or the day was not over." in words(html)
    assert "Not exact" not in words(html_of(report_of(daily(FIRST, 1, "5"), projects=used[:1])))
    assert "used on 2 measured days of 30" in words(html)
    assert "project 2 unknown" in words(html)
    assert "renamed $3.75" in words(html)
    assert "project 1" not in words(html)
    assert "All ≥ $3.75 Not exact" in words(html)


def test_projects_that_used_nothing_on_measured_days_are_not_an_unknown_cost() -> None:
    html = html_of(report_of(daily(FIRST, 1, "5"), projects=[], measured_days=2))
    assert "Cost by tracing project No project used anything on 2 measured days of 30." in words(html)
    assert "All unknown" not in words(html)


def test_projects_add_up_to_the_total_below_them() -> None:
    used = [project(LAST, number, str(number)) for number in range(1, 13)]
    text = words(html_of(report_of(daily(FIRST, 1, "5"), projects=used)))
    assert "2 others $3.00 All $78.00" in text


def test_a_single_one_among_the_others_is_one_other() -> None:
    costs = [daily(FIRST, number, "5") for number in range(1, 10)]
    attributes = [by_attribute(FIRST, 1, f"branch-{number}", "1") for number in range(1, 14)]
    used = [project(LAST, number, "1") for number in range(1, 12)]
    text = words(html_of(report_of(*costs, attributes=attributes, projects=used)))
    assert (text.count("1 other "), text.count("1 others")) == (4, 0), "in a legend and three tables"


def test_a_row_counts_zero_costs_with_tokens_and_the_number_of_summed_rows() -> None:
    rows = [daily(FIRST, number, "0", zero_cost_with_tokens_count=int(number == 1)) for number in range(60)]
    text = words(html_of(report_of(*rows)))
    daily_rows = text[text.index("Cost by UTC day and dataset") :]
    assert daily_rows.count("0 and 1 at $0") == 2, "in its row and in their sum"
    assert "Sum of 60 rows $0.00 60 0 and 1 at $0" in daily_rows


@pytest.mark.parametrize(
    ("own", "of_judges", "row"),
    [
        (("1", "2"), ("1", "1"), "$3.00 $2.00 $5.00 40.0 % 0"),
        (("1", "2"), ("1", None), "$3.00 ≥ $1.00 ≥ $4.00 ≥ 25.0 % 1"),
        (("3", None), ("1", "0"), "≥ $3.00 $1.00 ≥ $4.00 ≈ 25.0 % 0"),
        (("3", None), ("1", None), "≥ $3.00 ≥ $1.00 ≥ $4.00 ≈ 25.0 % 1"),
    ],
    ids=["all known", "a judge unknown", "a cost unknown", "both unknown"],
)
def test_a_figure_from_an_incomplete_sum_says_so(
    own: tuple[str, str | None], of_judges: tuple[str, str | None], row: str
) -> None:
    """The judges' share is a minimum only if no cost of an experiment itself is unknown."""
    rows = [daily(day, 1, cost) for day, cost in zip((FIRST, LAST), own, strict=True)]
    judges = [judged(day, 1, cost) for day, cost in zip((FIRST, LAST), of_judges, strict=True)]
    assert f"All {row} This is not" in words(html_of(report_of(*rows, judges=judges)))


def test_every_table_marks_a_sum_that_is_only_a_minimum() -> None:
    budgets = [budget("b", "8", "5", unpriced=1)]
    text = words(html_of(report_of(daily(FIRST, 1, "5"), daily(FIRST, 1, None), budgets=budgets)))
    assert "b 1 Mar \N{EN DASH} 31 Mar 2025; without judges ≥ $5.00 $8.00 ≥ 62.5 %" in text
    assert "da000000 ≥ $5.00 100.0 % ≈ +$5.00 new unknown 2 1 All ≥ $5.00" in text
    assert "1 Mar 2025 ≥ $5.00 2 1 yes" in text
    assert "2025-03-01 da000000 $5.00 1 0 unknown unknown 2025-03-01 da000000 unknown 1 1" in text
    assert "Sum of 2 rows ≥ $5.00 2 1" in text


def test_headline_month_forecast_and_chart_mark_sums_that_are_only_minimums_and_changes_between_them() -> None:
    rows = daily(FIRST, 1, "10"), daily(FIRST - timedelta(days=30), 1, "8"), daily(date(2025, 2, 1), 1, "4")
    names, budgets = {dataset(1): "golden"}, [replace(budget("all", "400", "300", 1), forecast=Decimal(465))]
    exact = words(html_of(report_of(*rows, names=names)))
    assert not re.search("[≥≈] ", exact.split("Amounts are US dollars")[0])
    html = html_of(report_of(*rows, daily(FIRST, 1, None), names=names, budgets=budgets))
    text = words(html)
    assert "30 Mar 2025 ≥ $10.00 Judge calls not counted. ▼ ≈ \N{MINUS SIGN}16.7 % against the 30 days before" in text
    assert "golden fell by ≈ $2.00." in text
    assert "1 Mar \N{EN DASH} 30 Mar 2025 ≥ $10.00 30 days; judge calls not counted" in text
    assert "Forecast for the month ≥ $10.33" in text
    assert "Against Feb 2025 ▲ ≈ +150.0 % ≥ $10.00 against $4.00, on 28 days complete in both months" in text
    assert "≥ $300.00 $400.00 ≥ 75.0 % ≥ $465.00 ok the forecast, ≥ $465.00, is over the limit" in text
    assert "2025: ≥ $10.00 in all. The tables below hold the same numbers." in html
    assert set(re.findall('data-tip="(.*?)"', html)) == {"golden · 1 Mar 2025 · ≥ $10.00"}
    before = words(html_of(report_of(*rows[:2], daily(FIRST - timedelta(days=30), 1, None))))
    assert "≈ +25.0 % against the 30 days before (30 Jan \N{EN DASH} 28 Feb 2025): ≥ $8.00." in before


def test_a_bar_of_which_days_are_unread_is_a_minimum_and_so_are_the_other_datasets_in_it() -> None:
    costs = [daily(FIRST, number, "2", unpriced_session_count=int(number == 10)) for number in range(1, 11)]
    data = report_of(*costs, first=FIRST - timedelta(days=58), unread=[FIRST + timedelta(days=3)])
    tips = re.findall('data-tip="(.*?)"', html_of(data))
    week = "24 Feb \N{EN DASH} 2 Mar 2025"
    assert f"{dataset(1)} · {week} · $2.00" in tips
    assert f"Other datasets · {week} · ≥ $4.00" in tips
    late = report_of(daily(FIRST, 1, "2"), first=FIRST - timedelta(days=58), unread=[FIRST])
    assert f"da000000 · {week} (1 of 7 days not read) · ≥ $2.00" in re.findall('data-tip="(.*?)"', html_of(late))
    assert "<em>1 not read</em>" in html_of(late)


def test_sums_over_days_of_which_some_are_unread_are_minimums_in_every_table() -> None:
    judges, branches = [judged(FIRST, 1, "2")], [by_attribute(FIRST, 1, "main", "5")]
    text = words(html_of(report_of(daily(FIRST, 1, "5"), attributes=branches, judges=judges, unread=[LAST])))
    assert "All ≥ $5.00 ≥ $2.00 ≥ $7.00 ≈ 28.6 % 0" in text
    assert (text.count("All ≥ $5.00"), text.count("All $5.00")) == (4, 0), "by dataset, judges, and twice by attribute"
    assert "2025-03-01 da000000 $5.00" in text, "a day that was read"


def test_the_whole_cost_is_shown_as_a_minimum_unless_everything_is_known() -> None:
    row, judges = daily(FIRST, 1, "5"), [judged(FIRST, 1, "2")]
    assert "$2.00 more for their judges: $7.00 in all." in words(html_of(report_of(row, judges=judges)))
    unread = report_of(row, judges=judges, unread=[LAST])
    assert "judges: ≥ $7.00 in all." in words(html_of(unread))
    unknown = report_of(row, judges=[judged(FIRST, 1, None)])
    assert "$5.00 unknown more for their judges: ≥ $5.00 in all." in words(html_of(unknown))


def test_datasets_are_listed_by_their_cost_and_then_by_that_before_without_those_of_other_days() -> None:
    first, last = FIRST + timedelta(days=10), FIRST + timedelta(days=19)
    rows = [daily(first, 1, "5"), daily(first, 2, "5"), daily(first, 3, "6"), daily(first, 5, None)]
    before = [daily(FIRST, 1, "1"), daily(FIRST, 2, "4"), daily(BEFORE, 4, "9"), daily(FIRST, 6, "9")]
    data = report_of(*rows, *before, first=first, last=last)
    # Last is the dataset without experiments in the period, after the one whose cost is unknown.
    assert [one.key for one in data.datasets] == [dataset(number) for number in (3, 2, 1, 5, 6)]


def test_a_dataset_of_the_period_before_is_unknown_and_not_none_if_days_were_not_read() -> None:
    rows, names = (daily(FIRST, 1, "5"), daily(BEFORE, 2, "3")), {dataset(2): "old"}
    assert " old none " in words(html_of(report_of(*rows, names=names)))
    unread = [FIRST + timedelta(days=1)]
    assert " old unknown " in words(html_of(report_of(*rows, names=names, unread=unread)))


def test_without_usage_by_project_the_page_says_how_to_measure_it() -> None:
    html = html_of(report_of(daily(FIRST, 1, "5"), projects=None))
    assert "--select daily_cost_by_project --from 2025-03-30 --to 2025-03-30" in words(html)


def test_names_are_text_everywhere_and_never_markup() -> None:
    html = html_of(made_up())
    page = Page(html)
    style = next(index for index, (tag, _) in enumerate(page.tags) if tag == "style")
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert {tag for tag, _ in page.tags[style:]}.isdisjoint({"img", "iframe", "object", "embed", "link"})
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    shown = page.text
    for name in (
        SCRIPT,
        '"</script><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }} \\g<1> \\u003cb>",
        "a␀b",
        "]]>&amp;<!--",
    ):
        assert name in shown
    assert set(page.embedded["names"].values()) >= {SCRIPT, "]]>&amp;<!--"}
    assert "'=HYPERLINK(1)" in page.embedded["csvNames"].values()
    assert not set("<>&") & set(page.scripts[0])


@pytest.mark.parametrize(
    ("second", "is_named"), [("1", True), ("0.99999999999999999999999999999999999", False), ("-1", True)]
)
def test_after_the_largest_change_only_those_of_at_least_a_twentieth_are_named(second: str, is_named: bool) -> None:
    """A twentieth of 20 units is 1 unit. One amount has more digits than Python's default decimal context keeps."""
    unit = Decimal("1e17")
    rows = [daily(BEFORE, number, str(100 * unit)) for number in (1, 2)]
    with localcontext(EXACT):
        change = 20 * unit.copy_sign(Decimal(second))
        moved = (100 * unit + change - Decimal(second) * unit, 100 * unit + Decimal(second) * unit)
    rows += [daily(FIRST, number, str(cost)) for number, cost in enumerate(moved, 1)]
    names = {dataset(1): "the first", dataset(2): "the second"}
    [said] = re.findall(r'<p class="movers">.*?</p>', html_of(report_of(*rows, last=FIRST, names=names)), re.DOTALL)
    assert "the first" in said
    assert ("the second" in said) is is_named


@pytest.mark.parametrize(
    ("problems", "is_named"), [({}, True), ({TENANT: "the API ignores it"}, False)], ids=["measured", "not measured"]
)
def test_experiments_that_started_after_the_judges_were_measured_are_listed_separately(
    problems: dict[str, str], is_named: bool
) -> None:
    rows = [daily(FIRST, 1, "5", session_count=3)]
    reading = judge_reading("2", "2", skipped={"the name is empty or has control characters": 1})
    night = JudgeReadings(reading.readings, problems)
    texts = {
        one.key: one.text for one in caveats(report_of(*rows, judges=[judged(FIRST, 1, "2")], judge_readings=night))
    }
    assert "1 experiment of all days (the name is empty or has control characters)" in texts["judges"]
    others = "The others were not in the lake yet when judges were last measured."
    assert (others in texts["judges"]) is is_named


def test_a_command_in_a_budgets_notes_is_marked_as_code_and_the_budgets_name_is_not() -> None:
    unjudged = replace(budget("<code>`all`</code>", "9", "1"), unjudged=2)
    html = html_of(report_of(daily(FIRST, 1, "1"), budgets=[unjudged]))
    section = re.findall(r'class="budgets">.*?</section>', html, re.DOTALL)[0]
    command = "sessions-pipeline materialize --from 2025-04-02 --to 2025-04-02 --select judge_cost_by_experiment"
    assert re.findall(r"<code>(.*?)</code>", section) == [command]
    assert "&lt;code&gt;`all`&lt;/code&gt;" in section


def test_only_the_pages_own_script_may_run_and_nothing_may_be_loaded() -> None:
    html = html_of(made_up())
    page = Page(html)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.findall(r"""(?:src|href)=["'](?!data:,|#)""", html.replace("onerror", "").replace("src=x", ""))
    assert "url(http" not in html


def test_the_rows_in_the_page_hold_every_column_of_the_parquet_exactly() -> None:
    data = made_up()
    inside = [row for row in data.daily.to_pylist() if row["start_date"] >= FIRST]
    embedded = Page(html_of(data)).embedded
    found = [dict(zip(embedded["columns"], row, strict=True)) for row in embedded["rows"]]
    for row in found:
        row["start_date"] = date.fromisoformat(row["start_date"])
        for name in ("prompt_cost", "completion_cost", "total_cost"):
            row[name] = None if row[name] is None else Decimal(row[name])

    def order(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return row["start_date"], row["reference_dataset_id"]

    assert sorted(found, key=order) == sorted(inside, key=order)


@pytest.mark.parametrize("days", [10, 100, 365])
def test_the_sums_of_a_page_are_those_of_all_its_rows_but_do_not_grow_with_its_days(days: int) -> None:
    data = made_up(LAST - timedelta(days=days - 1), LAST)
    rows = data.daily.to_pylist()
    inside = [row for row in rows if row["start_date"] in data.period.days]
    assert data.now == Totals.of(inside, data.judges.to_pylist())
    bars = totals_by(inside, (), lambda row: period_of(data.unit, row["start_date"]))
    assert [bar.totals for bar in data.buckets if bar.totals.sessions] == [bars[period] for period in sorted(bars)]
    for one in data.movers:
        own = [row for row in rows if row["reference_dataset_id"] == one.key]
        assert vars(one) == vars(Spending(one.key, one.name, own, data.period))
    assert vars(data.month.spending) == vars(Spending(None, "", rows, data.month.period))
    (models, _), values = data.by_attribute, data.attributes.to_pylist()
    of_models = [row for row in values if row["attribute"] == models.key]
    assert vars(models.groups[0].whole) == vars(Spending(None, "", of_models, models.period))
    assert len(data.costs) <= len(data.datasets) * (len(data.buckets) * 3 + 62 + 3)


def test_equal_data_give_equal_pages() -> None:
    assert html_of(made_up()) == html_of(made_up())


def test_a_year_of_twenty_datasets_and_five_thousand_experiments_stays_under_3_mb() -> None:
    html = html_of(made_up(*YEAR, datasets=20, experiments=5_000))
    assert len(html.encode()) < 3_000_000


def test_two_datasets_with_one_name_are_two_distinguishable_rows() -> None:
    names = {dataset(1): "golden", "db000000-0000-4000-8000-000000000001": "golden"}
    other = daily(FIRST, 1, "2", reference_dataset_id="db000000-0000-4000-8000-000000000001")
    html = html_of(report_of(daily(FIRST, 1, "1"), other, names=names))
    assert Page(html).values[dataset(1)][0] == "1"
    assert "golden (da000000)" in words(html)
    assert "golden (db000000)" in words(html)


def test_an_empty_lake_says_what_to_run() -> None:
    text = words(html_of(nothing_read()))
    assert "make demo" in text
    assert "sessions-pipeline materialize --from 2025-03-01 --to 2025-03-30" in text
    assert "$" not in text


def test_days_that_were_read_and_had_no_experiments_are_not_an_empty_lake() -> None:
    text = words(html_of(report_of()))
    assert "Every day was read" in text
    assert "make demo" not in text


def test_two_workspaces_are_distinguished_in_the_table() -> None:
    other = daily(FIRST, 1, "2", tenant_id="7e000000-0000-4000-8000-000000000002")
    html = html_of(report_of(daily(FIRST, 1, "1"), other))
    assert "Workspace" in words(html)
    assert "Workspace" not in words(html_of(report_of(daily(FIRST, 1, "1"))))


def test_a_change_is_computed_with_all_digits() -> None:
    before, now = daily(FIRST - timedelta(days=1), 1, "12345678901234567890.5"), daily(FIRST, 1, "0.000000000000000001")
    html = html_of(report_of(before, now))
    assert '<data value="12345678901234567890.499999999999999999"' in html
