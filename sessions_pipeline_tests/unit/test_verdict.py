import re

import pytest

from sessions_pipeline.tables import SESSIONS
from sessions_pipeline.validation.verdict import Rejected, Valid, judge
from sessions_pipeline_tests.builders_corpus import CORPUS, Case, record


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_a_record_gets_the_verdict_of_the_contract(case: Case) -> None:
    verdict = judge(case.payload)
    if case.reasons:
        assert verdict == Rejected(case.reasons)
    else:
        assert isinstance(verdict, Valid), verdict
        assert {name: verdict.values[name] for name in case.values} == dict(case.values)
        assert verdict.drift == case.drift


def test_a_session_has_a_value_for_every_column_up_to_unknown_fields() -> None:
    verdict = judge(record())
    assert isinstance(verdict, Valid)
    names = [column.name for column in SESSIONS.columns]
    assert list(verdict.values) == names[: names.index("unknown_fields") + 1]


@pytest.mark.parametrize("case", [case for case in CORPUS if case.reasons], ids=lambda case: case.name)
def test_a_reason_names_the_field_and_is_short_enough_to_read(case: Case) -> None:
    verdict = judge(case.payload)
    assert isinstance(verdict, Rejected)
    for reason in verdict.reasons:
        assert re.fullmatch(r"[^:]+: [a-z].*", reason)
        assert len(reason) <= 200
        reason.encode()
