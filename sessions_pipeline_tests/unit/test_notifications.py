"""Notifications: over ninety days each of four problems is sent once, and nothing else; and errors when sending."""

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from sessions_pipeline.cli import cli
from sessions_pipeline.days import days_between, period_of
from sessions_pipeline.definitions import build_definitions
from sessions_pipeline.errors import SessionsPipelineError, SettingError, TooManyRejectedError
from sessions_pipeline.lake import Lake
from sessions_pipeline.orchestration import dump_cursor, load_cursor
from sessions_pipeline.orchestration.notifications import api_notices, run_notices, send
from sessions_pipeline.outputs import notifications
from sessions_pipeline.outputs.budget_file import Budget
from sessions_pipeline.outputs.budgets import BudgetStatus
from sessions_pipeline.outputs.notifications import A_DAY, Memory, Notice, check_addresses, deliver, lake_notices
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.settings import Settings, without_secrets
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline_tests.receiver import Receiver, receiving

FIRST, HOUR = datetime(2026, 1, 1, 0, 5, tzinfo=UTC), timedelta(hours=1)
MONTH = Budget.model_validate({"name": "all", "limit": 100, "period": "month"}, context=Settings())
ENDS = "The API announces the end of /api/v1/sessions (Sunset: Thu, 01 Jul 2027 00:00:00 GMT); look for a newer version"
REPORT = "/srv/costs/data/reports/cost.html"
NOTICE = Notice("cause", "title", "text", FIRST + A_DAY)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def settings_for(*addresses: str) -> Settings:
    return Settings(SESSIONS_PIPELINE_NOTIFY=",".join(addresses))


def spent(now: datetime) -> BudgetStatus:
    """The status of a budget of 100 dollars a month, of which a day uses two, or five in February."""
    first, last = period_of("month", now.date())
    used = Decimal(sum(5 if day.month == 2 else 2 for day in days_between(first, now.date())))
    return BudgetStatus(MONTH, first, last, now, is_stale=False, used=used, experiments=9)


def loaded(text: str | None, now: datetime) -> Memory:
    return Memory.resumed(load_cursor(text, Memory, print), now)


def is_down(now: datetime, day: date, first_hour: int, last_hour: int) -> bool:
    return now.date() == day and first_hour <= now.hour <= last_hour


@pytest.fixture
def trouble() -> Iterator[dg.DagsterInstance]:
    """An instance with a run that failed because a day was rejected, and a refresh with the API's announced end."""

    @dg.op
    def refresh() -> None:
        raise TooManyRejectedError("2026-03-20: 30 of 40 records are rejected (name: is missing)")

    @dg.job
    def refresh_sessions() -> None:
        refresh()

    with dg.DagsterInstance.ephemeral() as instance:
        refresh_sessions.execute_in_process(instance=instance, raise_on_error=False)
        warned = dg.AssetMaterialization("raw_sessions", metadata={"api_warnings": f"Beware; {ENDS}"})
        instance.report_runless_asset_event(warned)
        yield instance


def test_in_ninety_days_each_problem_is_sent_once_an_overrun_a_stall_a_rejected_day_and_an_announced_end(
    receiver: Receiver, trouble: dg.DagsterInstance
) -> None:
    settings, cursor, refreshed, when = settings_for(receiver.address), None, FIRST, list[str]()
    for hour in range(90 * 24):
        now = FIRST + hour * HOUR
        if is_down(now, date(2026, 3, 5), 2, 20):
            continue  # in these hours this machine is off
        memory = loaded(cursor, now)
        was_off = now.date() == date(2026, 3, 5) and now.hour == 21
        if not is_down(now, date(2026, 1, 10), 3, 23) and not is_down(now, date(2026, 1, 11), 0, 3) and not was_off:
            refreshed = now - timedelta(minutes=4)
        found = list(lake_notices([spent(now)], refreshed, memory, now, REPORT))
        if is_down(now, date(2026, 3, 20), 5, 23) or is_down(now, date(2026, 3, 21), 0, 4):
            found += run_notices(trouble, FIRST, now)[0]
        if now.date() >= date(2026, 2, 1) and now.hour % 6 == 0:
            found += api_notices(trouble, now)
        sent = send(settings, memory.due(found, now), pytest.fail)
        when += [f"{now:%m-%d %H} {notice.title}" for notice in sent]
        cursor = dump_cursor(memory.after(sent, now, now))
    assert when == [
        "01-10 05 No successful refresh for three hours",
        "02-01 00 The API announces its end",
        "02-16 00 Budget 'all' has reached its warning",
        "02-21 00 Budget 'all' is beyond its limit",
        "03-20 05 refresh_sessions failed",
    ]
    assert len(receiver.messages) == len(when)
    assert "2026-03-20: 30 of 40 records are rejected" in receiver.messages[-1]["message"]
    assert "were last read at 2026-01-10 02:01 UTC" in receiver.messages[0]["message"]


