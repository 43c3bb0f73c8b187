"""`SessionsQuery` has the parameters of `GET /api/v1/sessions` in the OpenAPI file."""

from typing import Any, get_args
from uuid import UUID

import pytest
from pydantic import ValidationError

from sessions_pipeline.langsmith import FeedbackSource, SessionsQuery, SortableColumn
from sessions_pipeline_tests.strategies import openapi, resolved

_OPERATION = openapi()["paths"]["/api/v1/sessions"]["get"]
_PARAMETERS: dict[str, dict[str, Any]] = {one["name"]: one for one in _OPERATION["parameters"] if one["in"] == "query"}
_OURS = SessionsQuery.model_json_schema(mode="validation")
_UUIDS = (UUID("0b8e3b1e-11aa-4000-8000-00000000000a"), UUID("0b8e3b1e-11aa-4000-8000-00000000000b"))
_DECIDING = ("type", "format", "enum", "minimum", "maximum")


def _meaning(schema: dict[str, Any]) -> dict[str, Any]:
    """The parts of a schema that decide whether a value is valid, with references followed."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return _meaning(_OURS["$defs"][name] if "$defs" in schema["$ref"] else resolved(schema))
    if "anyOf" in schema:
        [option] = [option for option in schema["anyOf"] if option.get("type") != "null"]
        return {**_meaning(option), "nullable": True}
    result = {key: schema[key] for key in _DECIDING if key in schema}
    if "items" in schema:
        result["items"] = _meaning(schema["items"])
    return result


def test_the_query_has_exactly_the_parameters_of_the_schema_in_its_order() -> None:
    assert list(SessionsQuery.model_fields) == list(_PARAMETERS)
    assert len(_PARAMETERS) == 21


@pytest.mark.parametrize("name", _PARAMETERS)
def test_a_parameter_has_the_schema_s_type_bounds_and_values(name: str) -> None:
    assert _meaning(_OURS["properties"][name]) == _meaning(_PARAMETERS[name]["schema"])


@pytest.mark.parametrize("name", _PARAMETERS)
def test_a_parameter_has_the_schema_s_default_and_is_not_required(name: str) -> None:
    assert _OURS["properties"][name]["default"] == _PARAMETERS[name]["schema"].get("default")
    assert not _PARAMETERS[name]["required"]
    assert name not in _OURS.get("required", [])


def test_the_enums_have_the_values_of_the_schema() -> None:
    schemas = openapi()["components"]["schemas"]
    assert list(get_args(SortableColumn)) == schemas["SessionSortableColumns"]["enum"]
    assert list(get_args(FeedbackSource)) == schemas["FeedbackSourceParam"]["enum"]


@pytest.mark.parametrize("name", [name for name in _PARAMETERS if "items" in _meaning(_PARAMETERS[name]["schema"])])
def test_an_array_is_sent_as_repeated_pairs(name: str) -> None:
    items = _UUIDS if "format" in _meaning(_PARAMETERS[name]["schema"])["items"] else ("total_cost", "run_count")
    pairs = SessionsQuery.model_validate({name: items}).to_parameters()
    assert [value for key, value in pairs if key == name] == [str(item) for item in items]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("offset", -1),
        ("limit", 0),
        ("limit", 101),
        ("sort_by", "cost"),
        ("sort_by_feedback_source", "x"),
        ("id", ["x"]),
    ],
)
def test_a_value_outside_the_schema_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        SessionsQuery.model_validate({name: value})


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValidationError):
        SessionsQuery.model_validate({"page": 2})


def test_booleans_are_sent_as_true_and_false_in_lower_case() -> None:
    pairs = dict(SessionsQuery(reference_free=False, include_stats=True, sort_by_desc=False).to_parameters())
    assert (pairs["reference_free"], pairs["include_stats"], pairs["sort_by_desc"]) == ("false", "true", "false")
