"""What the runs of a wide backfill write, each by itself in this process: together the same as one run."""

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from dagster_celery.launcher import CeleryRunLauncher

from sessions_pipeline.errors import EngineError, UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.orchestration import workers
from sessions_pipeline.orchestration.build import build_definitions, quiet_config
from sessions_pipeline.orchestration.instance import temporary_instance
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.schedules import REFRESH
from sessions_pipeline.orchestration.wide import WORKSPACE as WORKSPACE_TAG
from sessions_pipeline.orchestration.wide import Part, parts, queue
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.settings import Settings
from sessions_pipeline_tests.faulty_server import Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import NOW, contents, read, settings_for, stray

REPOSITORY = Path(__file__).parents[2]
FIRST, LAST = date(2026, 2, 26), date(2026, 3, 3)
BOTH = f"{WORKSPACE},{OTHER_WORKSPACE}"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(now=NOW) as sandbox:
        yield sandbox


def run(part: Part, settings: Settings) -> None:
    """As a worker runs it: tags are all that tells the part."""
    with temporary_instance() as instance:
        job = build_definitions(Pipeline(settings)).get_repository_def().get_job(REFRESH)
        job.execute_in_process(instance=instance, run_config=quiet_config(), tags=part.tags("test"))


def test_runs_by_month_and_workspace_leave_the_lake_that_one_run_leaves(sandbox: Sandbox, tmp_path: Path) -> None:
    read(sandbox, tmp_path / "one", FIRST, LAST, LANGSMITH_WORKSPACE_ID=BOTH)
    settings = settings_for(sandbox.url, tmp_path / "many", LANGSMITH_WORKSPACE_ID=BOTH)
    wanted = parts(FIRST, LAST, settings.workspace_ids)
    assert len(wanted) == 4
    for part in wanted:
        before = len(sandbox.requests)
        run(part, settings)
        assert {request["workspace"] for request in sandbox.requests[before:]} == {part.workspace}
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert not stray(tmp_path)


def test_a_run_for_a_workspace_that_the_settings_do_not_name_reads_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    settings = settings_for(sandbox.url, tmp_path, LANGSMITH_WORKSPACE_ID=WORKSPACE)
    before = len(sandbox.requests)
    with pytest.raises(dg.DagsterResourceFunctionError) as caught:
        run(Part(LAST, LAST, OTHER_WORKSPACE), settings)
    assert isinstance(caught.value.__cause__, UsageError)
    assert len(sandbox.requests) == before


def test_a_run_in_a_process_that_may_have_no_children_settles_its_days_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "current_process", lambda: SimpleNamespace(daemon=True))
    lake = Lake.open(str(tmp_path), query={})
    with workers.workers_for(31, lake, str(tmp_path), {}) as crew:
        assert list(crew.each(lambda _lake, _task: os.getpid(), range(3))) == [os.getpid()] * 3


def test_the_keys_of_celery_yaml_make_an_instance_that_sends_runs_to_celery_and_counts_them_by_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [(REPOSITORY / name).read_text() for name in ("dagster.yaml", "deploy/celery.yaml")]
    (tmp_path / "dagster.yaml").write_text(
        yaml.safe_dump({k: v for text in texts for k, v in yaml.safe_load(text).items()})
    )
    monkeypatch.setenv("DAGSTER_CELERY_BROKER", "redis://127.0.0.1:1/0")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_launcher, CeleryRunLauncher)
        queue_config = instance.get_concurrency_config().run_queue_config
        assert queue_config is not None
        assert [limit["key"] for limit in queue_config.tag_concurrency_limits] == [WORKSPACE_TAG]


@pytest.mark.parametrize(
    ("url", "error"),
    [("http://127.0.0.1:1", EngineError), ("localhost:3000", UsageError), ("http://localhost:three", UsageError)],
)
def test_a_webserver_that_can_not_be_asked_is_one_line(url: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=url) as caught:
        queue(url, [Part(FIRST, LAST, None)], backfill="test", on_queued=lambda _: None)
    assert "\n" not in str(caught.value)
