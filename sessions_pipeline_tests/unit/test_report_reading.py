"""The days and files that the report reads from a lake, and how it reports what is missing or broken."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from sessions_pipeline.cli.show import report
from sessions_pipeline.errors import NotReadError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.outputs.report import budgets_or_problem, latest_days, read_report_data, write_report
from sessions_pipeline.outputs.report.caveats import caveats
from sessions_pipeline.outputs.report.data import ReportData
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import (
    DAILY_COST_BY_ATTRIBUTE,
    DAILY_COST_BY_PROJECT,
    DAILY_COST_BY_REFERENCE_DATASET,
    REJECTED_SESSIONS,
    SESSIONS,
    Table,
)
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline_tests.builders import OTHER_TENANT, TENANT, table_of
from sessions_pipeline_tests.builders_report import by_attribute, daily, html_of, project

FIRST, LAST = date(2025, 3, 10), date(2025, 3, 12)
READ_AT = datetime(2025, 3, 12, 20, tzinfo=UTC)
NOTE = Reading(1, READ_AT, None, (TENANT,), received=1, repeated=0, requests=1)


def replace(lake: Lake, table: Any, day: Any, rows: list[dict[str, Any]], metadata: dict[str, str]) -> None:
    of_table = [{name: row[name] for name in table.schema.names} for row in rows]
    lake.replace(table, day, table_of(table.name, of_table), metadata)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with daily costs of this week, last week and a month ago. The last day was read before it was over."""
    lake = Lake.open(str(tmp_path / "lake"), query={})
    for day in (FIRST - timedelta(days=28), *(FIRST - timedelta(days=back) for back in range(-2, 4))):
        rows = [daily(day, 1, "1.5", is_day_over=day < LAST)]
        over = {"is_day_over": "true" if day < LAST else "false"}
        replace(lake, DAILY_COST_BY_REFERENCE_DATASET, day, rows, over)
        lake.write_file(f"_readings/start_date={day}.json", dump_readings([NOTE]).encode())
    return lake


def texts_of(data: ReportData) -> dict[str, str]:
    return {caveat.key: f"{caveat.headline} {caveat.text}" for caveat in caveats(data) if not caveat.fine}


def test_the_period_the_one_before_and_the_same_days_of_the_month_before_are_read(lake: Lake) -> None:
    data = read_report_data(lake, FIRST, LAST)
    assert data.now.cost == Decimal("4.5")
    assert (data.period.alike, data.period.before) == (
        {FIRST, FIRST + timedelta(days=1)},
        {FIRST - timedelta(days=3), FIRST - timedelta(days=2)},
    )
    assert (data.month.spending.now.cost, min(data.days_read)) == (9, FIRST - timedelta(days=28))
    assert texts_of(data)["open_days"].startswith("The last day is not complete")
    assert data.readings == dict.fromkeys(data.days, READ_AT)


@pytest.mark.parametrize(
    "note", [None, b"", b"[]", b"not json", b"{}", b'[{"number": 1}]', b'[{"fetched_at": 3}]', b"[1]"]
)
def test_a_report_is_made_even_if_notes_of_readings_are_missing_or_broken(
    lake: Lake, tmp_path: Path, note: bytes | None
) -> None:
    file = tmp_path / "lake" / f"_readings/start_date={FIRST}.json"
    file.unlink()
    if note is not None:
        file.write_bytes(note)
    data = read_report_data(lake, FIRST, LAST)
    assert texts_of(data)["read_at"].startswith("1 day without the time of the last reading")
    assert "Nothing is missing" not in Path(write_report(lake, FIRST, LAST, tmp_path / "r.html")).read_text()


def test_in_a_file_of_another_program_the_rows_decide_whether_the_day_was_over(lake: Lake) -> None:
    for day, over in ((FIRST, False), (LAST, True)):
        replace(lake, DAILY_COST_BY_REFERENCE_DATASET, day, [daily(day, 1, "1", is_day_over=over)], {})
    assert read_report_data(lake, FIRST, LAST).unfinished == {FIRST}


