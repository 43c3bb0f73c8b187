"""What is a valid session follows what `sessions.openapi.yaml` allows, property by property and record by record."""

import json

from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from sessions_pipeline.validation import rules
from sessions_pipeline.validation.model import PROPERTIES, TRACE_TIERS
from sessions_pipeline_tests.builders import validate
from sessions_pipeline_tests.builders_corpus import CORPUS
from sessions_pipeline_tests.strategies import openapi, records, resolved, sessions

_COMPONENTS = openapi()["components"]["schemas"]
_VALIDATOR = Draft202012Validator({**_COMPONENTS["TracerSession"], "components": openapi()["components"]})


# By type and format, or by reference.
_RULES = {
    "uuid": rules.UUID,
    "date-time": rules.TIME,
    "string": rules.STRING,
    "integer": rules.INTEGER,
    "number": rules.DOUBLE,
    "object": rules.OBJECT,
    "array": rules.OBJECTS,
    "#/components/schemas/TraceTier": rules.STRING,
    "#/components/schemas/ExperimentProgress": rules.PROGRESS,
}


def test_the_properties_are_the_schema_s_with_its_types_formats_and_nulls() -> None:
    schema = _COMPONENTS["TracerSession"]
    theirs = set()
    for name, sent in schema["properties"].items():
        options = sent.get("anyOf", [sent])
        kind, *others = [one for one in options if one.get("type") != "null"]
        assert others == [], name
        rule = _RULES[kind.get("$ref") or kind.get("format") or kind["type"]]
        is_cost = name in ("total_cost", "prompt_cost", "completion_cost")
        theirs.add((name, rules.COST if is_cost else rule, name in schema["required"], len(options) > 1))
    assert {(one.name, one.rule, one.required, one.nullable) for one in PROPERTIES} == theirs


def test_the_trace_tiers_are_the_schema_s() -> None:
    assert [*TRACE_TIERS] == _COMPONENTS["TraceTier"]["enum"]


@given(sessions())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_record_that_the_schema_allows_is_valid(payload: str) -> None:
    validated = validate([payload])
    assert (validated.rejected, validated.drift) == ({}, {})
    assert validated.sessions.column("problems").null_count == 1


@given(records())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_valid_record_is_allowed_by_the_schema(payload: str) -> None:
    if not validate([payload]).rejected:
        _assert_allowed(payload)


def test_every_valid_record_of_the_corpus_is_allowed_by_the_schema() -> None:
    for case in CORPUS:
        if not case.reasons and len(case.payload) < 10_000:
            _assert_allowed(case.payload)


def _assert_allowed(payload: str) -> None:
    value = json.loads(payload, parse_int=float, parse_float=float)
    for name, inner in value.items():
        # These are valid although the schema forbids them: unusable costs, new tiers, no name, no start time.
        if name.endswith("_cost") and not isinstance(inner, str):
            value[name] = None
    if value.get("trace_tier") not in (None, *resolved(_COMPONENTS["TraceTier"])["enum"]):
        value["trace_tier"] = None
    value = {name: inner for name, inner in value.items() if inner is not None or name not in ("name", "start_time")}
    assert [error.message for error in _VALIDATOR.iter_errors(value)] == []
