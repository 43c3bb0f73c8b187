"""The attributes of experiments, from their metadata, and the costs by attribute."""

import hashlib
import json
from collections import Counter
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_pipeline.tables import (
    DAILY_COST_BY_ATTRIBUTE,
    DAILY_COST_BY_REFERENCE_DATASET,
    SESSION_ATTRIBUTES,
    SESSIONS,
    CheckResult,
)
from sessions_pipeline.tables.daily_cost_by_attribute import attributes_add_up
from sessions_pipeline.tables.session_attributes import attributes
from sessions_pipeline_tests.builders import OTHER_TENANT, TENANT, dataset, experiment, session, sessions_table, uuid
from sessions_pipeline_tests.days import day_of, derive


def said(metadata: str) -> dict[str, str]:
    return attributes([f'{{"metadata": {metadata}}}'])[0]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ('{"a": "x", "b": ""}', {"a": "x", "b": ""}),
        (
            '{"a": 1.50, "b": -0, "c": 1e400, "d": 12345678901234567890}',
            {"a": "1.50", "b": "-0", "c": "1e400", "d": "12345678901234567890"},
        ),
        ('{"a": true, "b": false, "c": null}', {"a": "true", "b": "false"}),
        ('{"models": ["b", "A", "b", 10, 9, true, null]}', {"models": "10, 9, A, b, true"}),
        ('{"a": [], "b": [null], "c": [["x"]], "d": ["x", {"y": 1}]}', {}),
        ('{"a": [""], "b": ["", null], "c": ["", 1]}', {"a": "", "b": "", "c": ", 1"}),
        ('{"git": {"branch": "main", "dirty": false}}', {"git.branch": "main", "git.dirty": "false"}),
        ('{"a": {"b": {"c": 1, "d": {"e": 2}}}}', {"a.b.c": "1"}),
        ('{"__ls_runner": "x", "a": {"__b": 1, "c": 2}}', {"a.c": "2"}),
        ('{"a": {}, "": 1}', {"": "1"}),
        ('{"a": 1, "a": 2}', {"a": "2"}),
        ("[1]", {}),
        ('"x"', {}),
    ],
)
def test_nested_metadata_becomes_text_values_with_dotted_keys(metadata: str, expected: dict[str, str]) -> None:
    assert said(metadata) == expected


@pytest.mark.parametrize("extra", [None, "{}", "[]", '{"metadata": null}', '{"other": {"a": 1}}'])
def test_a_session_without_metadata_has_no_attributes(extra: str | None) -> None:
    assert attributes([extra]) == [{}]


def test_a_long_value_is_cut_and_stays_distinct_from_others() -> None:
    longest, longer = "ä" * 200, "ä" * 201
    assert said(json.dumps({"a": longest}))["a"] == longest
    cut = said(json.dumps({"a": longer}))["a"]
    assert cut == "ä" * 191 + "…" + hashlib.sha256(longer.encode()).hexdigest()[:8]
    assert len(cut) == 200


def test_only_experiments_have_attributes_in_the_order_of_the_table() -> None:
    extra = {"metadata": {"b": 1, "a": 2}}
    rows = [experiment(2, extra=extra), session(1, extra=extra), experiment(1, extra=extra), experiment(3)]
    made = derive(SESSION_ATTRIBUTES, {SESSIONS: sessions_table(*rows)})
    assert made.schema.equals(SESSION_ATTRIBUTES.schema, check_metadata=True)
    assert [tuple(row.values()) for row in made.to_pylist()] == [
        (uuid(number), TENANT, dataset(1), key, value) for number in (1, 2) for key, value in (("a", "2"), ("b", "1"))
    ]


def costs(*rows: dict[str, Any], keys: tuple[str, ...] = ("m",)) -> pa.Table:
    sessions = {SESSIONS: sessions_table(*rows)}
    tables = {**sessions, SESSION_ATTRIBUTES: derive(SESSION_ATTRIBUTES, sessions)}
    return derive(DAILY_COST_BY_ATTRIBUTE, tables, attributes=keys)


def test_costs_are_summed_by_value_and_experiments_without_the_attribute_are_null() -> None:
    made = costs(
        experiment(1, total_cost="1", extra={"metadata": {"m": "a"}}),
        experiment(2, total_cost="2", extra={"metadata": {"m": "a", "other": 1}}),
        experiment(3, total_cost="4", extra={"metadata": {"m": "b"}}),
        experiment(4, total_cost="8"),
        session(5, total_cost="16", extra={"metadata": {"m": "a"}}),
        keys=("m", "other"),
    )
    assert made.schema.equals(DAILY_COST_BY_ATTRIBUTE.schema, check_metadata=True)
    found = {(row["attribute"], row["value"]): (row["session_count"], row["total_cost"]) for row in made.to_pylist()}
    assert found == {
        ("m", "a"): (2, Decimal(3)),
        ("m", "b"): (1, Decimal(4)),
        ("m", None): (1, Decimal(8)),
        ("other", "1"): (1, Decimal(2)),
        ("other", None): (3, Decimal(13)),
    }


def test_each_attribute_is_summed_separately_and_only_once_even_if_named_twice() -> None:
    names = [str(number) for number in range(1000)]
    rows = [
        experiment(number, total_cost=str(number), extra={"metadata": dict.fromkeys(names[number:], number % 2)})
        for number in range(1, 21)
    ]
    found = costs(*rows, keys=(*names, "7")).to_pylist()
    counted = Counter[str]()
    for row in found:
        counted[row["attribute"]] += row["session_count"]
    assert counted == dict.fromkeys(names, 20)
    assert [(row["value"], row["total_cost"]) for row in found if row["attribute"] == "7"] == [
        ("0", Decimal(2 + 4 + 6)),
        ("1", Decimal(1 + 3 + 5 + 7)),
        (None, Decimal(sum(range(8, 21)))),
    ]


def test_no_keys_and_no_experiments_give_the_tables_schema() -> None:
    for made in (costs(experiment(1), keys=()), costs(session(1))):
        assert made.num_rows == 0
        assert made.schema.equals(DAILY_COST_BY_ATTRIBUTE.schema, check_metadata=True)


ROW = st.fixed_dictionaries(
    {
        "tenant_id": st.sampled_from([TENANT, OTHER_TENANT]),
        "reference_dataset_id": st.none() | st.integers(1, 2).map(dataset),
        "total_cost": st.none() | st.decimals(0, 1000, places=18),
        "run_count": st.none() | st.integers(0, 9),
        "extra": st.none()
        | st.fixed_dictionaries({"metadata": st.dictionaries(st.sampled_from("mn"), st.integers(0, 2))}),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(ROW, max_size=12))
def test_for_each_attribute_the_rows_of_a_dataset_add_up_to_its_row(rows: list[dict[str, Any]]) -> None:
    sessions = {SESSIONS: sessions_table(*(session(number, **row) for number, row in enumerate(rows)))}
    tables = {
        **sessions,
        DAILY_COST_BY_REFERENCE_DATASET: derive(DAILY_COST_BY_REFERENCE_DATASET, sessions),
        DAILY_COST_BY_ATTRIBUTE: costs(*(session(n, **row) for n, row in enumerate(rows)), keys=("m", "n")),
    }
    found = attributes_add_up(day_of(tables, metadata={DAILY_COST_BY_ATTRIBUTE: {"attributes": '["m", "n"]'}}))
    assert found == CheckResult((), {"rows": tables[DAILY_COST_BY_ATTRIBUTE].num_rows})
