"""Budgets: the file is validated strictly, the used amount is exact, and unknown costs never count as zero."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_pipeline.cli import cli
from sessions_pipeline.cli.show import print_budgets
from sessions_pipeline.cli.summary import print_summary
from sessions_pipeline.days import period_of
from sessions_pipeline.errors import BudgetExceededError, SessionsPipelineError, SettingError
from sessions_pipeline.lake import Lake
from sessions_pipeline.outputs.budget_file import Budget, load_budgets
from sessions_pipeline.outputs.budgets import BudgetStatus, budget_statuses
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import (
    DAILY_COST_BY_ATTRIBUTE,
    DAILY_COST_BY_REFERENCE_DATASET,
    JUDGE_COST_BY_EXPERIMENT,
    REFERENCE_DATASETS,
    SESSION_ATTRIBUTES,
    Table,
)
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline_tests.builders import OTHER_TENANT, TENANT, dataset, table_of, uuid
from sessions_pipeline_tests.builders_report import daily

# A Friday: five days of the week have begun, and 20 of the month's 31.
NOW = datetime(2026, 3, 20, 15, tzinfo=UTC)
TODAY = NOW.date()
MONTH = [TODAY - timedelta(days=back) for back in range(20)]
MONDAY = date(2026, 3, 16)
BUDGET = '[[budget]]\nname = "all"\nlimit = 400.00\nperiod = "month"\n'


def settings_of(folder: Path, text: str | bytes) -> Settings:
    file = folder / "budgets.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Settings(SESSIONS_PIPELINE_BUDGETS=str(file))


def budget(**keys: Any) -> Budget:
    keys = {"name": "all", "limit": 400, "period": "month", **keys}
    return Budget.model_validate(keys, context=Settings())


def reading(day: date, at: datetime | None = None, workspaces: Iterable[str] = (TENANT, OTHER_TENANT)) -> bytes:
    """The stored file of a day's reading. By default it was read on the next day, or just now if it is today."""
    over = datetime.combine(day + timedelta(days=1), time(1), UTC)
    return dump_readings([Reading(1, at or min(over, NOW), None, tuple(workspaces), 1, 0, 1)]).encode()


