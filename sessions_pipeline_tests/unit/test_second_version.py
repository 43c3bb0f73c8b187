"""Version 2's records are converted to version 1 without losing anything, and the conversion is reversible."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.langsmith.api_versions import (
    COSTS,
    FEEDBACK,
    OMITTED_IN_V1,
    as_v1,
    read_v2_page,
    v2_parameters,
)
from sessions_pipeline.tables import SESSION_FEEDBACK, SESSIONS
from sessions_pipeline_tests.builders import dataset, uuid, validate
from sessions_pipeline_tests.days import derive

NO_SCORES = '"contains_thread_feedback":false,"max":null,"median":null,"min":null,"type":"PRIMARY"'
PROJECT = f'{{"id":"{uuid(1)}","tenant_id":"{uuid(2)}","type":"PROJECT"'


def second(**values: str) -> str:
    """A record of version 2 from the JSON texts of its properties."""
    return "{" + ",".join(f'"{name}":{text}' for name, text in values.items()) + "}"


@pytest.mark.parametrize(
    ("sent", "spelt"),
    [
        ('{"total_cost":0.10}', '{"total_cost":"0.10"}'),
        ('{"prompt_cost":1E-7,"completion_cost":null}', '{"prompt_cost":"1E-7","completion_cost":null}'),
        ('{"total_cost":1234567890.123456789012345678}', '{"total_cost":"1234567890.123456789012345678"}'),
        ('{"total_cost":"0.5"}', '{"total_cost":"0.5"}'),
        ('{"trace_tier":"LONG_LIVED"}', '{"trace_tier":"longlived"}'),
        ('{"trace_tier":"SHORT_LIVED"}', '{"trace_tier":"shortlived"}'),
        ('{"trace_tier":"FOR_EVER"}', '{"trace_tier":"FOR_EVER"}'),
        ('{"type":"PROJECT"}', "{}"),
        ('{"type":"PROJECT","reference_dataset_id":null}', '{"reference_dataset_id":null}'),
        ('{"type":"EXPERIMENT","reference_dataset_id":"d"}', '{"reference_dataset_id":"d"}'),
        ('{"type":"AGENT"}', '{"type":"AGENT"}'),
        ('{"type":"PROJECT","reference_dataset_id":"d"}', '{"type":"PROJECT","reference_dataset_id":"d"}'),
        (
            '{"extra":{"total_cost":1.0,"type":"PROJECT"} , "é":1}',
            '{"extra":{"total_cost":1.0,"type":"PROJECT"} , "é":1}',
        ),
        (
            f'{{"feedback_stats":{{"a":{{"avg":0.50,"errors":0,{NO_SCORES},"n":2,"stdev":null,"values":{{}}}}}}}}',
            '{"feedback_stats":{"a":{"n":2,"avg":0.50,"stdev":null,"errors":0}}}',
        ),
        (
            '{"session_feedback_stats":{"a":{"values":{"x":1},"min":0.1,"type":"COMPOSITE","n":2}}}',
            '{"session_feedback_stats":{"a":{"n":2,"values":{"x":1},"min":0.1,"type":"COMPOSITE"}}}',
        ),
        ('{"feedback_stats":null,"total_cost":1}', '{"feedback_stats":null,"total_cost":"1"}'),
        ('{"feedback_stats":{"a":7},"total_cost":1}', '{"feedback_stats":{"a":7},"total_cost":"1"}'),
        ('{"extra":{"metadata":{"min":null,"n":1}}}', '{"extra":{"metadata":{"min":null,"n":1}}}'),
        ('{"total_cost":NaN}', '{"total_cost":NaN}'),
        (
            '{"total_cost":NaN,"prompt_cost":-Infinity,"trace_tier":"LONG_LIVED"}',
            '{"total_cost":NaN,"prompt_cost":-Infinity,"trace_tier":"longlived"}',
        ),
        ('{"name":"\\ud800","total_cost":1}', '{"name":"\\ud800","total_cost":"1"}'),
        ('{"\\ud800":1,"total_cost":1}', '{"\\ud800":1,"total_cost":1}'),
        ("[1]", "[1]"),
        ("7", "7"),
    ],
)
def test_a_version_2_record_is_converted_to_version_1(sent: str, spelt: str) -> None:
    assert as_v1(sent) == spelt
    assert as_v1(spelt) == spelt, "version 1's own spelling stays"


DIGITS = st.from_regex(r"\A(0|[1-9][0-9]{0,19})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?\Z")
STAT = st.one_of(st.just("null"), DIGITS)
SCORES = st.fixed_dictionaries(
    {
        "n": DIGITS,
        "avg": STAT,
        "stdev": STAT,
        "errors": DIGITS,
        "min": STAT,
        "max": STAT,
        "median": STAT,
        "values": st.sampled_from(["{}", '{"pass":3}']),
        "contains_thread_feedback": st.sampled_from(["true", "false"]),
        "type": st.sampled_from(['"PRIMARY"', '"COMPOSITE"']),
    }
).map(lambda fields: second(**fields))
RECORDS = st.fixed_dictionaries(
    {
        "id": st.just('"a"'),
        "type": st.sampled_from(['"PROJECT"', '"EXPERIMENT"', '"AGENT"', '"NEW"']),
        "reference_dataset_id": st.sampled_from(["null", '"d"']),
        "trace_tier": st.sampled_from(["null", '"LONG_LIVED"', '"SHORT_LIVED"', '"OTHER"']),
        **dict.fromkeys(COSTS, STAT),
        **dict.fromkeys(FEEDBACK, st.one_of(st.just("null"), SCORES.map(lambda scores: second(score=scores)))),
        "extra": st.sampled_from(["null", '{"total_cost": 1.50}']),
    }
)


def as_second_version(payload: str) -> dict[str, Any]:
    """The reverse conversion, as docs/api-versions.md describes it. Numbers stay texts."""
    values: dict[str, Any] = json.loads(payload, parse_float=str, parse_int=str)
    values.setdefault("type", "EXPERIMENT" if values["reference_dataset_id"] else "PROJECT")
    tiers = {"longlived": "LONG_LIVED", "shortlived": "SHORT_LIVED"}
    values["trace_tier"] = tiers.get(values["trace_tier"], values["trace_tier"])
    nothing = {name: json.loads(text) for name, text in OMITTED_IN_V1.items()}
    for name in FEEDBACK:
        values[name] = values[name] and {key: {**nothing, **scores} for key, scores in values[name].items()}
    return values


@given(RECORDS)
def test_the_conversion_to_version_1_is_reversible(texts: dict[str, str]) -> None:
    sent = second(**texts)
    assert as_second_version(as_v1(sent)) == json.loads(sent, parse_float=str, parse_int=str)


def test_a_version_2_record_is_valid_without_drift_and_its_feedback_is_read() -> None:
    scores = f'{{"avg":0.5,"errors":1,{NO_SCORES},"n":2,"stdev":0.1,"values":{{"pass":2}}}}'
    sent = (
        f'{{"id":"{uuid(1)}","tenant_id":"{uuid(2)}","name":"n","start_time":"2026-03-20T10:00:00.5Z",'
        f'"type":"EXPERIMENT","reference_dataset_id":"{dataset(1)}","trace_tier":"LONG_LIVED",'
        f'"total_cost":0.000000000000000001,"feedback_stats":{{"ok":{scores}}}}}'
    )
    judged = validate([as_v1(sent)])
    assert (judged.rejected, judged.drift) == ({}, {})
    [row] = judged.sessions.to_pylist()
    assert (row["trace_tier"], f"{row['total_cost']:f}") == ("longlived", "0.000000000000000001")
    [feedback] = derive(SESSION_FEEDBACK, {SESSIONS: judged.sessions}).to_pylist()
    names = ("count", "average", "standard_deviation", "errors", "values")
    assert [feedback[name] for name in names] == [2, 0.5, 0.1, 1, '{"pass":2}']


def test_a_version_2_page_has_records_and_the_next_cursor() -> None:
    body = f'{{"next_cursor": "abc", "new": [1], "items": [{PROJECT}, "total_cost": 1.0}}, 7, {{"id": NaN}}]}}'
    records, cursor = read_v2_page(body.encode())
    assert cursor == "abc"
    assert [record.session_id for record in records] == [uuid(1), None, None]
    assert records[0].payload == f'{{"id":"{uuid(1)}","tenant_id":"{uuid(2)}","total_cost":"1.0"}}'
    assert [record.payload for record in records[1:]] == ["7", '{"id": NaN}']


@pytest.mark.parametrize("body", ["[]", "{}", '{"detail": "not found"}', '{"items": 7}', '{"items": [}'])
def test_a_body_without_a_list_of_items_is_an_error_and_no_empty_page(body: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_v2_page(body.encode())


@pytest.mark.parametrize("cursor", ["0", "7", "false", "{}", '{"after": "x"}', "[]"])
def test_a_cursor_that_is_no_text_is_an_error_and_no_end_of_the_list(cursor: str) -> None:
    with pytest.raises(ValueError, match="Expected `str"):
        read_v2_page(f'{{"items": [{PROJECT}}}], "next_cursor": {cursor}}}'.encode())


@pytest.mark.parametrize("end", ["null", '""', None])
def test_the_last_page_has_no_cursor(end: str | None) -> None:
    body = '{"items":[]}' if end is None else f'{{"items":[],"next_cursor":{end}}}'
    assert read_v2_page(body.encode()) == ([], "")


@pytest.mark.parametrize("cursor", ['"next"', "null", '""'])
def test_items_that_are_null_are_an_empty_page(cursor: str) -> None:
    body = f'{{"items": null, "next_cursor": {cursor}}}'.encode()
    assert read_v2_page(body) == ([], json.loads(cursor) or "")


@pytest.mark.parametrize(
    ("reference_free", "kinds"), [(None, []), (True, ["PROJECT", "AGENT"]), (False, ["EXPERIMENT"])]
)
def test_a_query_keeps_its_order_and_its_kind_of_sessions(reference_free: bool | None, kinds: list[str]) -> None:
    for descending, order in ((True, "desc"), (False, "asc")):
        asked = v2_parameters(SessionsQuery(reference_free=reference_free, sort_by_desc=descending), "next")
        assert [value for name, value in asked if name == "type"] == kinds
        assert dict(asked)["sort_order"] == order
        assert dict(asked)["cursor"] == "next"