def test_rejected_records_are_counted_by_day_and_without_one(lake: Lake) -> None:
    row = {**dict.fromkeys(REJECTED_SESSIONS.schema.names), "reasons": ["id: is missing"], "payload": "{}"}
    for day, count in ((FIRST, 2), (UNDATED, 1), (LAST, 0)):
        replace(lake, REJECTED_SESSIONS, day, [{**row, "fetched_at": READ_AT}] * count, {})
    assert read_report_data(lake, FIRST, LAST).rejected == {FIRST: 2, None: 1}


def test_days_without_the_needed_tables_are_not_reported_as_fine(lake: Lake) -> None:
    data = read_report_data(lake, FIRST, LAST)
    assert texts_of(data)["unexamined"].startswith("3 days without the tables sessions and rejected_sessions")
    assert {"problems", "rejected", "kept"}.isdisjoint(caveat.key for caveat in caveats(data))
    for day in data.days:
        replace(lake, SESSIONS, day, [], {})
    assert texts_of(read_report_data(lake, FIRST, LAST))["unexamined"].startswith("3 days without"), "one is not enough"
    for day in data.days:
        replace(lake, REJECTED_SESSIONS, day, [], {})
    data = read_report_data(lake, FIRST, LAST)
    assert {"problems", "rejected", "kept"} <= {caveat.key for caveat in caveats(data) if caveat.fine}
    assert "unexamined" not in texts_of(data)


