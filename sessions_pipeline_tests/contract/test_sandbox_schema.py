"""Schemathesis searches for answers of the sandbox that do not conform to the API's OpenAPI file."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, settings
from schemathesis.checks import CHECKS

from sessions_pipeline.sandbox import SessionsQuery
from sessions_pipeline_tests.faulty_server import Sandbox, build_api, running_sandbox
from sessions_pipeline_tests.strategies import openapi


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(build_api(broken=False)) as running:
        yield running


def _document() -> dict[str, Any]:
    """The OpenAPI file, with the two refusals that it lacks: 401 for a wrong key, 403 for a foreign workspace."""
    document = copy.deepcopy(openapi())
    refusal = {"description": "Refused", "content": {"application/json": {"schema": {"type": "object"}}}}
    document["paths"]["/api/v1/sessions"]["get"]["responses"] |= {"401": refusal, "403": refusal}
    return document


schema = schemathesis.openapi.from_dict(_document())


def check(case: schemathesis.Case, sandbox: Sandbox) -> None:
    # As in FastAPI, of a parameter that is no list and is sent several times the last value counts, and a list may be
    # one value, and any value in a list of texts is sent as a text. And next to the right key, any other credentials
    # are ignored.
    for name, value in (case.query or {}).items():
        assume((name in SessionsQuery.arrays) == isinstance(value, list))
        assume(name != "stats_select" or all(isinstance(one, str) for one in value))
    assume("Authorization" not in (case.headers or {}))
    # In the file, `metadata`, `filter` and some others may be any string, but the API refuses most strings with a 422.
    accepted = CHECKS.get_by_names(["positive_data_acceptance"])
    case.call_and_validate(base_url=sandbox.url, headers={"X-API-Key": sandbox.key}, excluded_checks=accepted)


# Besides these examples, schemathesis sends about 250 requests, one for each way to break a parameter of the file.
@schema.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
def test_answers_conform_to_the_openapi_file(case: schemathesis.Case, sandbox: Sandbox) -> None:
    check(case, sandbox)


@pytest.mark.long
@schema.parametrize()
@settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_answers_to_many_requests_conform_to_the_openapi_file(case: schemathesis.Case, sandbox: Sandbox) -> None:
    check(case, sandbox)
