"""The sandbox against the API's own description: schemathesis looks for what does not fit."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS

from sessions_pipeline_tests.faulty_server import Sandbox, build_api, running_sandbox
from sessions_pipeline_tests.strategies import openapi


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(build_api(broken=False)) as running:
        yield running


def _document() -> dict[str, Any]:
    """The file, with the refusals that it leaves out: a wrong key is 401, another's workspace 403."""
    document = copy.deepcopy(openapi())
    refusal = {"description": "Refused", "content": {"application/json": {"schema": {"type": "object"}}}}
    document["paths"]["/api/v1/sessions"]["get"]["responses"] |= {"401": refusal, "403": refusal}
    return document


schema = schemathesis.openapi.from_dict(_document())


def check(case: schemathesis.Case, sandbox: Sandbox) -> None:
    # The file types `metadata`, `filter` and the like as any string; the API refuses most of them with a 422.
    accepted = CHECKS.get_by_names(["positive_data_acceptance"])
    case.call_and_validate(base_url=sandbox.url, headers={"X-API-Key": sandbox.key}, excluded_checks=accepted)


# To these come some 250 requests that schemathesis makes of the file, one for each way to break a parameter.
@schema.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_schemathesis_finds_nothing(case: schemathesis.Case, sandbox: Sandbox) -> None:
    check(case, sandbox)


@pytest.mark.long
@schema.parametrize()
@settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_schemathesis_finds_nothing_in_many_requests(case: schemathesis.Case, sandbox: Sandbox) -> None:
    check(case, sandbox)