def test_a_lost_run_is_sent_with_dagsters_reason() -> None:
    @dg.job
    def refresh_sessions() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        lost = instance.create_run_for_job(refresh_sessions)
        instance.report_run_failed(lost, "The machine went away")
        retried = instance.create_run_for_job(refresh_sessions, tags={"dagster/will_retry": "true"})
        instance.report_run_failed(retried, "It is tried again by Dagster")
        [notice], _ = run_notices(instance, FIRST, FIRST)
    assert notice.title == "refresh_sessions failed"
    assert notice.text.startswith("The machine went away\n")
    assert lost.run_id in notice.text


def test_a_run_whose_process_died_is_sent_as_such_where_dagster_gives_no_reason() -> None:
    @dg.job
    def refresh_sessions() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_run_failed(instance.create_run_for_job(refresh_sessions))
        [notice], _ = run_notices(instance, FIRST, FIRST)
    assert notice.text.startswith("Its process died or was not started.\n")


def test_a_lasting_problem_is_sent_again_a_day_later_and_a_budget_in_its_next_period() -> None:
    memory = loaded(None, FIRST).after([NOTICE], FIRST, FIRST)
    assert memory.due([NOTICE, NOTICE], FIRST + A_DAY - HOUR) == []
    assert memory.due([NOTICE, NOTICE], FIRST + A_DAY) == [NOTICE]
    assert memory.after([], FIRST + A_DAY, FIRST).sent == {}, "the memory stays small"
    [warning] = lake_notices([spent(datetime(2026, 2, 18, tzinfo=UTC))], FIRST, memory, FIRST, REPORT)
    assert warning.again_from == datetime(2026, 3, 1, 3, tzinfo=UTC)
    assert warning.text.startswith("Period ending 2026-02-28: $90.00 of $100.00 (90.0 %)")
    assert warning.text.endswith(f"See {REPORT}, and `sessions-pipeline budget`.")
    days = (FIRST.date(), FIRST.date() + A_DAY)
    wrong = [BudgetStatus(MONTH, day, day, FIRST, is_stale=False, problem="no such dataset") for day in days]
    first, second = lake_notices(wrong, FIRST, memory, FIRST, REPORT)
    assert first.cause == second.cause, "else it would be sent again at midnight"
    [stall] = lake_notices([], None, memory.after([], FIRST + HOUR, FIRST), FIRST + 4 * HOUR, REPORT)
    assert stall.text.startswith("Today and the days before it were never read, or not in every workspace. See")


def test_after_days_without_dagster_a_refresh_has_three_hours_before_it_is_reported_missing() -> None:
    last, start = FIRST, FIRST + 5 * A_DAY
    memory = loaded(dump_cursor(loaded(None, FIRST)), start)
    for minutes in (0, 5, 60, 180):
        now = start + timedelta(minutes=minutes)
        memory = loaded(dump_cursor(memory.after([], now, now)), now)
        assert list(lake_notices([], last, memory, now, REPORT)) == []
        assert list(lake_notices([], None, memory, now, REPORT)) == []
    now = start + timedelta(minutes=185)
    [stall] = lake_notices([], last, loaded(dump_cursor(memory), now), now, REPORT)
    assert f" were last read at {last:%Y-%m-%d %H:%M} UTC, over three hours ago. See" in stall.text


def test_a_clock_that_was_a_year_ahead_for_a_while_hides_no_missing_refresh() -> None:
    memory = loaded(None, FIRST)
    for now in (FIRST + 365 * A_DAY, FIRST, FIRST + 2 * HOUR):
        memory = loaded(dump_cursor(memory), now).after([], now, now)
    now = FIRST + timedelta(minutes=185)
    [stall] = lake_notices([], None, loaded(dump_cursor(memory), now), now, REPORT)
    assert stall.title == "No successful refresh for three hours"


