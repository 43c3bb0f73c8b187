"""The model of a session accepts what `sessions.openapi.yaml` allows, property by property and record by record."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from sessions_pipeline.tables import SESSIONS
from sessions_pipeline.validation import rules
from sessions_pipeline.validation.model import PROPERTIES, TRACE_TIERS, Property
from sessions_pipeline_tests.builders import validate
from sessions_pipeline_tests.builders_corpus import CORPUS
from sessions_pipeline_tests.strategies import openapi, records, resolved, sessions

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


_OBJECT = {"type": "object", "additionalProperties": True}
# What each rule reads, in the schema's words.
_MEANINGS: dict[rules.Rule, dict[str, Any]] = {
    rules.UUID: {"type": "string", "format": "uuid"},
    rules.TIME: {"type": "string", "format": "date-time"},
    rules.STRING: {"type": "string"},
    rules.INTEGER: {"type": "integer"},
    rules.DOUBLE: {"type": "number"},
    rules.COST: {"type": "string"},
    rules.OBJECT: _OBJECT,
    rules.OBJECTS: {"type": "array", "items": _OBJECT},
    rules.PROGRESS: {
        "type": "object",
        "properties": {
            "expected_run_count": {"type": "integer"},
            "run_progress": {"type": "number"},
            "evaluator_progress": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        "required": ["evaluator_progress", "expected_run_count", "run_progress"],
    },
}


def _read_as(one: Property) -> dict[str, Any]:
    """What a property may be, in the schema's words."""
    meaning = _MEANINGS[one.rule] | ({"enum": sorted(TRACE_TIERS)} if one.name == "trace_tier" else {})
    return {"anyOf": [meaning, {"type": "null"}]} if one.nullable else meaning


def test_the_model_has_the_schema_s_properties_types_formats_and_nulls() -> None:
    theirs = _meaning(_COMPONENTS["TracerSession"], _COMPONENTS)
    assert {one.name: _read_as(one) for one in PROPERTIES} == theirs["properties"]
    assert sorted(one.name for one in PROPERTIES if one.required) == theirs["required"]
    assert len(PROPERTIES) == len(theirs["properties"])


def test_every_property_of_the_schema_is_a_column_of_sessions() -> None:
    assert SESSIONS.schema.names[: len(PROPERTIES)] == [one.name for one in PROPERTIES]


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
