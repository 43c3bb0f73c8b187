"""The model of a session accepts what `sessions.openapi.yaml` allows, property by property and record by record."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from sessions_pipeline.validation.model import PROPERTIES, TRACE_TIERS, ExperimentProgress, TracerSession
from sessions_pipeline_tests.builders import validate
from sessions_pipeline_tests.builders_corpus import CORPUS
from sessions_pipeline_tests.strategies import openapi, records, resolved, sessions

_MODELS: list[type] = [TracerSession, ExperimentProgress]
_COMPONENTS = openapi()["components"]["schemas"]
_VALIDATOR = Draft202012Validator({**_COMPONENTS["TracerSession"], "components": openapi()["components"]})


def _meaning(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The parts of a schema that decide whether a value is valid: no titles, descriptions, defaults or references."""
    if "$ref" in schema:
        return _meaning(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _meaning(inner, definitions) for name, inner in value.items()}
        elif key == "anyOf":
            result[key] = [_meaning(option, definitions) for option in value]
        elif key == "items" or (key == "additionalProperties" and isinstance(value, dict)):
            result[key] = _meaning(value, definitions)
        elif key in ("required", "enum"):
            result[key] = sorted(value)
        elif key in ("type", "format") or (key == "additionalProperties" and "properties" not in schema):
            result[key] = value
        elif key not in ("title", "description", "default", "additionalProperties", "$defs"):
            raise AssertionError(f"{key} decides on values, and nothing compares it")
    return result


@pytest.mark.parametrize("model", _MODELS, ids=lambda model: model.__name__)
def test_the_model_has_the_schema_s_properties_types_formats_and_nulls(model: type) -> None:
    ours = TypeAdapter(model).json_schema(mode="validation")
    theirs = _meaning(_COMPONENTS[model.__name__], _COMPONENTS)
    mirrored = _meaning(ours, ours.get("$defs", {}))
    for name, schema in theirs["properties"].items():
        assert mirrored["properties"].get(name) == schema, name
    assert mirrored == theirs


def test_the_model_has_the_trace_tiers_of_the_schema() -> None:
    assert list(TRACE_TIERS) == _COMPONENTS["TraceTier"]["enum"]


def test_every_property_of_the_schema_is_a_column_of_sessions() -> None:
    assert sorted(item.name for item in PROPERTIES) == sorted(_COMPONENTS["TracerSession"]["properties"])


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
