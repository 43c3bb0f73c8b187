"""Retries that Dagster owes and has forgotten.

Dagster's daemon notices a run to be retried by its failure event, which is stored a moment before the run itself is
marked as failed. A daemon that looks in between takes the run for a healthy one and never looks again; nor does one
that could not reach the code server just then. Reporting the failure once more makes it look again.
"""

from datetime import datetime, timedelta

import dagster as dg
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from sessions_pipeline.orchestration.pipeline import now

SENSOR = "missed_retries"
LOOK_EVERY_SECONDS = 60
# The daemon looks every five seconds.
OVERDUE = timedelta(seconds=60)
FORGOTTEN = timedelta(days=1)
# Some retries are refused for good, such as those of a cancelled backfill.
REPORTS = 3


def missed_retries() -> dg.SensorDefinition:
    """Reports failures again whose retry is overdue; idle where run retries are not enabled."""

    @dg.sensor(
        name=SENSOR,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reminds Dagster of failed runs that it was to retry and has not.",
    )
    def missed_retries(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        runs = overdue(context.instance, now())
        for run in runs:
            context.instance.report_run_failed(run, "The retry of this run is overdue: its failure is reported again.")
        return dg.SkipReason(f"reminded of {len(runs)} runs" if runs else "no retry is overdue")

    return missed_retries


def overdue(instance: dg.DagsterInstance, time: datetime) -> list[dg.DagsterRun]:
    """The failed runs that were to be retried more than a minute before `time`, and were not."""
    records = instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE], tags={WILL_RETRY_TAG: "true"}, updated_after=time - FORGOTTEN
        )
    )
    return [
        record.dagster_run
        for record in records
        if AUTO_RETRY_RUN_ID_TAG not in record.dagster_run.tags
        and (record.end_time or 0) < (time - OVERDUE).timestamp()
        and _reports(instance, record.dagster_run.run_id) < REPORTS
    ]


def _reports(instance: dg.DagsterInstance, run: str) -> int:
    return len(instance.get_records_for_run(run, of_type=dg.DagsterEventType.RUN_FAILURE).records)