def test_if_no_day_was_read_it_is_an_error_and_the_former_report_stays(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    write_report(lake, FIRST, LAST, file)
    before = file.read_bytes()
    said = "nothing was read; choose days of 10 Feb \N{EN DASH} 12 Mar 2025, or materialize these if they are past"
    for asked in ((date(2027, 1, 1), date(2027, 2, 1)), (date(2025, 2, 11), date(2025, 3, 6))):
        with pytest.raises(NotReadError, match=said):
            write_report(lake, *asked, file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(("today", "end"), [(date(2025, 3, 13), "13 Mar 2025"), (FIRST, "12 Mar 2025")])
def test_a_report_ends_today_or_on_the_last_day_read_and_says_if_it_was_shortened(
    lake: Lake, tmp_path: Path, today: date, end: str
) -> None:
    html = Path(write_report(lake, FIRST, date(2025, 3, 31), tmp_path / "r.html", today=today)).read_text()
    assert f"<title>What experiments cost, 10 Mar \N{EN DASH} {end}</title>" in html
    assert f"Days up to 31 Mar 2025 were requested; this page ends with {end}." in html
    whole = Path(write_report(lake, FIRST, LAST, tmp_path / "r.html", today=today)).read_text()
    assert "still to come" not in whole


def test_the_latest_days_begin_with_the_first_that_was_read(lake: Lake) -> None:
    assert latest_days(lake) == (date(2025, 2, 11), LAST)
    replace(lake, DAILY_COST_BY_REFERENCE_DATASET, LAST + timedelta(days=40), [], {})
    assert latest_days(lake)[0] == LAST + timedelta(days=11)


def test_the_help_of_the_report_says_which_days_it_is_on(lake: Lake) -> None:
    replace(lake, DAILY_COST_BY_REFERENCE_DATASET, LAST + timedelta(days=40), [], {})
    first, last = latest_days(lake)
    texts = {option.name: getattr(option, "help", "") for option in report.params}
    assert f"default: {(last - first).days} days before the last." in texts["first"]


def test_days_on_which_a_workspace_was_not_read_are_listed(lake: Lake) -> None:
    nobodys, both = (
        structs.replace(NOTE, workspaces=()),
        structs.replace(NOTE, workspaces=(TENANT, OTHER_TENANT)),
    )
    lake.write_file(f"_readings/start_date={FIRST}.json", dump_readings([nobodys]).encode())
    assert "unread" not in texts_of(read_report_data(lake, FIRST, LAST))
    lake.write_file(f"_readings/start_date={LAST}.json", dump_readings([both]).encode())
    said = f"A workspace was not read on 1 day Nothing is known of {OTHER_TENANT} on 11 Mar 2025."
    assert texts_of(read_report_data(lake, FIRST, LAST))["unread"] == said


@pytest.mark.parametrize("table", [DAILY_COST_BY_REFERENCE_DATASET, DAILY_COST_BY_ATTRIBUTE, SESSIONS])
def test_days_rebuilt_as_of_an_earlier_time_are_named_and_count_as_unread(lake: Lake, table: Table) -> None:
    unread = read_report_data(lake, FIRST, LAST).month.unread
    replace(
        lake, table, FIRST, [daily(FIRST, 1, "1")] if table is DAILY_COST_BY_REFERENCE_DATASET else [], {"as_of": "x"}
    )
    data = read_report_data(lake, FIRST, LAST)
    assert (FIRST in data.period.alike, data.month.unread, data.unread) == (False, unread + 1, [FIRST])
    assert [bucket.gaps for bucket in data.buckets] == ["rebuilt by --as-of", "", "not over when last read"]
    said = "1 day as known earlier, rebuilt by --as-of Materialize them without it: 10 Mar 2025."
    assert (texts_of(data)["rebuilt"], "unread" in texts_of(data)) == (said, False)
    html = html_of(data)
    assert f"{unread + 1} not read, or rebuilt by --as-of" in html
    assert "Nothing is missing" not in html


def test_days_on_which_a_workspace_was_not_read_are_not_compared_and_allow_no_forecast(lake: Lake) -> None:
    assert len(read_report_data(lake, FIRST, LAST).period.alike) == 2
    both = [structs.replace(NOTE, asked=one, workspaces=(one,)) for one in (TENANT, OTHER_TENANT)]
    lake.write_file(f"_readings/start_date={LAST}.json", dump_readings(both).encode())
    data = read_report_data(lake, FIRST, LAST)
    assert (data.period.alike, data.month.period.alike, data.month.forecast) == (frozenset(), frozenset(), None)
    assert data.month.unread == len(data.month.days) - 1
    assert data.unread == [FIRST, FIRST + timedelta(days=1)]
    assert [bucket.gaps for bucket in data.buckets] == [*["not read in every workspace"] * 2, "not over when last read"]
    html = html_of(data)
    assert "11 not read in every workspace" in html
    assert "Fewer than half of the days are complete in both this period" in html
    assert "At least: some costs are unknown" in html
    assert "Every day was read" not in html
    assert "11 not read in every workspace" in html
    assert f"daily_cost_by_attribute --from {FIRST - timedelta(days=3)} --to {LAST}" in html


def test_days_without_experiments_of_which_none_was_read_in_every_workspace_are_no_empty_report(lake: Lake) -> None:
    second = FIRST + timedelta(days=1)
    for day, workspace in ((FIRST, TENANT), (second, OTHER_TENANT)):
        replace(lake, DAILY_COST_BY_REFERENCE_DATASET, day, [], {})
        note = structs.replace(NOTE, asked=workspace, workspaces=(workspace,))
        lake.write_file(f"_readings/start_date={day}.json", dump_readings([note]).encode())
    assert "Nothing has been read yet" not in html_of(read_report_data(lake, FIRST, second))


def test_a_record_that_names_no_workspace_does_not_make_a_day_read_in_all(lake: Lake) -> None:
    """The first day has no other record, the last one has."""
    other = structs.replace(NOTE, asked=OTHER_TENANT, workspaces=(OTHER_TENANT,))
    unnamed, partly_named = (structs.replace(NOTE, workspaces=("", *more)) for more in ((), (TENANT,)))
    for back, readings in enumerate(([partly_named, other], [NOTE, other], [unnamed])):
        lake.write_file(f"_readings/start_date={LAST - timedelta(days=back)}.json", dump_readings(readings).encode())
    said = f"A workspace was not read on 1 day Nothing is known of {OTHER_TENANT} on 10 Mar 2025."
    assert texts_of(read_report_data(lake, FIRST, LAST))["unread"] == said


def test_a_day_on_which_the_keys_own_workspace_had_no_session_is_not_read_in_others(lake: Lake) -> None:
    empty = structs.replace(NOTE, workspaces=())
    other = structs.replace(NOTE, asked=OTHER_TENANT, workspaces=(OTHER_TENANT,))
    lake.write_file(f"_readings/start_date={FIRST}.json", dump_readings([empty]).encode())
    lake.write_file(f"_readings/start_date={LAST}.json", dump_readings([NOTE, other]).encode())
    said = f"A workspace was not read on 2 days Nothing is known of {OTHER_TENANT} on 10 Mar \N{EN DASH} 11 Mar 2025."
    assert texts_of(read_report_data(lake, FIRST, LAST))["unread"] == said


def test_a_measured_day_on_which_no_project_spent_anything_counts_as_measured(lake: Lake) -> None:
    assert read_report_data(lake, FIRST, LAST).measured_days == 0
    replace(lake, DAILY_COST_BY_PROJECT, FIRST, [project(FIRST, 1, "1.5")], {})
    replace(lake, DAILY_COST_BY_PROJECT, LAST, [], {})
    data = read_report_data(lake, FIRST, LAST)
    assert data.measured_days == 2
    assert "used on 2 measured days of 3." in html_of(data)


def test_costs_by_attribute_are_those_of_the_days_whose_files_list_the_key(lake: Lake) -> None:
    for day, keys in ((FIRST, '["git.branch"]'), (LAST, '["models", "git.branch"]')):
        rows = [by_attribute(day, 1, "main", "1.5")]
        replace(lake, DAILY_COST_BY_ATTRIBUTE, day, rows, {"attributes": keys})
    data = read_report_data(lake, FIRST, LAST)
    assert data.attribute_days == {"models": {LAST}, "git.branch": {FIRST, LAST}}
    models, branch = data.by_attribute
    assert (models.unread, models.groups[0].whole.now.sessions) == (2, 0)
    assert (branch.unread, branch.groups[0].whole.now.cost) == (1, 3)
    # A file that another program has written lists none. Its rows count, but not its day, as in budgets.
    unlisted = FIRST + timedelta(days=1)
    replace(lake, DAILY_COST_BY_ATTRIBUTE, unlisted, [by_attribute(unlisted, 1, "main", "1.5")], {})
    (_, branch) = (data := read_report_data(lake, FIRST, LAST)).by_attribute
    assert data.attribute_days["git.branch"] == {FIRST, LAST}
    assert (branch.unread, branch.groups[0].whole.now.cost) == (1, Decimal("4.5"))


def test_the_report_shows_the_state_of_budgets_or_that_their_file_is_invalid(lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "budgets.toml"
    settings = Settings(SESSIONS_PIPELINE_DATA_ROOT=str(tmp_path / "lake"), SESSIONS_PIPELINE_BUDGETS=str(file))

    def page() -> str:
        budgets = budgets_or_problem(lake, settings, READ_AT)
        return Path(write_report(lake, FIRST, LAST, tmp_path / "r.html", budgets=budgets)).read_text()

    small = '[[budget]]\nname = "small"\nlimit = 0.0125\nperiod = "day"\n'
    file.write_text(f'[[budget]]\nname = "<b>all\\u001b"\nlimit = 4.00\nperiod = "week"\n{small}')
    html = page()
    assert '<data value="0.0125">$0.0125</data>' in html
    assert '<tr data-budget="&lt;b&gt;all\N{SYMBOL FOR ESCAPE}">' in html
    assert '<td class="n">112.5 %</td>' in html
    assert "<em>exceeded</em>" in html
    file.write_text('[[budget]]\nname = "all"\nlimit = "much"\nperiod = "week"\n')
    assert "Unknown: SESSIONS_PIPELINE_BUDGETS" in page()
    assert 'id="budgets"' not in Path(write_report(lake, FIRST, LAST, tmp_path / "r.html")).read_text()
