"""LangSmith's official client reads the sandbox, and gets the same sessions and costs as our Parquet has."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import langsmith
import pytest
from langsmith.types.dataset import Dataset

from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.sandbox.company import WORKSPACE
from sessions_pipeline.tables import SESSIONS
from sessions_pipeline_tests.builders import validate
from sessions_pipeline_tests.faulty_server import Sandbox, running_sandbox
from sessions_pipeline_tests.integration.pipeline_runs import FIRST, NOW, TODAY, lake_at, read, settings_for


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(broken=False, now=NOW, is_drawn=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(sandbox: Sandbox) -> Iterator[langsmith.Client]:
    client = client_of(sandbox)
    yield client
    client.close()


def client_of(sandbox: Sandbox) -> langsmith.Client:
    return langsmith.Client(api_url=f"{sandbox.url}/api/v1", api_key=sandbox.key, info={}, auto_batch_tracing=False)


def test_the_official_client_lists_the_same_ids_and_costs_as_our_parquet(
    sandbox: Sandbox, client: langsmith.Client, tmp_path: Path
) -> None:
    listed = {
        str(project.id): project.total_cost
        for project in client.list_projects(include_stats=True)
        if FIRST <= project.start_time.date() <= TODAY
    }
    read(sandbox, tmp_path)
    table = lake_at(tmp_path).read_days(SESSIONS, lake_at(tmp_path).days(SESSIONS), ["id", "total_cost"])
    assert len(listed) > 80
    assert {row["id"]: row["total_cost"] for row in table.to_pylist()} == listed


def test_the_official_client_can_filter_sessions(client: langsmith.Client) -> None:
    projects = list(client.list_projects(reference_free=True))
    assert {project.name for project in projects} >= {"evaluators", "support-production"}
    assert {project.reference_dataset_id for project in projects} == {None}
    [one] = client.list_projects(name=projects[0].name)
    assert one.id == projects[0].id


def test_the_official_client_lists_the_datasets(sandbox: Sandbox, client: langsmith.Client) -> None:
    as_sent = client.request_with_retries("GET", "/datasets").json()
    assert all(Dataset.model_validate(dataset) for dataset in as_sent), "the type that the client is generated with"
    listed = list(client.list_datasets())
    assert [dataset.model_dump(mode="json")["name"] for dataset in listed] == [
        dataset.name for dataset in sandbox.api.data.datasets if dataset.tenant_id == WORKSPACE
    ]
    assert all(dataset.example_count and dataset.session_count and dataset.modified_at for dataset in listed)
    assert all(dataset.last_session_start_time and dataset.created_at < NOW for dataset in listed)
    baselines = [dataset["baseline_experiment_id"] for dataset in as_sent]
    assert 0 < len(set(baselines) - {None}) < len(baselines)
    some = [dataset.id for dataset in listed[3:5]]
    assert [dataset.id for dataset in client.list_datasets(dataset_ids=some)] == some
    [one] = client.list_datasets(dataset_name="contract-clauses")
    assert one.data_type == "kv"


async def judges_of(client: langsmith.Client, experiment: str) -> list[Any]:
    name = json.dumps(experiment)
    return await list_second_version(
        client,
        name="evaluators",
        include_stats=True,
        stats_filter=f'and(eq(metadata_key, "experiment"), eq(metadata_value, {name}))',
    )


def test_the_official_client_reads_the_cost_of_an_experiments_judges(sandbox: Sandbox) -> None:
    judges = next(one for one in sandbox.api.data.sessions if one.name == "evaluators")
    experiment = next(one.name for one in judges.judged if "\\" in one.name)
    client = client_of(sandbox)
    [found] = asyncio.run(judges_of(client, experiment))
    client.close()
    assert found.run_count == sum(run.experiment == experiment for run in judges.runs) > 0


async def list_second_version(client: langsmith.Client, **values: Any) -> list[Any]:
    items = [item async for item in client.sessions.list_v2(page_size=100, sort_by="START_TIME", **values)]
    await client.sessions._client.close()
    return items


def test_the_official_client_reads_version_2(sandbox: Sandbox, client: langsmith.Client) -> None:
    items = asyncio.run(list_second_version(client, include_stats=True, sort_order="asc"))
    expected = {one.id for one in sandbox.api.data.sessions if one.tenant_id == WORKSPACE}  # type: ignore[attr-defined]
    assert len(items) == len(expected)
    assert {item.id for item in items} == expected
    assert [item.start_time for item in items] == sorted(item.start_time for item in items)
    first = {str(one.id): one.total_cost for one in client.list_projects(include_stats=True, limit=300)}
    costs = {item.id: item.total_cost for item in items if item.id in first}
    assert costs == {name: None if cost is None else float(cost) for name, cost in first.items()}


def test_our_reading_of_version_2_equals_what_the_official_client_lists(sandbox: Sandbox, tmp_path: Path) -> None:
    first = NOW.date() - timedelta(days=200)
    # A new client, because the other test has closed the connections of the fixture's.
    client = client_of(sandbox)
    items = asyncio.run(list_second_version(client, include_stats=True, sort_order="desc"))
    client.close()
    settings = settings_for(sandbox.url, tmp_path, SESSIONS_PIPELINE_API_VERSION="v2")
    with Pipeline(settings).sources() as (_, [source]):
        read = [payload for day in source.days(first, TODAY) for (payload,) in day.rows.tuples("payload")]
    judged = validate(read)
    assert (judged.rejected, set(judged.drift)) == ({}, {"longlived_ttl_days"})
    ours = {row["id"]: row for row in judged.sessions.to_pylist()}
    assert len(ours) == judged.sessions.num_rows == len(items) > 1400
    for item in items:
        row = ours[item.id]
        assert (row["name"], row["run_count"], row["total_tokens"]) == (item.name, item.run_count, item.total_tokens)
        assert row["start_time"] == item.start_time
        assert (row["total_cost"] is None) is (item.total_cost is None)
        # The client converts costs to floats; ours keep the digits that were sent.
        assert item.total_cost is None or float(row["total_cost"]) == item.total_cost
        assert {"longlived": "LONG_LIVED", "shortlived": "SHORT_LIVED"}[row["trace_tier"]] == item.trace_tier
        assert set(json.loads(row["feedback_stats"])) == set(item.feedback_stats)