class Costs:
    """A lake in a folder, and functions that put costs into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lake = Lake.open(str(root), query={})

    def put(self, day: date, *rows: Mapping[str, Any], read_at: datetime | None = None) -> None:
        self._put(DAILY_COST_BY_REFERENCE_DATASET, day, rows)
        self.lake.write_file(f"_readings/start_date={day}.json", reading(day, read_at))

    def put_attribute(self, day: date, value: str | None, cost: str, *, attribute: str = "git.branch") -> None:
        row = {"attribute": attribute, "value": value}
        self._put(DAILY_COST_BY_ATTRIBUTE, day, [daily(day, 1, cost, **row)], attributes=json.dumps([attribute]))

    def _put(self, table: Table, day: date, rows: Iterable[Mapping[str, Any]], **metadata: str) -> None:
        names = table.schema.names
        found = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows], table.schema)
        self.lake.replace(table, day, found, metadata)

    def name(self, **names: int) -> None:
        rows = [
            {"id": dataset(number), "tenant_id": TENANT, "name": name.rstrip("_"), "read_at": NOW}
            for name, number in names.items()
        ]
        self.lake.replace(REFERENCE_DATASETS, None, table_of("reference_datasets", rows), {})

    def status(self, now: datetime = NOW, **keys: Any) -> BudgetStatus:
        [status] = budget_statuses(self.lake, [budget(**keys)], now)
        return status


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    costs = Costs(tmp_path_factory.mktemp("month"))
    for day in MONTH:
        costs.put(day)
    return costs.root


@pytest.fixture
def costs(month: Path, tmp_path: Path) -> Costs:
    """A lake in which every day of the month so far was read and is empty, until a test puts rows."""
    return Costs(shutil.copytree(month, tmp_path / "lake"))


def test_a_file_is_read_with_its_defaults_and_limits_are_exact(tmp_path: Path) -> None:
    text = f'\ufeff{BUDGET}[[budget]]\nname = "b"\nlimit = 0.1\nperiod = "day"\nwarn_at = 1\nworkspace = "ABC"\n'
    first, second = load_budgets(settings_of(tmp_path, text))
    assert (first.name, first.limit, first.period, first.warn_at) == ("all", Decimal("400.00"), "month", Decimal("0.8"))
    assert (first.dataset, first.attribute, first.workspace, first.include_judges) == (None, None, None, False)
    assert (second.limit, second.warn_at, second.workspace) == (Decimal("0.1"), 1, "ABC")
    assert load_budgets(Settings()) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[budget]]\nname = ", "is not valid TOML in UTF-8: Invalid value"),
        (b"# \xff", "is not valid TOML in UTF-8: 'utf-8' codec"),
        (f"a = {'[' * 5000}", "is not valid TOML in UTF-8: maximum recursion depth exceeded"),
        ('[budget]\nname = "a"', "budget should be written [[budget]], with two brackets"),
        (f"{BUDGET}\n[[budgets]]", "budgets is not a key; write budget"),
        ('[[budgets]]\nname = "a"', "budgets is not a key; write budget"),
        (BUDGET.replace("limit", "limt"), "budget 1: limt is not a key; write limit"),
        ("", "budget is missing"),
        (f'{BUDGET}dataset = ""', "budget 1: dataset should have at least 1 character"),
        (f'{BUDGET}workspace = ""', "budget 1: workspace should have at least 1 character"),
        (f'{BUDGET}attribute = "a,b"\nvalue = "x"', "budget 1: 'a,b' has a comma, and costs can't be summed by such"),
        (f"{BUDGET}warnat = 1", "budget 1: warnat is not a key; write warn_at"),
        (f"{BUDGET}colour = 1", "budget 1: colour is not a key; write name or limit or period or"),
        ('[[budget]]\nname = "a"\nperiod = "day"', "budget 1: limit is missing"),
        (f"{BUDGET}{BUDGET}", "two budgets are called 'all'; give each a name of its own"),
        (BUDGET.replace('"all"', "7"), "budget 1: name should be a valid string"),
        (BUDGET.replace('"all"', '""'), "budget 1: name should have at least 1 character"),
        (BUDGET.replace("400.00", '"400"'), "budget 1: limit should be a number, such as 400.00"),
        (BUDGET.replace("400.00", "true"), "budget 1: limit should be a number, such as 400.00"),
        (BUDGET.replace("400.00", "0"), "budget 1: limit should be greater than 0"),
        (BUDGET.replace("400.00", "-1.5"), "budget 1: limit should be greater than 0"),
        (BUDGET.replace("400.00", "nan"), "budget 1: limit should be a finite number"),
        (BUDGET.replace("400.00", "1e99"), "budget 1: limit should have no more than"),
        (BUDGET.replace("400.00", "1e-19"), "budget 1: limit should have no more than 18 decimal places"),
        (BUDGET.replace('"month"', '"year"'), "budget 1: period should be 'day', 'week' or 'month'"),
        (f"{BUDGET}warn_at = 80", "budget 1: warn_at should be less than or equal to 1"),
        (f"{BUDGET}warn_at = -0.1", "budget 1: warn_at should be greater than or equal to 0"),
        (f'{BUDGET}include_judges = "yes"', "budget 1: include_judges should be a valid boolean"),
        (f'{BUDGET}dataset = "a"\nworkspace = "b"', "budget 1: write one of dataset, attribute and workspace, or none"),
        (f'{BUDGET}dataset = "a"\nattribute = "models"\nvalue = "x"', "budget 1: write one of dataset, attribute and"),
        (f'{BUDGET}value = "main"', 'budget 1: write both or neither of attribute = "git.branch" and value = "main"'),
        (f'{BUDGET}attribute = "models"', "budget 1: write both or neither of attribute"),
        (
            f'{BUDGET}attribute = "team"\nvalue = "x"',
            "budget 1: needs SESSIONS_PIPELINE_ATTRIBUTES=models,git.branch,team",
        ),
        (
            f'{BUDGET}attribute = "modles"\nvalue = "x"',
            "budget 1: did you mean attribute = 'models'? 'modles' needs SE",
        ),
        ('[[budget]]\nname = "a"\nlimt = 4\nperiod = "day"', "budget 1: limt is not a key; write limit"),
    ],
)
def test_an_invalid_budget_file_is_one_line_that_says_what_to_write_instead(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(SettingError) as caught:
        load_budgets(settings_of(tmp_path, text))
    assert str(caught.value).startswith("SESSIONS_PIPELINE_BUDGETS: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_budget_file_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"nowhere.toml can't be read: No such file"):
        load_budgets(Settings(SESSIONS_PIPELINE_BUDGETS="nowhere.toml"))


@given(day=st.dates(date(2000, 1, 1), date(2100, 1, 1)), unit=st.sampled_from(["day", "week", "month"]))
def test_periods_contain_their_day_and_follow_each_other_without_a_gap(day: date, unit: str) -> None:
    first, last = period_of(unit, day)
    assert first <= day <= last
    assert {period_of(unit, one) for one in (first, last)} == {(first, last)}
    assert period_of(unit, last + timedelta(days=1))[0] == last + timedelta(days=1)
    assert {"day": first == last, "week": first.weekday() == 0, "month": first.day == 1}[unit]


def test_the_used_amount_is_the_exact_sum_of_the_period_so_far(costs: Costs) -> None:
    costs.put(date(2026, 3, 1), daily(None, 1, "0.000000000000000001"))
    costs.put(MONDAY, daily(None, 1, "10"), daily(None, 2, "20", tenant_id=OTHER_TENANT))
    costs.put(TODAY, daily(None, 1, "30.5"))
    costs.put(date(2026, 2, 28), daily(None, 1, "1000"))
    month, week, day = (costs.status(period=unit) for unit in ("month", "week", "day"))
    assert [one.used for one in (month, week, day)] == [Decimal("60.500000000000000001"), Decimal("60.5"), 30.5]
    assert (month.first, month.last) == (date(2026, 3, 1), date(2026, 3, 31))
    assert (week.first, week.last) == (MONDAY, date(2026, 3, 22))
    # 60.5 so far. For each of the two days to come, the mean of the four days that are over, which cost 30 together.
    # A budget for a day has no forecast, since forecasts begin on the third day.
    assert [week.forecast, day.forecast] == [Decimal("75.5"), None]
    assert week.share == Decimal("0.15125")
    assert week.headline == "$60.50 of $400.00 (15.1 %), heading for $75.50"
    assert costs.status(limit=Decimal("80.0125"), period="week").headline.startswith("$60.50 of $80.0125 (75.6 %)")
    assert (week.state, week.notes) == ("ok", "")


def test_on_the_last_day_of_the_longest_month_its_first_day_still_counts(costs: Costs) -> None:
    costs.put(date(2026, 3, 1), daily(None, 1, "5"))
    assert costs.status(datetime(2026, 3, 31, 15, tzinfo=UTC)).used == 5


def test_a_forecast_begins_on_the_third_day(costs: Costs) -> None:
    costs.put(MONDAY, daily(None, 1, "6"))
    wednesday = NOW - timedelta(days=2)
    assert costs.status(wednesday - timedelta(days=1), period="week").forecast is None
    assert costs.status(wednesday, period="week").forecast == 18


def test_a_forecast_is_rounded_to_the_digits_of_an_amount(costs: Costs) -> None:
    costs.put(MONDAY, daily(None, 1, "0.000000000000000001"))
    # The forecast adds a quarter of that for each of the two days to come; ties are rounded half to even.
    assert costs.status(period="week").forecast == Decimal("0.000000000000000002")


@pytest.mark.parametrize(("today", "forecast"), [(None, 310), ("10", 320), ("40", 350)])
def test_a_forecast_adds_the_cost_of_today_so_far_and_takes_its_daily_rate_from_days_that_are_over(
    costs: Costs, today: str | None, forecast: int
) -> None:
    for day in MONTH:
        costs.put(day, *([daily(None, 1, "10")] if day != TODAY else [daily(None, 1, today)] if today else []))
    assert costs.status().forecast == forecast - 10


@pytest.mark.parametrize(
    ("spent", "state"),
    [("319.99", "ok"), ("320", "warning"), ("400", "warning"), ("400.000000000000000001", "exceeded")],
)
def test_a_budget_warns_at_its_share_and_is_exceeded_beyond_its_limit_to_the_last_digit(
    costs: Costs, spent: str, state: str
) -> None:
    costs.put(TODAY, daily(None, 1, spent))
    assert costs.status().state == state


def test_a_period_in_which_nothing_ran_is_zero_and_one_of_unknown_costs_is_unknown(costs: Costs) -> None:
    assert (costs.status().used, costs.status().state) == (Decimal(0), "ok")
    costs.put(TODAY, daily(None, 1, None))
    status = costs.status()
    assert (status.used, status.share, status.forecast) == (None, None, None)
    assert (status.state, status.is_known) == ("unknown", False)
    assert status.headline.startswith("unknown of $400.00")
    costs.put(MONDAY, daily(None, 1, "1"))
    status = costs.status()
    assert (status.used, status.unpriced, status.experiments, status.state) == (Decimal(1), 1, 2, "ok")
    assert status.headline == "≥ $1.00 of $400.00 (≥ 0.2 %), heading for ≥ $1.58"
    assert status.notes == "1 of 2 experiments without a cost"


def test_days_not_read_or_not_read_to_their_end_are_reported_and_make_the_state_unknown(
    costs: Costs, tmp_path: Path
) -> None:
    costs.put(MONDAY, daily(None, 1, "5"), read_at=datetime(2026, 3, 16, 23, 59, tzinfo=UTC))
    status = costs.status()
    assert (status.used, status.unread, status.forecast, status.state) == (Decimal(5), (MONDAY,), None, "unknown")
    assert status.notes == "not read to the end in every workspace: 16 Mar 2026"
    assert costs.status(workspace=TENANT).notes == "not read to the end: 16 Mar 2026"
    for day in MONTH:
        at = datetime(2026, 3, 16, 23, 59, tzinfo=UTC) if day == MONDAY else None
        costs.lake.write_file(f"_readings/start_date={day}.json", reading(day, at, workspaces=[TENANT]))
    assert costs.status().notes == "not read to the end: 16 Mar 2026", "there is only one workspace"
    never = Lake.open(str(tmp_path / "empty"), query={})
    [status] = budget_statuses(never, [budget(period="week", dataset="x")], NOW)
    assert (status.used, len(status.unread), status.read_at, status.state) == (None, 5, None, "unknown")
    assert status.notes.endswith("not read in 30 days"), "true of a lake that was read before, too"


def test_a_day_without_sessions_that_was_read_before_its_end_also_counts_as_unfinished(costs: Costs) -> None:
    at = datetime(2026, 3, 16, 12, tzinfo=UTC)
    costs.lake.write_file(f"_readings/start_date={MONDAY}.json", reading(MONDAY, at, workspaces=()))
    assert costs.status().unread == (MONDAY,)
    costs.lake.write_file(f"_readings/start_date={MONDAY}.json", reading(MONDAY, workspaces=()))
    assert costs.status(workspace=TENANT).unread == ()
    # The same holds in a lake without any session, which has read no workspace.
    for day in MONTH:
        costs.lake.write_file(
            f"_readings/start_date={day}.json", reading(day, at if day == MONDAY else None, workspaces=())
        )
    assert costs.status().unread == (MONDAY,)


def test_today_is_not_called_over_where_it_was_never_read(costs: Costs) -> None:
    costs.lake.write_file(f"_readings/start_date={TODAY}.json", b"[]")
    status = costs.status()
    assert status.unread == (TODAY,)
    assert status.notes.startswith("not read to the end")


def test_a_day_on_which_the_keys_own_workspace_had_no_session_is_unread_in_others(costs: Costs) -> None:
    for day in MONTH:
        own = Reading(1, NOW, None, (TENANT,) if day.weekday() < 5 else ())
        other = [Reading(1, NOW, OTHER_TENANT, (OTHER_TENANT,))] if day >= MONDAY else []
        costs.lake.write_file(f"_readings/start_date={day}.json", dump_readings([own, *other]).encode())
    assert costs.status().unread == costs.status(workspace=OTHER_TENANT).unread == tuple(sorted(MONTH)[:15])
    assert costs.status(workspace=TENANT).unread == ()


def test_a_day_that_one_workspace_was_read_on_before_its_end_is_unread_in_it_alone(costs: Costs) -> None:
    times = {TENANT: datetime(2026, 3, 16, 12, tzinfo=UTC), OTHER_TENANT: NOW}
    readings = [Reading(number, at, name, (name,)) for number, (name, at) in enumerate(times.items())]
    costs.lake.write_file(f"_readings/start_date={MONDAY}.json", dump_readings(readings).encode())
    assert costs.status().unread == costs.status(workspace=TENANT).unread == (MONDAY,)
    assert costs.status(workspace=OTHER_TENANT).unread == ()


def test_a_record_that_names_no_workspace_makes_no_day_unread(costs: Costs) -> None:
    for workspaces in (("", TENANT, OTHER_TENANT), ("",)):
        costs.lake.write_file(f"_readings/start_date={MONDAY}.json", reading(MONDAY, workspaces=workspaces))
        assert costs.status().unread == costs.status(workspace=TENANT).unread == ()


def test_a_budget_is_exceeded_if_the_known_costs_are_beyond_it_whatever_else_is_unknown(costs: Costs) -> None:
    costs.put(MONDAY, daily(None, 1, "500"), read_at=datetime(2026, 3, 16, 12, tzinfo=UTC))
    status = costs.status()
    assert (status.state, status.is_known) == ("exceeded", False)


@pytest.mark.parametrize(("hours", "stale"), [(24, False), (25, True)])
def test_a_budget_is_stale_when_its_latest_reading_is_over_a_day_old(costs: Costs, hours: int, stale: bool) -> None:
    status = costs.status(NOW + timedelta(hours=hours), period="month")
    assert status.is_stale is stale
    assert status.state == "unknown"  # in both cases, since the new day was not read


def test_the_latest_of_a_days_readings_says_when_it_was_read(costs: Costs) -> None:
    times = [NOW - timedelta(hours=hours) for hours in (14, 1)]
    readings = [Reading(number, at, None, (TENANT, OTHER_TENANT), 1, 0, 1) for number, at in enumerate(times)]
    costs.lake.write_file(f"_readings/start_date={TODAY}.json", dump_readings(readings).encode())
    assert costs.status().read_at == times[-1]


def test_a_budget_names_a_dataset_by_its_name_or_id(costs: Costs) -> None:
    costs.put(MONDAY, daily(None, 1, "1"), daily(None, 2, "2"))
    costs.name(golden=1, other=2, unused=3)
    assert costs.status(dataset="golden").used == 1
    assert costs.status(dataset=dataset(2).upper()).used == 2
    assert costs.status(dataset="unused").used == 0


def test_a_dataset_name_that_is_unknown_or_ambiguous_is_refused_with_what_to_write_instead(costs: Costs) -> None:
    costs.name(golden=1, golden_=2, other=3)
    assert costs.status(dataset="golden").notes == f"2 datasets are called 'golden'; write {dataset(1)} or {dataset(2)}"
    assert costs.status(dataset="othr").notes == "no dataset is called 'othr'; write other"
    costs.name(**{f"dataset {number:02}": number for number in range(1, 50)})
    assert costs.status(dataset="x").notes.endswith("write " + " or ".join(f"dataset {one:02}" for one in range(1, 11)))
    costs.name(**{"red\x1b[31m": 1})
    assert costs.status(dataset="red").notes == "no dataset is called 'red'; write red␛[31m"


def test_a_budget_that_can_not_be_evaluated_is_unknown_and_the_others_are_still_evaluated(costs: Costs) -> None:
    costs.put(MONDAY, daily(None, 1, "500"))
    costs.name(golden=1)
    wrong = budget(name="wrong", dataset="gloden"), budget(name="nowhere", workspace="nowhere")
    first, *others, last = budget_statuses(costs.lake, [budget(), *wrong, budget(name="week", period="week")], NOW)
    assert [first.state, last.state] == ["exceeded", "exceeded"]
    assert [(one.budget.name, one.state, one.is_known, one.used) for one in others] == [
        ("wrong", "unknown", False, None),
        ("nowhere", "unknown", False, None),
    ]
    assert {(one.experiments, one.unpriced, one.unjudged) for one in others} == {(None, None, None)}
    assert others[0].notes == others[0].problem == "no dataset is called 'gloden'; write golden"


def test_a_budget_of_a_workspace_counts_it_alone_and_the_workspace_must_have_been_read(costs: Costs) -> None:
    costs.put(MONDAY, daily(None, 1, "1"), daily(None, 2, "2", tenant_id=OTHER_TENANT))
    assert costs.status(workspace=OTHER_TENANT.upper()).used == 2
    assert costs.status(workspace="nowhere").problem == f"nowhere was never read; write {TENANT} or {OTHER_TENANT}"
    costs.lake.write_file(f"_readings/start_date={TODAY}.json", reading(TODAY, workspaces=[TENANT]))
    assert costs.status(workspace=TENANT).unread == ()
    assert costs.status(workspace=OTHER_TENANT).unread == (TODAY,)
    assert (costs.status().unread, costs.status().state) == ((TODAY,), "unknown")


def test_a_budget_of_an_attribute_is_unknown_on_days_not_summed_by_it(costs: Costs) -> None:
    for day in MONTH:
        costs.put_attribute(day, "main", "2")
    costs.put_attribute(TODAY, "other", "50")
    status = costs.status(attribute="git.branch", value="main")
    assert (status.used, status.unread) == (Decimal(38), ())
    costs.put_attribute(MONDAY, "x", "2", attribute="models")
    status = costs.status(attribute="git.branch", value="main")
    assert (status.used, status.unread, status.state) == (Decimal(36), (MONDAY,), "unknown")


def test_days_that_were_rebuilt_as_known_earlier_count_as_unread(costs: Costs) -> None:
    costs.put(MONDAY, daily(None, 1, "5"))
    row = {name: value for name, value in daily(None, 1, "3").items() if name != "start_date"}
    rows = table_of(DAILY_COST_BY_REFERENCE_DATASET.name, [row])
    costs.lake.replace(DAILY_COST_BY_REFERENCE_DATASET, MONDAY, rows, {"as_of": "2026-03-17T01:00:00+00:00"})
    status = costs.status()
    assert (status.unread, status.forecast, status.state) == ((MONDAY,), None, "unknown")
    assert status.notes.startswith("not read to the end in every workspace, or rebuilt by --as-of: 16 Mar ")
    costs.lake.write_file(f"_readings/start_date={TODAY}.json", b"")
    assert costs.status(period="day").notes == "not read to the end in every workspace: 20 Mar 2026"


def test_judges_count_where_they_were_measured_and_unmeasured_ones_are_reported(costs: Costs) -> None:
    costs.put(MONDAY, daily(None, 1, "1", session_count=4))
    rows = [
        {"id": uuid(number), "tenant_id": TENANT, "reference_dataset_id": dataset(1), "total_cost": cost}
        | {"stats_as_of": NOW, "read_at": NOW}
        for number, cost in ((1, "0.5"), (2, "0.25"), (3, None))
    ]
    judged = table_of(
        JUDGE_COST_BY_EXPERIMENT.name, [dict.fromkeys(JUDGE_COST_BY_EXPERIMENT.schema.names) | row for row in rows]
    )
    costs.lake.replace(JUDGE_COST_BY_EXPERIMENT, MONDAY, judged, {})
    assert costs.status().used == 1
    status = costs.status(include_judges=True)
    assert (status.used, status.unjudged) == (Decimal("1.75"), 2)
    assert (status.state, status.is_known, status.too_old) == ("unknown", False, 0)
    assert "judges of 2 of 4 experiments not measured" in status.notes
    assert "--from 2026-03-20 --to 2026-03-20 --select judge_cost_by_experiment` measures those" in status.notes
    # The known costs alone are beyond the limit.
    assert costs.status(include_judges=True, limit=1).state == "exceeded"
    # Where nothing is known to be read, sessions come first; the period's last day would be refused.
    shutil.move(costs.root / "_readings", costs.root / "_elsewhere")
    assert "materialize" not in costs.status(include_judges=True).notes
    shutil.move(costs.root / "_elsewhere", costs.root / "_readings")

    said = {"session_id": uuid(2), "key": "git.branch", "value": "main"}
    owner = {"tenant_id": TENANT, "reference_dataset_id": dataset(1)}
    costs.lake.replace(SESSION_ATTRIBUTES, MONDAY, table_of(SESSION_ATTRIBUTES.name, [owner | said]), {})
    costs.put_attribute(MONDAY, "main", "1")
    assert costs.status(attribute="git.branch", value="main", include_judges=True).used == Decimal("1.25")
    # An experiment whose start time has changed may also be on another day, with another branch.
    costs.lake.replace(JUDGE_COST_BY_EXPERIMENT, TODAY, judged, {})
    assert costs.status(attribute="git.branch", value="main", include_judges=True).used == Decimal("1.25")


def test_judges_count_for_budgets_of_their_dataset_workspace_and_period_alone(costs: Costs) -> None:
    first, of = date(2026, 3, 1), {1: TENANT, 2: OTHER_TENANT}
    costs.put(first, *(daily(None, number, str(number), tenant_id=tenant) for number, tenant in of.items()))
    times = {"stats_as_of": NOW, "read_at": NOW}
    rows = [
        {"id": uuid(number), "tenant_id": tenant, "reference_dataset_id": dataset(number), "total_cost": "0.5", **times}
        for number, tenant in of.items()
    ]
    costs.lake.replace(JUDGE_COST_BY_EXPERIMENT, first, table_of(JUDGE_COST_BY_EXPERIMENT.name, rows), {})
    for keys, used in (({}, 4), ({"dataset": dataset(1)}, "1.5"), ({"workspace": OTHER_TENANT}, "2.5")):
        assert costs.status(include_judges=True, **keys).used == Decimal(used)
    assert costs.status(include_judges=True, period="week").used == 0
    # An unknown cost was measured, so it is not too late.
    rows[0]["total_cost"] = None
    costs.lake.replace(JUDGE_COST_BY_EXPERIMENT, first, table_of(JUDGE_COST_BY_EXPERIMENT.name, rows), {})
    status = costs.status(include_judges=True)
    assert (status.unjudged, status.too_old) == (1, 0)


def test_judges_too_old_to_be_measured_make_a_budget_unknown_and_are_reported(costs: Costs) -> None:
    costs.put(date(2026, 3, 2), daily(None, 1, "1", session_count=2))
    status = costs.status(include_judges=True)
    assert (status.state, status.too_old) == ("unknown", 2)
    said = "judges of 2 of 2 experiments not measured; 2 of them started over 14 days ago, too late to be measured"
    assert status.notes == said
    costs.put(TODAY, daily(None, 1, "1"))
    caveats = costs.status(include_judges=True).notes
    assert caveats.startswith(f"{said.replace('2 of 2', '3 of 3')}; `sessions-pipeline")
    assert caveats.endswith("` measures those of the last 14 days")
    assert costs.status().state == "ok"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("claude-opus-5", ""),
        (
            "claude-opus-55",
            "no experiment of the last 30 days has models = claude-opus-55, did you mean claude-opus-5?",
        ),
        ("to come", "no experiment of the last 30 days has models = to come"),
    ],
)
def test_an_attribute_value_that_no_experiment_has_is_reported_beside_the_state(
    costs: Costs, value: str, said: str
) -> None:
    keys = {"attribute": "models", "value": value}
    assert costs.status(**keys).unseen == "", "nor has any experiment another value"
    costs.put_attribute(MONDAY, None, "2", attribute="models")
    assert costs.status(**keys).unseen == ""
    for day in MONTH:
        costs.put_attribute(day, "claude-opus-5", "2", attribute="models")
    # Another attribute has this value.
    costs.put(MONTH[-1] - timedelta(days=1))
    costs.put_attribute(MONTH[-1] - timedelta(days=1), value, "2")
    status = costs.status(**keys)
    assert (status.state, status.notes) == ("ok", said)
    assert costs.status(attribute="models", value="\x1b[1m").unseen.endswith(" has models = ␛[1m")
    costs.put_attribute(TODAY - timedelta(days=31), "of old", "2", attribute="models")
    assert costs.status(attribute="models", value="of old").unseen.endswith("last 30 days has models = of old")


def test_a_forecast_beyond_the_limit_is_reported_and_does_not_change_the_state(costs: Costs) -> None:
    costs.put(MONDAY, daily(None, 1, "304"))
    status = costs.status()
    assert (status.state, status.notes) == ("ok", "the forecast, $480.00, is over the limit")
    assert status.headline == "$304.00 of $400.00 (76.0 %), heading for $480.00"
    assert costs.status(limit=480).notes == ""
    assert costs.status(limit=300).notes == "", "it is exceeded already"


@pytest.mark.parametrize(
    ("lacking", "amounts"),
    [
        ({}, ("$2.00", "$400.00", "0.5 %", "$3.00")),
        ({"unpriced": 1}, ("≥ $2.00", "$400.00", "≥ 0.5 %", "≥ $3.00")),
        ({"unjudged": 1}, ("≥ $2.00", "$400.00", "≥ 0.5 %", "≥ $3.00")),
        ({"unread": (MONDAY,), "forecast": None}, ("≥ $2.00", "$400.00", "≥ 0.5 %", "")),
        ({"unpriced": 1, "used": None, "forecast": None}, ("unknown", "$400.00", "\N{EN DASH}", "")),
    ],
)
def test_amounts_that_lack_unknown_costs_are_minimums_in_every_text(
    lacking: dict[str, Any], amounts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The headline is what the check, notifications and the summary of a run say."""
    known = {"used": Decimal(2), "forecast": Decimal(3), **lacking}
    status = BudgetStatus(budget(), MONTH[-1], date(2026, 3, 31), NOW, False, **known)
    assert status.amounts == amounts
    used, limit, percent, forecast = amounts
    assert status.headline == f"{used} of {limit} ({percent}){f', heading for {forecast}' if forecast else ''}"
    print_budgets([status])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "$400.00" in line)
    assert " ".join(filter(None, amounts)) in " ".join(row.split())