def test_a_message_sent_while_the_clock_was_a_year_ahead_may_be_sent_again_once_it_is_right() -> None:
    ahead = FIRST + 365 * A_DAY
    memory = loaded(None, FIRST).after([NOTICE._replace(again_from=ahead + A_DAY)], ahead, ahead)
    memory = loaded(dump_cursor(memory), FIRST)
    assert memory.due([NOTICE], FIRST) == [NOTICE]
    assert memory.runs_from < FIRST


def test_a_message_is_sent_again_only_if_no_service_accepted_it(receiver: Receiver) -> None:
    warnings = list[str]()
    nowhere = "json://127.0.0.1:9/secret-token"
    assert send(settings_for(nowhere), [NOTICE], warnings.append) == []
    assert warnings == ["title: not delivered by JSON; see `sessions-pipeline doctor --notify`"]
    assert send(settings_for(nowhere, receiver.address), [NOTICE], warnings.append) == [NOTICE]
    assert len(receiver.messages) == 1
    assert "secret-token" not in " ".join(warnings)


def test_a_service_that_does_not_answer_is_given_up_in_time(receiver: Receiver) -> None:
    receiver.may_answer.clear()
    # Apprise itself would wait for a minute, and get the answer.
    result = deliver(settings_for(f"{receiver.address}?rto=60"), "title", "text", 0.2)
    receiver.may_answer.set()
    assert result == ([], ["JSON"])


def test_dagster_does_not_load_if_apprise_does_not_know_an_address_and_the_reason_does_not_show_it() -> None:
    for addresses in (["carrier-pigeon://hunter2"], ["json://127.0.0.1:9", "slak://hunter2"]):
        with pytest.raises(SettingError) as caught:
            build_definitions(Pipeline(settings_for(*addresses)))
        place = f"SESSIONS_PIPELINE_NOTIFY: address {len(addresses)}, which Apprise does not know; write addresses such"
        assert str(caught.value).startswith(place)
        assert "hunter2" not in str(caught.value)


def test_an_address_that_apprise_does_not_know_does_not_stop_messages_to_the_others(receiver: Receiver) -> None:
    warnings = list[str]()
    settings = settings_for("carrier-pigeon://hunter2", receiver.address, "slak://hunter2")
    assert send(settings, [NOTICE], warnings.append) == [NOTICE]
    assert len(receiver.messages) == 1
    does_not = "which Apprise does not know"
    assert warnings == [
        f"title: not delivered by address 1, {does_not}, address 3, {does_not}; see `sessions-pipeline doctor --notify`"
    ]


def test_a_run_that_was_interrupted_is_sent_in_words_and_not_as_the_name_of_an_exception() -> None:
    @dg.op
    def refresh() -> None:
        raise dg.DagsterExecutionInterruptedError

    @dg.job
    def refresh_sessions() -> None:
        refresh()

    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            refresh_sessions.execute_in_process(instance=instance)
        [notice], _ = run_notices(instance, FIRST, datetime.now(UTC))
    assert notice.text.startswith("It was interrupted, perhaps because Dagster was stopped.\n")


def test_a_budget_that_can_not_be_evaluated_is_sent_once_a_day_beside_the_others() -> None:
    wrong = BudgetStatus(MONTH, *period_of("month", FIRST.date()), FIRST, is_stale=False, problem="write golden")
    memory = loaded(None, FIRST)
    one, other = lake_notices([wrong, spent(FIRST + 27 * A_DAY + 31 * A_DAY)], FIRST, memory, FIRST, REPORT)
    assert (one.title, one.again_from) == ("Budget 'all' can't be checked", FIRST + A_DAY)
    assert "write golden" in one.text
    assert other.title == "Budget 'all' is beyond its limit"


