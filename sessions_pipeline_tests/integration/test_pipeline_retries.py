"""A retry that Dagster's daemon has missed is asked for again, and only that."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from sessions_pipeline.orchestration.pipeline import now
from sessions_pipeline.orchestration.retries import OVERDUE, REPORTS, missed_retries, overdue


@dg.job
def nothing() -> None:
    """A run of it is enough."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(overrides={"run_retries": {"enabled": True, "max_retries": 2}}) as instance:
        yield instance


def failed_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    run = instance.create_run_for_job(nothing)
    instance.report_run_failed(run, "killed")
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def reports(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int:
    return len(instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records)


def test_a_run_whose_retry_is_overdue_is_reported_again_a_few_times(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = failed_run(instance)
    assert run.tags[WILL_RETRY_TAG] == "true"
    assert overdue(instance, now()) == [], "the daemon has a minute"
    monkeypatch.setattr("sessions_pipeline.orchestration.retries.now", lambda: now() + 2 * OVERDUE)
    for _ in range(REPORTS + 2):
        missed_retries()(dg.build_sensor_context(instance))
    assert reports(instance, run) == REPORTS


def test_a_run_that_was_retried_or_is_not_to_be_is_left_alone(instance: dg.DagsterInstance) -> None:
    retried, final = failed_run(instance), failed_run(instance)
    instance.add_run_tags(retried.run_id, {AUTO_RETRY_RUN_ID_TAG: "another"})
    instance.add_run_tags(final.run_id, {WILL_RETRY_TAG: "false"})
    assert overdue(instance, now() + timedelta(hours=1)) == []
