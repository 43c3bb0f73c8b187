"""When days are refreshed and costs measured: every hour, every night; and how a run's tags name its days."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta

import dagster as dg

from sessions_pipeline.days import ranges, utc_day
from sessions_pipeline.settings import Settings

REFRESH = "refresh_sessions"
MEASURE_PROJECTS, MEASURE_JUDGES = "measure_project_costs", "measure_judge_costs"
# Feedback may arrive without new runs, and the API's stats reach 31 days back.
NIGHTLY_DAYS = 31
RANGE_START, RANGE_END, PARTITION = (
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
    "dagster/partition",
)


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Every hour today and the lookback days, every night the last 31 days, one run each; then projects and judges."""

    def schedule(
        name: str, cron: str, description: str, *, job: str = REFRESH, days_back: int | None = None
    ) -> dg.ScheduleDefinition:
        def request(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
            if days_back is None:
                return dg.RunRequest()
            today = utc_day(context.scheduled_execution_time)
            return dg.RunRequest(tags=range_tags(max(today - timedelta(days=days_back), settings.start_date), today))

        return dg.ScheduleDefinition(
            name=name,
            job_name=job,
            cron_schedule=cron,
            execution_timezone="UTC",
            execution_fn=request,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=description,
        )

    lookback, nightly = settings.lookback_days, NIGHTLY_DAYS - 1
    late = f"Refreshes the last {NIGHTLY_DAYS} days, for feedback that arrives without new runs."
    missed = "Measures what every project used yesterday, and on days missed while it was down."
    judges = "Measures what evaluators have spent on experiments that ran lately."
    return [
        schedule("hourly_refresh", "0 * * * *", f"Refreshes today and the {lookback} days before.", days_back=lookback),
        schedule("nightly_refresh", "30 2 * * *", late, days_back=nightly),
        schedule("nightly_project_costs", "0 3 * * *", missed, job=MEASURE_PROJECTS),
        schedule("nightly_judge_costs", "30 3 * * *", judges, job=MEASURE_JUDGES),
    ]


def runs_of(days: Iterable[date], time: datetime) -> list[dg.RunRequest]:
    """A run for each stretch of adjoining days; its key is the time, since the same days may be asked for again."""
    return [
        dg.RunRequest(run_key=f"{first}/{last}@{time.isoformat()}", tags=range_tags(first, last))
        for first, last in ranges(days)
    ]


def range_tags(first: date, last: date) -> dict[str, str]:
    """Run tags that make one run of several days."""
    return {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}


def tagged_range(tags: Mapping[str, str]) -> tuple[date, date] | None:
    """The first and last day that a run's tags name, as a range or as one partition; None where they name none."""
    first, last = tags.get(RANGE_START) or tags.get(PARTITION), tags.get(RANGE_END) or tags.get(PARTITION)
    return (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None
