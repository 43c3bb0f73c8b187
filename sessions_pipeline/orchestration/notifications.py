"""The sensor `notifications`: reports failed runs and checks, budgets, missing refreshes, and the end of an API."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import dagster as dg

from sessions_pipeline.langsmith.client import ANNOUNCED_END
from sessions_pipeline.orchestration import dump_cursor, load_cursor
from sessions_pipeline.orchestration.checks import costs_are_within_budget
from sessions_pipeline.outputs.notifications import A_DAY, Memory, Notice, check_addresses, data_root_notices, deliver
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import RAW_SESSIONS, REFERENCE_DATASETS

LOOK_EVERY_SECONDS = 300
# How long a tick may read the data root, and how long it may send: Dagster drops a tick that takes longer than 60 s.
LOOK_SECONDS, SEND_SECONDS = 15.0, 20.0
# The end of a run may be stored late, with a time before the last look. A run that is seen twice is reported once.
RUNS_OVERLAP = timedelta(minutes=10)
MOST_RUNS = 100
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
EVENTS = {dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
A_YEAR = timedelta(days=365)
# What Dagster says of a run for whose failure it has no error and no reason.
NO_REASON = "This run has been marked as failed from outside the execution context."


def notifications(pipeline: Pipeline) -> dg.SensorDefinition:
    """The sensor that sends notifications to the addresses in `SESSIONS_PIPELINE_NOTIFY`.

    Raises:
        SettingError: Apprise is not installed, or does not know an address.
    """
    check_addresses(pipeline.settings)

    @dg.sensor(
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports failures, budgets, missing refreshes and the end of an API; each cause once a day.",
    )
    def notifications(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = pipeline.clock()
        memory = Memory.resumed(load_cursor(context.cursor, Memory, context.log.warning), now)
        found, runs_from = run_notices(context.instance, memory.runs_from, now)
        found += api_notices(context.instance, now)
        executor = ThreadPoolExecutor(1)
        looking = executor.submit(data_root_notices, pipeline.settings, memory, now)
        executor.shutdown(wait=False)
        try:
            found += looking.result(LOOK_SECONDS)
        except TimeoutError:
            context.log.warning("The data root is slow; the next tick checks budgets and the last refresh again")
        due = memory.due(found, now)
        sent = send(pipeline.settings, due, context.log.warning)
        # If a notification could not be sent, the next tick looks at the same runs again.
        cursor = memory.after(sent, now, runs_from if len(sent) == len(due) else memory.runs_from)
        titles = "; ".join(notice.title for notice in sent) or "nothing"
        return dg.SensorResult(cursor=dump_cursor(cursor), skip_reason=f"sent: {titles}")

    return notifications


def send(settings: Settings, notices: Sequence[Notice], warn: Callable[[str], object]) -> list[Notice]:
    """Send notices for at most `SEND_SECONDS`, and return those that at least one service accepted."""
    deadline, sent = time.monotonic() + SEND_SECONDS, list[Notice]()
    for notice in notices:
        if (seconds := deadline - time.monotonic()) > 1:
            delivered, failed = deliver(settings, notice.title, notice.text, seconds)
            sent += [notice] if delivered else []
            if failed:
                warn(f"{notice.title}: not delivered by {', '.join(failed)}; see `sessions-pipeline doctor --notify`")
    return sent


def run_notices(instance: dg.DagsterInstance, since: datetime, now: datetime) -> tuple[list[Notice], datetime]:
    """Notices of the runs and checks that failed in runs which ended after `since`; and the `since` of the next look.

    If there are more than `MOST_RUNS` such runs, the next look continues after them.
    """
    filters = dg.RunsFilter(statuses=ENDED, updated_after=since)
    records = instance.get_run_records(filters, limit=MOST_RUNS, order_by="update_timestamp", ascending=True)
    found = [notice for record in records for notice in _notices_of_run(instance, record.dagster_run, now)]
    return found, records[-1].update_timestamp if len(records) == MOST_RUNS else now - RUNS_OVERLAP


def _notices_of_run(instance: dg.DagsterInstance, run: dg.DagsterRun, now: datetime) -> Iterator[Notice]:
    for entry in instance.all_logs(run.run_id, of_type=EVENTS):
        event = entry.get_dagster_event()
        if event.event_type is dg.DagsterEventType.RUN_FAILURE:
            if run.tags.get("dagster/will_retry") != "true":
                yield _run_failure_notice(run, event, now)
            continue
        check = event.asset_check_evaluation_data
        is_error = not check.passed and check.severity is dg.AssetCheckSeverity.ERROR
        if is_error and check.asset_check_key not in costs_are_within_budget.check_keys:
            which, asset = check.metadata.get("which"), check.asset_key.to_user_string()
            text = f"{which.value if which else 'See its metadata.'}\nDagster UI: checks of {asset}, run {run.run_id}."
            yield Notice(f"check {check.check_name}", f"Check {check.check_name} failed", text, now + A_DAY)


def _run_failure_notice(run: dg.DagsterRun, event: dg.DagsterEvent, now: datetime) -> Notice:
    # A run whose process died has neither an error nor a failed step, and often only a general message.
    data = event.job_failure_data if event.event_specific_data else None
    step = data.first_step_failure_event if data else None
    error = (data and data.error) or (step and step.step_failure_data.error)
    kind, reason = "", "Its process died or was not started." if event.message in (NO_REASON, None) else event.message
    if error is not None:
        # Dagster wraps our error in one of its own.
        error = error.cause or error
        kind, reason = str(error.cls_name), re.sub(r"^[\w.]+: ", "", error.message).partition("\n")[0]
        # Without a text, such as the error of a run that was interrupted, Dagster has only the name.
        reason = re.sub(r"\S+InterruptedError$", "It was interrupted, perhaps because Dagster was stopped.", reason)
    title = "A materialization failed" if run.job_name.startswith("__") else f"{run.job_name} failed"
    text = f"{reason}\nThe schedule tries again. See run {run.run_id} in the Dagster UI, or `sessions-pipeline doctor`."
    return Notice(f"run of {run.job_name}: {kind}", title, text, now + A_DAY)


def api_notices(instance: dg.DagsterInstance, now: datetime) -> Iterator[Notice]:
    """Notices of an end that the API announced for one of its paths during the latest refresh; once a year each."""
    for table in (RAW_SESSIONS, REFERENCE_DATASETS):
        event = instance.get_latest_materialization_event(dg.AssetKey(table.name))
        last = event.asset_materialization if event else None
        warnings = str(last.metadata["api_warnings"].value) if last and "api_warnings" in last.metadata else ""
        for end in ANNOUNCED_END.finditer(warnings):
            text = f"{end[0]}.\nSESSIONS_PIPELINE_API_VERSION sets the version to read; see docs/api-versions.md."
            yield Notice(end[1], "The API announces its end", text, now + A_YEAR)
