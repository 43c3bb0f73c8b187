import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessions_pipeline.langsmith.page import identity, last_active, newest
from sessions_pipeline.langsmith.records import Record, read_page
from sessions_pipeline_tests.builders_corpus import CORPUS, ID, TENANT, Case, record
from sessions_pipeline_tests.strategies import sessions

_ELEMENTS = [
    case for case in CORPUS if case.reasons[:1] not in (("record: is not JSON",), ("record: is not Unicode text",))
]
_SPACES = st.text(" \t\r\n", max_size=3)
_NOON_US = 1_748_772_000_000_000  # 2025-06-01T10:00Z


def _page(*payloads: str) -> bytes:
    return f"[{','.join(payloads)}]".encode()


@pytest.mark.parametrize("case", _ELEMENTS, ids=lambda case: case.name)
def test_one_odd_record_never_makes_its_page_unreadable(case: Case) -> None:
    first, odd, last = read_page(_page(record(name='"first"'), case.payload, record(name='"last"')))
    assert first.payload == record(name='"first"')
    assert odd.payload == case.payload
    assert last.payload == record(name='"last"')
    assert first.session_id == last.session_id == ID


@given(st.lists(st.tuples(_SPACES, sessions(), _SPACES), max_size=4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_payload_is_verbatim_whatever_surrounds_it(parts: list[tuple[str, str, str]], odd: bool) -> None:
    body = "[" + ",".join(before + text + after for before, text, after in parts) + "]"
    expected = [text for _, text, _ in parts]
    if odd and parts:
        body = body[:-1] + ", NaN ]"
        expected.append("NaN")
    assert [found.payload for found in read_page(body.encode())] == expected


def test_a_record_has_the_id_workspace_and_start_time_that_were_sent() -> None:
    sent = record(id=f'"{ID.upper()}"', start_time='"2025-06-01T12:00:00+02:00"')
    assert read_page(_page(sent)) == [
        Record(sent, ID.upper(), TENANT, "2025-06-01T12:00:00+02:00", _NOON_US, undated=False)
    ]


@pytest.mark.parametrize(
    ("start_time", "sent", "start_us", "undated"),
    [
        (None, None, None, True),
        ("null", None, None, True),
        ('"2025-06-01T10:00:00"', "2025-06-01T10:00:00", _NOON_US, False),
        ('"2025-06-01T10:00:00.0000019"', "2025-06-01T10:00:00.0000019", _NOON_US + 1, False),
        ('"yesterday"', "yesterday", None, False),
        ('"2025-06-01"', "2025-06-01", None, False),
        ('"2025-06-01T10:00"', "2025-06-01T10:00", None, False),
        ('"2025-06-01T24:00:00"', "2025-06-01T24:00:00", None, False),
        ('"0000-06-01T10:00:00"', "0000-06-01T10:00:00", None, False),
        ('"1748772000"', "1748772000", None, False),
        ("1748772000", None, None, False),
        ('"\\ud800"', None, None, False),
    ],
)
@pytest.mark.parametrize("beside", [record(), "1", "NaN"], ids=["a session", "a number", "NaN"])
def test_an_undated_session_is_distinguished_from_an_unreadable_start(
    start_time: str | None, sent: str | None, start_us: int | None, undated: bool, beside: str
) -> None:
    found = read_page(_page(record(start_time=start_time), beside))[0]
    assert (found.start_time, found.start_us, found.undated) == (sent, start_us, undated)


@pytest.mark.parametrize("start_time", [None, "null"])
def test_an_undated_session_stays_undated_beside_a_value_that_json_does_not_have(start_time: str | None) -> None:
    [found] = read_page(_page(record(start_time=start_time, total_cost="NaN")))
    assert (found.session_id, found.start_time, found.undated) == (ID, None, True)


@pytest.mark.parametrize("payload", ["1", "null", "NaN", '"x"', "[]", '[{"id": "x"}]'])
def test_a_record_that_is_not_an_object_has_neither_id_nor_start(payload: str) -> None:
    assert read_page(_page(payload)) == [Record(payload, None, None, None, None, undated=False)]


def test_an_id_that_is_not_a_string_is_none() -> None:
    numbers = "[" * 3000 + "]" * 3000
    found = read_page(_page(record(id="7", tenant_id="1" * 5000), record(id='"\\ud800"', tenant_id=numbers)))
    assert [(one.session_id, one.tenant_id) for one in found] == [(None, None), (None, None)]


def test_a_record_that_is_nested_too_deeply_keeps_its_id_and_day() -> None:
    deep = record(extra='{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    [found] = read_page(_page(deep))
    assert (found.session_id, found.start_us) == (ID, 1_748_772_000_123_456)


def test_the_last_of_two_ids_in_a_record_counts() -> None:
    twice = '{"id":"first","id":"last"}'
    assert [one.session_id for one in read_page(_page(twice, "NaN", twice))] == ["last", None, "last"]


def test_an_empty_array_is_a_page_without_records() -> None:
    assert read_page(b" [ ] ") == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"detail": "no"}',
        b'"text"',
        b"7",
        b"null",
        b"<html></html>",
        b"[1] [2]",
        b"[1,]",
        b"[,1]",
        b"[NaN,]",
        b"[NaN 1]",
        b"[NaN]]",
        b"[nan]",
        b'["\xff"]',
        b'[NaN,"\xff"]',
        b'\xef\xbb\xbf["bom"]',
        b'[NaN,{"a" 1}]',
        b'[NaN,{"a":1,}]',
        b"[1][" + b"[" * 300 + b"]" * 301,
        b"[" * 100_000,
        b"[" * 100_000 + b"}" * 100_000,
        "[1]".encode("utf-16"),
    ],
)
def test_a_body_that_is_not_a_json_array_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        read_page(body)


@pytest.mark.parametrize("odd", ["1", "NaN", '"\\ud800"'])
def test_a_truncated_body_is_refused_wherever_it_ends(odd: str) -> None:
    body = _page(odd, '{"id":"x","extra":{"a":[1,"b]}"]}}')
    for end in range(len(body)):
        with pytest.raises(ValueError):
            read_page(body[:end])
    assert len(read_page(body)) == 2


def test_a_body_that_ends_inside_a_long_text_is_refused_in_time_proportional_to_its_length() -> None:
    # Looking again at each of the escaped quotes would take a quarter of an hour.
    with pytest.raises(ValueError):
        read_page(b'[{"extra":"' + b'\\"' * 500_000)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(), st.lists, max_leaves=8))
def test_a_page_is_read_exactly_where_json_reads_an_array(value: object) -> None:
    body = json.dumps(value)
    if isinstance(value, list):
        assert json.dumps([json.loads(one.payload) for one in read_page(body.encode())]) == body
    else:
        with pytest.raises(ValueError):
            read_page(body.encode())


@pytest.mark.parametrize(
    "payload",
    ["7", "[" * 5000 + "]" * 5000, '{"last_run_start_time": "yesterday"}', '{"last_run_start_time": 7}', "{}"],
)
def test_a_record_that_names_no_id_and_no_run_is_itself_and_never_ran(payload: str) -> None:
    sent = Record(payload, None, None, None, None, undated=False)
    assert identity(sent) == payload
    assert last_active(sent) is None
    assert newest(sent, sent) == sent