@pytest.fixture
def command(costs: Costs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command `budget` on this lake today, with a file of one budget."""
    today = datetime.now(UTC)

    def run(*arguments: str, spent: str | None = None, read_at: datetime = today, keys: str = "") -> None:
        costs.put(today.date(), *([daily(None, 1, spent)] if spent else []), read_at=read_at)
        text = BUDGET.replace("month", "day") + keys
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SESSIONS_PIPELINE_BUDGETS", str(settings_of(tmp_path, text).budgets))
        monkeypatch.setenv("SESSIONS_PIPELINE_DATA_ROOT", str(costs.root))
        cli.main(["budget", *arguments], standalone_mode=False)

    return run


def test_the_command_prints_a_table_that_fits_or_json(
    command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(spent="10")
    printed = capsys.readouterr().out
    assert "all" in printed
    assert "$10.00" in printed
    monkeypatch.setenv("COLUMNS", "80")
    command(spent="1234567.89")
    assert "all     day     $1,234,567.89" in capsys.readouterr().out, "it fits, with its period"
    monkeypatch.setenv("COLUMNS", "50")
    command(spent="10")
    printed = capsys.readouterr().out
    assert "Too narrow for Period; widen the terminal, or set COLUMNS" in " ".join(printed.split())
    assert max(map(len, printed.splitlines()[:-1])) <= 50
    command("--json", spent="10", keys='\n[[budget]]\nname = "third"\nlimit = 3\nperiod = "day"\n')
    found, third = json.loads(capsys.readouterr().out)
    assert (found["name"], Decimal(found["used"]), found["state"], found["is_known"]) == ("all", 10, "ok", True)
    assert "dataset" not in found, "it is about all experiments"
    assert third["share"] == "3.333333333333333333"


def test_check_exits_with_3_beyond_the_limit_1_if_unknown_and_0_otherwise(command: Any) -> None:
    command("--check", spent="399")
    with pytest.raises(BudgetExceededError, match="beyond the limit: all") as exceeded:
        command("--check", spent="401")
    with pytest.raises(SessionsPipelineError, match="can't be known, for the reasons above: all") as unknown:
        command("--check", spent="1", read_at=datetime.now(UTC) - timedelta(hours=25))
    assert (exceeded.value.exit_status, unknown.value.exit_status) == (3, 1)
    with pytest.raises(SessionsPipelineError, match="can't be known"):
        command("--check", spent="350", read_at=datetime.now(UTC) - timedelta(hours=25))
    # Without --check, neither is an error.
    command(spent="401")
    command(spent="1", read_at=datetime.now(UTC) - timedelta(hours=25))


def test_a_dataset_that_is_not_known_is_said_beside_its_budget_and_check_exits_with_1(
    command: Any, costs: Costs, capsys: pytest.CaptureFixture[str]
) -> None:
    costs.name(golden=1)
    command(spent="1", keys='dataset = "gloden"')
    printed = capsys.readouterr().out
    assert re.search(r"^ *all .* unknown *$", printed, re.MULTILINE)
    assert "\nall: no dataset is called 'gloden'; write golden\n" in printed
    with pytest.raises(SessionsPipelineError, match="can't be known, for the reasons above: all") as unknown:
        command("--check", spent="1", keys='dataset = "gloden"')
    assert unknown.value.exit_status == 1


def test_budgets_are_told_apart_although_a_name_has_a_comma(command: Any) -> None:
    more = '\n[[budget]]\nname = "prod, day"\nlimit = 1\nperiod = "day"\n'
    with pytest.raises(BudgetExceededError, match=r"beyond the limit: all; prod, day$"):
        command("--check", spent="401", keys=more)


def test_check_exits_with_1_if_judges_that_count_were_not_measured(
    command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SessionsPipelineError, match="can't be known, for the reasons above: all"):
        command("--check", spent="1", keys="include_judges = true")
    printed = capsys.readouterr().out
    assert "unknown" in printed
    assert "--select judge_cost_by_experiment` measures those" in printed
    with pytest.raises(BudgetExceededError):
        command("--check", spent="401", keys="include_judges = true")


def test_the_summary_lists_the_costs_that_a_budgets_sum_lacks(
    costs: Costs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = BUDGET.replace("all", r"all\u001b[1m")
    settings = settings_of(tmp_path, text).model_copy(update={"data_root": str(costs.root)})
    print_summary(settings, {}, TODAY, TODAY, budgets=load_budgets(settings))
    printed = capsys.readouterr().out.partition("Budget   all␛[1m (month): unknown of $400.00")[2]
    [state, below] = printed.splitlines()[:2]
    assert state.endswith(" - unknown")
    assert below.startswith("         not read to the end: ")


def test_without_a_file_the_command_says_how_to_write_one(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command()
    monkeypatch.delenv("SESSIONS_PIPELINE_BUDGETS")
    with pytest.raises(
        SettingError, match=r'lines \[\[budget\]\], name = "all experiments", limit = 400.00 and period'
    ):
        cli.main(["budget"], standalone_mode=False)
