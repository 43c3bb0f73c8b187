"""Numbers for people: they are rounded, but only zero is shown as zero."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_pipeline.outputs import formatting
from sessions_pipeline.tables.aggregate import EXACT, total

MONEYS = st.decimals(0, Decimal(10) ** 20 - 1, places=18, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "unknown"),
        ("0", "$0.00"),
        ("-0", "$0.00"),
        ("1234.56", "$1,234.56"),
        ("1", "$1.00"),
        ("0.999", "$1.00"),
        ("0.5", "$0.50"),
        ("0.456", "$0.46"),
        ("0.0123", "$0.012"),
        ("0.00996", "$0.010"),
        ("0.0996", "$0.10"),
        ("0.996", "$1.00"),
        ("0.00000149", "$0.0000015"),
        ("0.000001", "$0.0000010"),
        ("0.000000000000000001", "<$0.000001"),
        ("2.675", "$2.68"),
        ("2.665", "$2.66"),
        ("99999999999999999999.999999999999999999", "$100,000,000,000,000,000,000.00"),
        ("-12.5", "-$12.50"),
    ],
)
def test_money_is_shown_in_dollars(value: str | None, shown: str) -> None:
    assert formatting.money(None if value is None else Decimal(value)) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("400", "$400.00"),
        ("1E+3", "$1,000.00"),
        ("1250.500", "$1,250.50"),
        ("0.0125", "$0.0125"),
        ("0.0000001", "$0.0000001"),
        ("12345678901234567890.123456789012345678", "$12,345,678,901,234,567,890.123456789012345678"),
    ],
)
def test_an_amount_set_by_a_user_is_shown_with_all_its_digits(value: str, shown: str) -> None:
    assert formatting.money_as_set(Decimal(value)) == shown


@given(MONEYS)
def test_only_zero_is_shown_as_zero_and_rounding_changes_at_most_half_a_cent_or_five_percent(value: Decimal) -> None:
    shown = formatting.money(value)
    assert (shown == "$0.00") is (value == 0)
    if not shown.startswith("<"):
        error = abs(Decimal(shown.replace("$", "").replace(",", "")) - value)
        assert error <= max(Decimal("0.005"), value / 20)


@given(MONEYS)
def test_exact_text_gives_the_same_number_back_without_an_exponent(value: Decimal) -> None:
    text = formatting.exact(value)
    assert Decimal(text) == value
    assert set(text) <= set("0123456789.")


@given(st.lists(st.none() | MONEYS, max_size=40))
def test_a_total_is_the_exact_sum_of_the_known_values_in_any_order(values: list[Decimal | None]) -> None:
    known = [int(value.scaleb(18, EXACT)) for value in values if value is not None]
    found = total(values)
    assert (found is None) is (not known)
    assert found is None or found.scaleb(18, EXACT) == sum(known)
    assert total(reversed(values)) == found


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        ("12", "10", "+20.0 %"),
        ("8", "10", "\N{MINUS SIGN}20.0 %"),
        ("10", "10", "no change"),
        ("10.001", "10", "+<0.1 %"),
        ("9.999", "10", "\N{MINUS SIGN}<0.1 %"),
        ("5", "0", "new"),
        ("0", "0", "no change"),
        ("500", "10", "\N{MULTIPLICATION SIGN}50"),
        (None, "1", "unknown"),
        ("1", None, "unknown"),
    ],
)
def test_a_change_shows_its_direction_in_words_or_with_a_sign(now: str | None, before: str | None, said: str) -> None:
    assert formatting.change(*(None if value is None else Decimal(value) for value in (now, before))) == said


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        ("1", "3", "33.3 %"),
        ("0.0001", "3", "<0.1 %"),
        ("0", "3", "0.0 %"),
        (None, "3", "\N{EN DASH}"),
        ("1", "0", "\N{EN DASH}"),
    ],
)
def test_a_share_of_something_is_never_zero_percent(part: str | None, whole: str, said: str) -> None:
    assert formatting.share(None if part is None else Decimal(part), Decimal(whole)) == said


def test_days_are_shown_as_people_write_them() -> None:
    march = [date(2025, 3, day) for day in (9, 3, 4, 5)]
    assert formatting.day_ranges(march) == "3 Mar \N{EN DASH} 5 Mar 2025, 9 Mar 2025"
    assert formatting.days(date(2024, 12, 30), date(2025, 1, 2)) == "30 Dec 2024 \N{EN DASH} 2 Jan 2025"


A, B = "da000000-0000-4000-8000-000000000001", "db000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("ids", "names", "labels"),
    [
        ([A], {}, ["da000000"]),
        ([A], {A: "golden\x00\n"}, ["golden␀␊"]),
        ([A, B], {A: "golden", B: "golden"}, ["golden (da000000)", "golden (db000000)"]),
        ([A, B], {A: "golden"}, ["golden", "db000000"]),
        ([A, A[:-1] + "2"], {}, [A, A[:-1] + "2"]),
        ([A, A[:-1] + "2"], {A: "x", A[:-1] + "2": "x"}, [f"x ({A})", f"x ({A[:-1]}2)"]),
    ],
)
def test_a_dataset_is_shown_by_its_name_or_id_and_no_two_are_shown_alike(
    ids: list[str], names: dict[str, str], labels: list[str]
) -> None:
    assert list(formatting.dataset_labels(ids, names).values()) == labels


FULL_WIDTH = [chr(ord(mark) + 0xFEE0) + "1" for mark in "=+-@"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "\ta", "\ra", *FULL_WIDTH])
def test_a_name_never_becomes_a_formula_in_a_spreadsheet(name: str) -> None:
    assert formatting.spreadsheet_text(name) == f"'{name}"
    assert formatting.spreadsheet_text("golden-set") == "golden-set"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\u202eb\u2028c\ud800", "a\\u202eb\\u2028c\\ud800"),
        ("\ufeffgold\u200ben\u200f", "\\ufeffgold\\u200ben\\u200f"),
        ("gol\xadden\u206a", "gol\\xadden\\u206a"),
        ("\U0001f469\u200d\U0001f467", "\U0001f469\u200d\U0001f467"),
        ("Prüfung 🎉 契約", "Prüfung 🎉 契約"),
    ],
)
def test_control_characters_are_shown_and_never_sent_to_a_terminal(text: str, shown: str) -> None:
    assert formatting.visible(text) == shown


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ('{"a": NaN, "b": [-Infinity, Infinity]}', '{"a": null, "b": [null, null]}'),
        ('{"NaN": "NaN \\" Infinity", "b": 1}', '{"NaN": "NaN \\" Infinity", "b": 1}'),
        ("NaN", "null"),
    ],
)
def test_values_that_json_does_not_have_are_null_for_other_programs(sent: str, written: str) -> None:
    assert formatting.json_line(sent, "utf-8") == written
