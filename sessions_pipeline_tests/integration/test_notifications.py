"""Notifications from a real Dagster instance to a local HTTP server: each kind of problem is sent once."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from sessions_pipeline.definitions import build_definitions
from sessions_pipeline.lake import Lake
from sessions_pipeline.orchestration import range_tags
from sessions_pipeline.orchestration.run import QUIET
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline_tests.faulty_server import Fault, Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import (
    FIRST,
    NOW,
    TODAY,
    PipelineWithShortWindow,
    execute,
    record,
    settings_for,
    some_records,
)
from sessions_pipeline_tests.receiver import Receiver, receiving

BUDGETS = """
[[budget]]
name = "week"
limit = 100
period = "week"

[[budget]]
name = "today"
limit = 130
period = "day"

[[budget]]
name = "month"
limit = 100_000
period = "month"
"""


class House:
    """A sandbox, a lake, a Dagster instance and a receiver of notifications, which all last for the test."""

    def __init__(self, sandbox: Sandbox, receiver: Receiver, instance: dg.DagsterInstance, folder: Path) -> None:
        self.sandbox, self.receiver, self.instance = sandbox, receiver, instance
        self.file = folder / "budgets.toml"
        self.file.write_text(BUDGETS)
        self.settings: Settings = settings_for(
            sandbox.url,
            folder / "lake",
            SESSIONS_PIPELINE_NOTIFY=receiver.address,
            SESSIONS_PIPELINE_BUDGETS=str(self.file),
            SESSIONS_PIPELINE_START_DATE=FIRST,
            SESSIONS_PIPELINE_LOOKBACK_DAYS=2,
        )
        self.cursor: str | None = None

    def run(self, at: datetime) -> None:
        execute(PipelineWithShortWindow(self.settings, clock=lambda: at), FIRST, TODAY, instance=self.instance)

    def check(self, name: str, at: datetime) -> dg.ExecuteInProcessResult:
        job = build_definitions(PipelineWithShortWindow(self.settings, clock=lambda: at)).get_repository_def()
        key = dg.AssetCheckKey(dg.AssetKey(DAILY.name), name)
        return (
            job.get_implicit_global_asset_job_def()
            .get_subset(asset_selection=set(), asset_check_selection={key})
            .execute_in_process(instance=self.instance, run_config=QUIET, tags=range_tags(FIRST, TODAY))
        )

    def tick(self, at: datetime) -> dict[str, str]:
        """Run the sensor at a time. Returns the texts that it sends by their title, without the product's name."""
        repository = build_definitions(PipelineWithShortWindow(self.settings, clock=lambda: at)).get_repository_def()
        sensor = repository.get_sensor_def("notifications")
        tick_result = sensor.evaluate_tick(dg.build_sensor_context(instance=self.instance, cursor=self.cursor))
        assert tick_result.skip_message
        self.cursor = tick_result.cursor
        return {title.removeprefix("sessions-pipeline: "): text for title, text in self.receiver.take().items()}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with (
        running_sandbox(texts=some_records(), now=NOW) as sandbox,
        receiving() as receiver,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        yield House(sandbox, receiver, instance, tmp_path)


def test_each_kind_of_problem_is_sent_once_with_what_to_do_and_where_to_look(house: House) -> None:
    house.sandbox.faults.add(Fault("deprecated", "Thu, 01 Jul 2027 00:00:00 GMT", times=None))
    house.run(NOW)
    sent = house.tick(NOW)
    assert set(sent) == {
        "Budget 'week' is beyond its limit",
        "Budget 'today' has reached its warning",
        "The API announces its end",
    }
    used = "Period ending 2026-03-20: $113.75 of $130.00 (87.5 %)\n"
    assert sent["Budget 'today' has reached its warning"].startswith(used)
    assert "Sunset: Thu, 01 Jul 2027" in sent["The API announces its end"]
    assert "docs/api-versions.md" in sent["The API announces its end"]

    house.run(NOW + timedelta(minutes=30))
    assert house.tick(NOW + timedelta(minutes=31)) == {}
    kept, house.cursor = house.cursor, "edited by hand"
    assert set(house.tick(NOW + timedelta(minutes=31))) == set(sent)
    house.cursor = kept

    lake = Lake.open(house.settings.data_root, query={})
    [row] = lake.read(DAILY, FIRST).to_pylist()
    wrong = pa.Table.from_pylist([{**row, "total_cost": Decimal(7)}], DAILY.schema)
    lake.replace(DAILY, FIRST, wrong, lake.metadata(DAILY, FIRST))
    house.check("costs_add_up", NOW)
    house.check("costs_add_up", NOW)
    house.check("costs_are_within_budget", NOW)
    sent = house.tick(NOW + timedelta(minutes=40))
    assert set(sent) == {"Check costs_add_up failed"}
    assert str(FIRST) in sent["Check costs_add_up failed"]
    assert "Dagster UI" in sent["Check costs_add_up failed"]

    house.sandbox.faults.add(Fault("status", 401, times=None))
    for minutes in (60, 120):
        with pytest.raises(Exception, match="401"):
            house.run(NOW + timedelta(minutes=minutes))
    sent = house.tick(NOW + timedelta(minutes=125))
    assert set(sent) == {"refresh_sessions failed"}
    assert "401" in sent["refresh_sessions failed"]
    assert "sessions-pipeline doctor" in sent["refresh_sessions failed"]

    sent = house.tick(NOW + timedelta(minutes=215))
    assert set(sent) == {"No successful refresh for three hours"}
    assert "were last read at 2026-03-20 15:30 UTC" in sent["No successful refresh for three hours"]
    assert house.tick(NOW + timedelta(minutes=220)) == {}


def test_unreadable_budgets_are_sent_and_a_stall_is_still_sent(house: House) -> None:
    house.run(NOW)
    house.file.write_text(BUDGETS.replace("limit", "limt"))
    assert "limt is not a key" in house.tick(NOW + timedelta(minutes=5))["Budgets can't be checked"]
    for minutes in range(10, 190, 5):
        assert house.tick(NOW + timedelta(minutes=minutes)) == {}
    assert set(house.tick(NOW + timedelta(minutes=190))) == {"No successful refresh for three hours"}


def test_the_check_warns_at_a_share_fails_beyond_a_limit_and_never_fails_the_run(house: House) -> None:
    house.run(NOW)

    def found(budgets: str) -> dg.AssetCheckEvaluation:
        house.file.write_text(budgets)
        [evaluation] = house.check("costs_are_within_budget", NOW).get_asset_check_evaluations()
        return evaluation

    beyond, near, far = (f"[[budget]]{one}" for one in BUDGETS.split("[[budget]]")[1:])
    evaluation = found(far)
    assert (evaluation.passed, set(evaluation.metadata)) == (True, {"month (month)"})
    evaluation = found(near + far)
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(evaluation.description).startswith("Budgets at their warning or beyond their limit: 1 of 2; ")
    evaluation = found(beyond + near + far)
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert str(evaluation.metadata["today (day)"].value).startswith("$113.75 of $130.00 (87.5 %)")
    evaluation = found(far + '[[budget]]\nname = "x"\nlimit = 1\nperiod = "day"\ndataset = "gloden"')
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert str(evaluation.description).endswith("1 can't be checked, for the reason below.")
    assert set(evaluation.metadata) == {"month (month)", "x (day)"}
    assert "no dataset is called 'gloden'" in str(evaluation.metadata["x (day)"].value)
    evaluation = found('[[budget]]\nname = "x"')
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "budget 1: limit is missing" in str(evaluation.description)
    house.cursor = None
    assert set(house.tick(NOW)) == {"Budgets can't be checked"}


def test_a_broken_file_fails_the_check_of_budgets_and_not_its_run(house: House) -> None:
    house.run(NOW)
    file = Path(house.settings.data_root) / f"{DAILY.name}/start_date={FIRST}/{DAILY.name}.parquet"
    file.write_bytes(b"PAR1")
    [evaluation] = house.check("costs_are_within_budget", NOW).get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert str(evaluation.description).startswith(f"{file}: not a readable Parquet file of this table (")


def test_without_the_settings_there_is_neither_check_nor_sensor() -> None:
    repository = build_definitions(
        PipelineWithShortWindow(settings_for("http://127.0.0.1:9", Path("lake")))
    ).get_repository_def()
    assert [sensor.name for sensor in repository.sensor_defs] == ["changed_sessions"]
    assert "costs_are_within_budget" not in {key.name for key in repository.asset_graph.asset_check_keys}


def test_what_was_spent_in_a_periods_last_hour_is_reported_after_its_end_once(house: House) -> None:
    midnight = NOW.replace(hour=0) + timedelta(days=1)
    house.run(midnight - timedelta(hours=1))
    assert "Budget 'today' has reached its warning" in house.tick(midnight - timedelta(minutes=55))
    late = [record(1000 + number, midnight - timedelta(minutes=20)) for number in range(20)]
    house.sandbox.api.data.texts[:0] = late  # type: ignore[attr-defined]
    house.run(midnight)
    sent = house.tick(midnight + timedelta(minutes=5))
    assert sent.keys() == {"Budget 'today' is beyond its limit"}
    assert sent.popitem()[1].startswith("Period ending 2026-03-20: $138.75 of $130.00")
    later = [house.tick(midnight + timedelta(minutes=minutes)) for minutes in (10, 175, 185)]
    assert not [title for sent in later for title in sent if title.startswith("Budget")]


def test_a_budget_that_is_exceeded_just_after_its_period_began_is_reported_at_once_and_once(house: House) -> None:
    midnight = NOW.replace(hour=0) + timedelta(days=1)
    house.run(midnight - timedelta(minutes=10))
    assert "Budget 'today' has reached its warning" in house.tick(midnight - timedelta(minutes=5))
    assert house.tick(midnight + timedelta(minutes=5)) == {}
    early = [record(1000 + number, midnight + timedelta(minutes=10)) for number in range(105)]
    house.sandbox.api.data.texts[:0] = early  # type: ignore[attr-defined]
    pipeline = PipelineWithShortWindow(house.settings, clock=lambda: midnight + timedelta(minutes=30))
    execute(pipeline, TODAY, TODAY + timedelta(days=1), instance=house.instance)
    sent = house.tick(midnight + timedelta(minutes=35))
    assert sent.keys() == {"Budget 'today' is beyond its limit"}
    assert sent.popitem()[1].startswith("Period ending 2026-03-21: $131.25 of $130.00")
    later = [house.tick(midnight + timedelta(minutes=minutes)) for minutes in (40, 175, 185)]
    assert not [title for sent in later for title in sent if title.startswith("Budget")]
