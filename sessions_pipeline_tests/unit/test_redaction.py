"""Redacted properties are removed before anything is written; everything else stays as sent."""

import json

import pytest

from sessions_pipeline.errors import SettingError
from sessions_pipeline.langsmith.records import Record
from sessions_pipeline.langsmith.redaction import parse_paths, redact


def redacted(payload: str, *paths: str) -> str:
    return redact(Record(payload, "a", "t", None, None, undated=True), parse_paths(paths)).payload


def test_a_named_property_is_removed_and_numbers_keep_their_spelling() -> None:
    payload = '{"id": "a", "total_cost": 0.10000000000000000001, "extra": {"git": {"email": "a@b.c", "sha": 1.50}}}'
    left = redacted(payload, "extra.git.email")
    assert "a@b.c" not in left
    assert "0.10000000000000000001" in left
    assert '"sha":1.50' in left.replace(" ", "")
    assert json.loads(redacted(payload, "extra")).keys() == {"id", "total_cost"}


def test_a_star_matches_any_name_and_lists_are_searched() -> None:
    payload = '{"feedback_stats": {"x": {"n": 1, "values": {"ann": 1}}, "y": [{"values": 2, "n": 3}]}}'
    assert json.loads(redacted(payload, "$.feedback_stats.*.values")) == {
        "feedback_stats": {"x": {"n": 1}, "y": [{"n": 3}]}
    }


@pytest.mark.parametrize(
    "payload",
    [
        *('{ "id" : "a" }', "[1, 2]", '"text"', "7", '{"extra": null}', '{"extra": 5}'),
        # With the names elsewhere, so that the record is searched.
        *('{"extra": null, "name": "git email"}', '{"extra": {"git": 1.50}, "name": "email"}', '"extra git email"'),
    ],
)
def test_a_record_without_the_property_stays_verbatim(payload: str) -> None:
    assert redacted(payload, "extra.git.email") == payload


def test_a_broken_record_is_redacted_too() -> None:
    left = redacted('{"latency_p50": NaN, "extra": {"email": "a@b.c"}}', "extra.email")
    assert "a@b.c" not in left
    assert "NaN" in left


@pytest.mark.parametrize(
    "payload",
    [
        '{"extra": {"email": "a@b.c"}, "extra": {"sha": 1}}',
        '{"extra": {"sha": 1}, "extra": {"email": "a@b.c", "email": "d@b.c"}}',
        '{"extra": [{"email": "a@b.c", "sha": 1.50, "email": "d@b.c"}]}',
        '{"extra": {"\\u0065mail": "a@b.c"}}',
        '{"\\u0065xtra": {"email": "a@b.c"}, "latency_p50": NaN}',
    ],
)
def test_a_duplicate_or_escaped_property_is_removed_each_time(payload: str) -> None:
    left = redacted(payload, "extra.email")
    assert "@b.c" not in left
    assert ("1.50" in payload) == ("1.50" in left)


@pytest.mark.parametrize(
    "payload", ['{"extra": {"git.email": "a@b.c", "sha": 1.50}}', '{"extra.git.email": "a@b.c", "n": 1.50}']
)
def test_a_property_whose_own_name_has_dots_is_removed(payload: str) -> None:
    left = redacted(payload, "extra.git.email")
    assert "@b.c" not in left
    assert "1.50" in left


def test_a_star_stands_for_one_name_even_if_that_has_dots() -> None:
    payload = '{"feedback_stats": {"a.values": {"n": 1, "values": {"ann": 1}}}}'
    assert json.loads(redacted(payload, "feedback_stats.*.values")) == {"feedback_stats": {"a.values": {"n": 1}}}


@pytest.mark.parametrize("levels", [60, 3000])
def test_a_record_too_deep_to_search_is_not_kept(levels: int) -> None:
    deep = "[" * levels + '{"email": "a@b.c"}' + "]" * levels
    assert redacted(f'{{"extra": {deep}}}', "extra.email") == '{"redacted": "the record could not be read"}'


@pytest.mark.parametrize("path", ["id", "$.tenant_id", "*", "extra..email", ""])
def test_properties_that_identify_a_session_cannot_be_redacted(path: str) -> None:
    with pytest.raises(SettingError, match="SESSIONS_PIPELINE_REDACT"):
        parse_paths([path])
