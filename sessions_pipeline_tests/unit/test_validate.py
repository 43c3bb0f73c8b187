import json
import re
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions_pipeline.validation.json_text import UNREADABLE
from sessions_pipeline.validation.model import PROPERTIES, Property
from sessions_pipeline.validation.rules import Text
from sessions_pipeline.validation.validate import Validator
from sessions_pipeline_tests.builders import validate
from sessions_pipeline_tests.builders_corpus import CORPUS, FULL, ID, TENANT, Case, record
from sessions_pipeline_tests.strategies import column_texts, records


def _rows(payloads: Sequence[str]) -> list[dict[str, Any]]:
    return validate(payloads).sessions.to_pylist()


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_a_record_is_validated_as_its_case_says(case: Case) -> None:
    validated = validate([case.payload])
    if case.reasons:
        assert validated.rejected == {0: case.reasons}
        assert (validated.sessions.num_rows, validated.drift, validated.rounded) == (0, Counter(), 0)
        return
    assert validated.rejected == {}
    [row] = validated.sessions.to_pylist()
    assert {name: _spelt(row[name]) for name in case.values} == {n: _spelt(v) for n, v in case.values.items()}
    assert row["problems"] == (None if case.problems is None else list(case.problems))
    assert validated.drift == Counter(case.drift)
    assert validated.rounded == case.rounded


@pytest.mark.parametrize("case", [case for case in CORPUS if case.reasons], ids=lambda case: case.name)
def test_a_reason_names_the_field_and_is_short_enough_to_read(case: Case) -> None:
    for reason in validate([case.payload]).rejected[0]:
        assert re.fullmatch(r"[^:]+: [a-z].*", reason)
        assert len(reason) <= 200
        assert reason.isprintable()


def _assert_each_by_itself(payloads: Sequence[str]) -> None:
    """Asserts that records have the same results together and one by one."""
    together, alone = validate(payloads), [validate([payload]) for payload in payloads]
    assert together.rejected == {row: one.rejected[0] for row, one in enumerate(alone) if one.rejected}
    assert together.drift == sum((one.drift for one in alone), Counter())
    assert together.rounded == sum(one.rounded for one in alone)
    expected = [{**one.sessions.to_pylist()[0], "row": row} for row, one in enumerate(alone) if one.sessions.num_rows]
    assert [_spelt_row(row) for row in together.sessions.to_pylist()] == [_spelt_row(row) for row in expected]


def _text(text: str) -> Text:
    """A value's text as columns hold it: a view of the record's text if msgspec can read that, else a copy."""
    try:
        return msgspec.json.decode(text, type=msgspec.Raw)
    except UNREADABLE:
        return text.encode()


def _spelt(value: Any) -> Any:
    """The value, as text if it is a float, so that -0.0 and 0.0 differ."""
    return repr(value) if isinstance(value, float) else value


def _spelt_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _spelt(value) for name, value in row.items()}


def test_the_cases_do_not_affect_each_other_in_one_call() -> None:
    _assert_each_by_itself([payload for case in CORPUS for payload in (record(), case.payload)])


@given(st.lists(records(), max_size=6))
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_any_records_have_the_same_results_together_and_one_by_one(payloads: list[str]) -> None:
    _assert_each_by_itself(payloads)