def test_messages_errors_and_logs_hide_the_addresses(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SESSIONS_PIPELINE_NOTIFY", f"{receiver.address}/swordfish, slack://hunter2/b/c")
    secret = f"{receiver.address}/swordfish"
    deliver(settings_for(receiver.address, "slak://hunter2"), f"a {secret}", f"{secret} failed", 5)
    assert (receiver.messages[0]["title"], receiver.messages[0]["message"]) == (
        "sessions-pipeline: a ***",
        "*** failed",
    )
    assert caplog.text == ""
    assert without_secrets("slack://hunter2/b/c") == "***"


def test_without_the_extra_the_setting_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(SettingError, match=r"SESSIONS_PIPELINE_NOTIFY: .* `pip install 'sessions-pipeline\[notify\]'`"):
        check_addresses(settings_for("slack://a/b/c"))


@pytest.mark.parametrize(("minutes", "fresh"), [(179, True), (181, False), (None, False)])
def test_doctor_says_whether_the_last_refresh_is_fresh(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    minutes: int | None,
    fresh: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSIONS_PIPELINE_DATA_ROOT", str(tmp_path / "lake"))
    if minutes is not None:
        now = datetime.now(UTC)
        reading = Reading(1, now - timedelta(minutes=minutes), None, (), 1, 0, 1)
        Lake.open("lake", query={}).write_file(
            f"_readings/start_date={now.date()}.json", dump_readings([reading]).encode()
        )
    if fresh:
        cli.main(["doctor", "--fresh"], standalone_mode=False)
        assert capsys.readouterr().out.startswith("ok    last refresh 2")
    else:
        with pytest.raises(SessionsPipelineError, match=r"over three hours ago|never read") as caught:
            cli.main(["doctor", "--fresh"], standalone_mode=False)
        assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    ("minutes", "named", "last"),
    [
        ((5, 500), (), 500),
        ((5, 50), (), 50),
        ((5, 500), (0,), 5),
        ((5, 500), (0, 1), 500),
        ((5,), (0, 1), None),
        ((), (), None),
    ],
)
def test_the_last_refresh_is_that_of_the_workspace_that_was_read_longest_ago(
    tmp_path: Path, minutes: tuple[int, ...], named: tuple[int, ...], last: int | None
) -> None:
    """If the settings name workspaces, each must have been read; old readings of others do not count."""
    workspaces = [f"0000000{number}-0000-4000-8000-000000000000" for number in range(2)]
    lake = Lake.open(str(tmp_path), query={})
    for days_ago in range(2):
        readings = [
            Reading(number + 1, FIRST - timedelta(days=days_ago, minutes=ago), workspace, (workspace,), 1, 0, 1)
            for number, (workspace, ago) in enumerate(zip(workspaces, minutes, strict=False))
        ]
        day = FIRST.date() - timedelta(days=days_ago)
        lake.write_file(f"_readings/start_date={day}.json", dump_readings(readings).encode())
    settings = Settings(LANGSMITH_WORKSPACE_ID=",".join(workspaces[number] for number in named))
    expected = None if last is None else FIRST - timedelta(minutes=last)
    assert notifications.last_refresh(lake, settings, FIRST) == expected


def test_just_after_midnight_yesterdays_refresh_counts_even_without_lookback(tmp_path: Path) -> None:
    lake, at = Lake.open(str(tmp_path), query={}), FIRST - timedelta(minutes=10)
    note = dump_readings([Reading(1, at, None, (), 1, 0, 1)]).encode()
    lake.write_file(f"_readings/start_date={at.date()}.json", note)
    assert notifications.last_refresh(lake, Settings(SESSIONS_PIPELINE_LOOKBACK_DAYS=0), FIRST) == at


def test_doctor_sends_a_test_and_says_whether_it_was_delivered(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSIONS_PIPELINE_NOTIFY", receiver.address)
    cli.main(["doctor", "--notify"], standalone_mode=False)
    assert capsys.readouterr().out == "ok    delivered by JSON\n"
    assert [message["title"] for message in receiver.messages] == ["sessions-pipeline: a test"]
    receiver.status = 500
    with pytest.raises(SessionsPipelineError, match="not delivered by JSON; check its address"):
        cli.main(["doctor", "--notify"], standalone_mode=False)
    receiver.status = 200
    monkeypatch.setenv("SESSIONS_PIPELINE_NOTIFY", f"{receiver.address}, slak://hunter2")
    with pytest.raises(SessionsPipelineError, match="not delivered by address 2, which Apprise does not know"):
        cli.main(["doctor", "--notify"], standalone_mode=False)
    monkeypatch.delenv("SESSIONS_PIPELINE_NOTIFY")
    with pytest.raises(SettingError, match="SESSIONS_PIPELINE_NOTIFY: not set; set it to Apprise addresses"):
        cli.main(["doctor", "--notify"], standalone_mode=False)