@pytest.mark.parametrize("one", PROPERTIES, ids=lambda one: one.name)
@given(data=st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
def test_a_column_reads_each_value_as_its_rule_does(one: Property, data: st.DataObject) -> None:
    texts = [_text(text) for text in data.draw(st.lists(column_texts(one.name), min_size=1, max_size=40))]
    wrong: dict[int, ValueError] = {}
    values = one.rule.column(texts, wrong)
    for place, text in enumerate(texts):
        try:
            expected = one.rule.value(bytes(text))
            reason = None
        except ValueError as error:
            expected, reason = None, error.args
        assert (wrong[place].args if place in wrong else None) == reason
        array = pa.array([values[place], expected], one.rule.type)
        assert _spelt(array[0].as_py()) == _spelt(array[1].as_py())


def test_rows_keep_their_order_and_index_over_several_calls() -> None:
    texts = [record(run_count=f'"{row}"' if row % 100 == 7 else f"{row}.0") for row in range(1300)]
    validator = Validator()
    sessions = pa.concat_tables([validator.sessions(part) for part in (texts[:1], [], texts[1:700], texts[700:])])
    good = [row for row in range(1300) if row % 100 != 7]
    assert sessions.column("row").to_pylist() == sessions.column("run_count").to_pylist() == good
    assert list(validator.rejected) == [row for row in range(1300) if row % 100 == 7]


@pytest.mark.parametrize("one", PROPERTIES, ids=lambda one: one.name)
def test_ordinary_values_are_read_as_whole_columns(one: Property) -> None:
    ordinary = {
        "start_time": ['"2025-06-01T10:00:00.123456+00:00"', '"2025-06-01 10:00:00Z"'],
        "total_cost": ["1.5e-05", "0.25", '"1E-9"', "7"],
        "trace_tier": ['"xyz"'],
        "latency_p50": ["1e-05", "-1.5"],
    }
    texts = [FULL[one.name], *ordinary.get(one.name, []), FULL[one.name]]
    assert one.rule.quick(list(map(_text, texts))) is not None


@pytest.mark.parametrize("payloads", [[], ["7"], [record()], [record(), record(run_count="1.0"), record(id="1")]])
def test_the_table_has_the_columns_of_sessions_and_the_row(payloads: list[str]) -> None:
    sessions = validate(payloads).sessions
    texts = pa.list_(pa.string())
    more = [("unknown_fields", pa.string(), True), ("problems", texts, True), ("row", pa.int64(), False)]
    expected = [*((one.name, one.rule.type, not one.required) for one in PROPERTIES), *more]
    assert [(one.name, one.type, one.nullable) for one in sessions.schema] == expected
    sessions.combine_chunks().validate(full=True)


def test_every_property_has_a_description() -> None:
    for one in PROPERTIES:
        assert re.fullmatch(r"[A-Z0-9].{5,}[^.]", one.description)


_COSTS = st.one_of(
    st.decimals(allow_nan=True, allow_infinity=True).map(str),
    st.floats(0, 1e21).map(repr),
    st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.text(max_size=5),
)


@given(_COSTS, st.booleans())
def test_a_cost_is_exact_to_the_18th_digit_or_a_problem_and_never_rejects(text: str, quoted: bool) -> None:
    sent = (
        json.dumps(text)
        if quoted or not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text)
        else text
    )
    validated = validate([record(total_cost=sent)])
    assert validated.rejected == {}
    [row] = validated.sessions.to_pylist()
    valid = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text)
    if row["total_cost"] is not None:
        assert valid
        assert abs(row["total_cost"] - Decimal(text)) <= Decimal("5e-19")
        assert validated.rounded == (row["total_cost"] != Decimal(text))
        assert row["problems"] is None
    elif text:
        assert not valid or Decimal(text) < 0 or Decimal(text) >= Decimal("1e20") - Decimal("5e-19")
        [problem] = row["problems"]
        assert problem.startswith("total_cost: ")
        assert problem.isprintable()
        assert len(problem) < 120


def test_a_rejected_record_s_costs_and_drift_are_not_counted() -> None:
    odd = record(run_count='"x"', total_cost="1e-30", prompt_cost="-1", name="null", trace_tier='"x"', more="1")
    validated = validate([record(), odd])
    assert list(validated.rejected) == [1]
    assert (validated.rounded, validated.drift) == (0, Counter())


def test_an_exponent_with_more_digits_than_fit_into_memory_is_read_quickly() -> None:
    costs = ["1e999999999999", "1e-999999999999", "-1e999999999999", "0e999999999999"]
    rows = _rows([record(total_cost=text, run_count="1") for text in costs])
    assert [row["total_cost"] for row in rows] == [None, 0, None, 0]
    assert validate([record(run_count=text) for text in costs]).rejected.keys() == {0, 1, 2}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("extra", '{"wide":[' + '"a",' * 100_000 + "[]," * 300 + "1]}"),
        ("run_facets", "[" + '{"a":1},' * 50_000 + "{}]"),
    ],
)
def test_long_values_of_many_small_parts_take_little_memory(name: str, text: str) -> None:
    payloads = [record({name: text})] * 2
    validate([record()])  # Arrow imports other packages when it makes its first column.
    tracemalloc.start()
    try:
        validated = validate(payloads)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert validated.sessions.column(name).to_pylist() == [text, text]
    assert peak < 8 * len(text) * len(payloads)


def test_ids_are_canonical_whatever_their_letter_case() -> None:
    [row] = _rows([record(id=f'"{ID.upper()}"', tenant_id=f'"{TENANT.title()}"')])
    assert (row["id"], row["tenant_id"]) == (ID, TENANT)


def test_unknown_properties_are_kept_alike_whatever_else_is_odd_about_the_record() -> None:
    odd = record(total_cost="NaN", b="[1]", a='" x"', b1="2", a2="null")
    plain = record(b="[1]", a='" x"', b1="2", a2="null", **{"no name": "1"})
    _assert_each_by_itself([plain, odd, record(a2="1", b="2"), plain, record(), record(a="1", a3='"\\ud800"'), plain])
    assert _rows([plain])[0]["unknown_fields"] == '{"a":" x","a2":null,"b":[1],"b1":2,"no name":1}'


def test_more_unknown_names_than_the_schema_has_are_all_kept() -> None:
    names = {f"u{number}": str(number) for number in range(100)}
    validated = validate([record(names), record(names)])
    assert json.loads(validated.sessions.to_pylist()[0]["unknown_fields"]) == {f"u{n}": n for n in range(100)}
    assert validated.drift == Counter(dict.fromkeys(names, 2))


def test_a_property_that_no_record_has_is_absent() -> None:
    assert validate([]).absent == validate(["[]", "{}"]).absent == []
    some = [json.dumps({"id": ID, "tenant_id": TENANT})] * 999
    assert {"name", "total_cost"} <= set(validate(some).absent)
    assert "name" not in validate([*some, '{"name": null}']).absent
