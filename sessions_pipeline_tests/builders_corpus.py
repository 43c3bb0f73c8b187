"""Records at the edges of the schema, each with the result that validation must give."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sessions_pipeline.validation.json_text import MAX_DEPTH

ID = "0b8e3b1e-11aa-4000-8000-00000000000a"
TENANT = "5f0c2c53-22bb-4000-8000-00000000000b"
FULL: Mapping[str, str] = {
    "id": f'"{ID}"',
    "tenant_id": f'"{TENANT}"',
    "name": '"nightly-42"',
    "start_time": '"2025-06-01T10:00:00.123456"',
    "end_time": '"2025-06-01T10:05:00"',
    "description": '"Nightly evaluation"',
    "default_dataset_id": "null",
    "reference_dataset_id": '"9d6c0f0e-33cc-4000-8000-00000000000c"',
    "trace_tier": '"longlived"',
    "extra": '{"metadata": {"git": {"branch": "main"}, "n": 1}}',
    "run_count": "12",
    "total_tokens": "3400",
    "prompt_tokens": "3000",
    "completion_tokens": "400",
    "test_run_number": "7",
    "latency_p50": "1.25",
    "latency_p99": "4",
    "first_token_p50": "0.5",
    "first_token_p99": "null",
    "error_rate": "0.0",
    "streaming_rate": "1",
    "total_cost": '"0.01230"',
    "prompt_cost": '"0.010"',
    "completion_cost": '"0.0023"',
    "last_run_start_time": '"2025-06-01T10:04:59Z"',
    "last_run_start_time_live": "null",
    "feedback_stats": '{"correctness": {"n": 12, "avg": 0.75, "values": {}}}',
    "session_feedback_stats": "{}",
    "run_facets": '[{"key": "model", "value": "x"}]',
    "experiment_progress": '{"expected_run_count":12,"run_progress":1.0,"evaluator_progress":{"a":0.5}}',
}
_HUGE = "1" * 5000
_DEEP = "[" * 100_000 + "]" * 100_000


@dataclass(frozen=True)
class Case:
    """A record and the result of its validation.

    A record with `reasons` is rejected. Otherwise it is valid: `values` are the columns that the case is about.
    """

    name: str
    payload: str
    reasons: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    drift: tuple[str, ...] = ()
    problems: tuple[str, ...] | None = None
    rounded: int = 0


def record(changes: Mapping[str, str | None] | None = None, /, **more: str | None) -> str:
    """The JSON text of a full session, with the texts of some properties changed, added or left out (None)."""
    properties = {**FULL, **(changes or {}), **more}
    return "{" + ",".join(f'"{name}":{text}' for name, text in properties.items() if text is not None) + "}"


def _kept(name: str, text: str | None, value: Any) -> Case:
    return Case(f"{name} {_short(text)}", record({name: text}), values={name: value})


def _rounded(text: str, value: Decimal) -> Case:
    return Case(f"total_cost {_short(text)}", record(total_cost=text), values={"total_cost": value}, rounded=1)


def _unusable(text: str, problem: str) -> Case:
    problems = (f"total_cost: {problem}",)
    return Case(f"total_cost {_short(text)}", record(total_cost=text), values={"total_cost": None}, problems=problems)


def _refused(name: str, text: str | None, reason: str) -> Case:
    return Case(f"{name} {_short(text)}", record({name: text}), reasons=(f"{name}: {reason}",))


def _short(text: str | None) -> str:
    return "absent" if text is None else text if len(text) < 40 else f"{text[:20]}... of {len(text)}"


def _cost(text: str) -> Decimal:
    return Decimal(text).quantize(Decimal("1e-18"))


def _utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


_INTEGER = "has more than 20 digits before the decimal point"
_NOT_DECIMAL = "is not a decimal number"
_NOT_A_TIME = "is not a date-time: not an RFC 3339 date-time"
_NOT_FINITE = "holds NaN or Infinity, which JSON does not have"
_SURROGATE = "holds half of a surrogate pair, which is no character"
_BEYOND_DOUBLE = "is a number beyond what a double can hold"
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"

COSTS = (
    *(
        _kept("total_cost", text, value)
        for text, value in (
            (None, None),
            ("null", None),
            ('""', None),
            ("0", _cost("0")),
            ("-0", _cost("0")),
            ('"-0.00"', _cost("0")),
            ('"0.10"', _cost("0.1")),
            ("0.30000000000000004", _cost("0.30000000000000004")),
            ("1.5e-05", _cost("0.000015")),
            ('"1.5E-05"', _cost("0.000015")),
            ("1e2", _cost("100")),
            ("9999999999.123456789e-09", Decimal("9.999999999123456789")),
            ('"0.5E-9"', _cost("0.0000000005")),
            ("123456789.1234567890e-9", _cost("0.123456789123456789")),
            ('"007.5"', _cost("7.5")),
            ('"1\\u0032"', _cost("12")),
            ("0.000000000000000001", _cost("0.000000000000000001")),
            ("1e-18", _cost("0.000000000000000001")),
            ('"0.1000000000000000000000000000"', _cost("0.1")),
            ('"99999999999999999999.999999999999999999"', Decimal("99999999999999999999.999999999999999999")),
            ("99999999999999999999.999999999999999999", Decimal("99999999999999999999.999999999999999999")),
            ("0e999999999999999999999", _cost("0")),
            ("1e0000000000000000000000000000001", _cost("10")),
            ('"' + "0" * 30 + '1"', _cost("1")),
        )
    ),
    *(
        _rounded(text, value)
        for text, value in (
            ("0.1234567890123456789", _cost("0.123456789012345679")),
            ("1.2345678901234567e-05", _cost("0.000012345678901235")),
            ('"0.00000012000000000000000123"', _cost("0.00000012")),
            ("1e-19", _cost("0")),
            ("5e-19", _cost("0")),
            ("15e-19", _cost("0.000000000000000002")),
            ("25e-19", _cost("0.000000000000000002")),
            ("25000000000000000000001e-40", _cost("0.000000000000000003")),
            ("1.1234567891e-09", _cost("0.000000001123456789")),
            ("1e-999999999999999999999999", _cost("0")),
            ('"99999999999999999999.9999999999999999994"', Decimal("99999999999999999999.999999999999999999")),
        )
    ),
    *(
        _unusable(text, problem)
        for text, problem in (
            ("-1", "is negative (-1)"),
            ('"-0.0012"', "is negative (-0.0012)"),
            ("-1e-400", "is negative (-1e-400)"),
            ('"100000000000000000000"', f"{_INTEGER} (100000000000000000000)"),
            ("1e20", f"{_INTEGER} (1e20)"),
            ("99999999999999999999.9999999999999999995", f"{_INTEGER} (99999999999999999999.9999999999999999995)"),
            ("1e999999999", f"{_INTEGER} (1e999999999)"),
            ("1e999999999999999999999999", f"{_INTEGER} (1e999999999999999999999999)"),
            (_HUGE, f"{_INTEGER} ({'1' * 40}…)"),
            ('" 1"', f"{_NOT_DECIMAL} ( 1)"),
            ('"1 "', f"{_NOT_DECIMAL} (1 )"),
            ('"1\\n"', f"{_NOT_DECIMAL} (1\\n)"),
            ('"+1"', f"{_NOT_DECIMAL} (+1)"),
            ('"1_000"', f"{_NOT_DECIMAL} (1_000)"),
            ('"1,5"', f"{_NOT_DECIMAL} (1,5)"),
            ('".5"', f"{_NOT_DECIMAL} (.5)"),
            ('"5."', f"{_NOT_DECIMAL} (5.)"),
            ('"1e"', f"{_NOT_DECIMAL} (1e)"),
            ('"٣"', f"{_NOT_DECIMAL} (٣)"),
            ('"\\"1\\""', f'{_NOT_DECIMAL} (\\"1\\")'),
            ('"null"', f"{_NOT_DECIMAL} (null)"),
            ('"free\u2028\x85"', f"{_NOT_DECIMAL} (free\\u2028\\x85)"),
            ('"\\ud800"', f"{_NOT_DECIMAL} (\\ud800)"),
            ('"NaN"', f"{_NOT_DECIMAL} (NaN)"),
            ('"Infinity"', f"{_NOT_DECIMAL} (Infinity)"),
            ("NaN", f"{_NOT_DECIMAL} (NaN)"),
            ("-Infinity", f"{_NOT_DECIMAL} (-Infinity)"),
            ("true", "must be a decimal number, not a boolean (true)"),
            ("[]", "must be a decimal number, not an array ([])"),
            ('{"usd": NaN}', 'must be a decimal number, not an object ({"usd": NaN})'),
            ("[" * 300 + "]" * 300, f"must be a decimal number, not an array ({'[' * 40}…)"),
            (_DEEP, f"must be a decimal number, not an array ({'[' * 40}…)"),
        )
    ),
    Case(
        "each cost by itself",
        record(total_cost="NaN", prompt_cost='"0.5"', completion_cost='"-1"'),
        values={"total_cost": None, "prompt_cost": _cost("0.5"), "completion_cost": None},
        problems=(f"total_cost: {_NOT_DECIMAL} (NaN)", "completion_cost: is negative (-1)"),
    ),
)

TIMES = (
    Case("start_time null", record(start_time="null"), values={"start_time": None}, drift=("start_time=null",)),
    *(
        _kept("start_time", text, value)
        for text, value in (
            (None, None),
            ('"2025-06-01T10:00:00"', _utc(2025, 6, 1, 10)),
            ('"2025-06-01T10:00:00Z"', _utc(2025, 6, 1, 10)),
            ('"2025-06-01t10:00:00z"', _utc(2025, 6, 1, 10)),
            ('"2025-06-01 10:00:00.5+00:00"', _utc(2025, 6, 1, 10, 0, 0, 500_000)),
            ('"2025-06-01T00:30:00+05:30"', _utc(2025, 5, 31, 19)),
            ('"2025-06-01T23:30:00-00:45"', _utc(2025, 6, 2, 0, 15)),
            ('"2025-06-01T23:59:59.999999999"', _utc(2025, 6, 1, 23, 59, 59, 999_999)),
            ('"2025-06-01T23:59:59.9999999Z"', _utc(2025, 6, 1, 23, 59, 59, 999_999)),
            ('"2024-02-29T00:00:00"', _utc(2024, 2, 29)),
            ('"0001-01-01T00:00:00"', _utc(1, 1, 1)),
            ('"0999-01-01T00:00:00.000001Z"', _utc(999, 1, 1, 0, 0, 0, 1)),
            ('"9999-12-31T23:59:59.999999Z"', _utc(9999, 12, 31, 23, 59, 59, 999_999)),
            ('"1969-12-31T23:59:59.999999"', _utc(1969, 12, 31, 23, 59, 59, 999_999)),
            ('"2025\\u002d06-01T10:00:00"', _utc(2025, 6, 1, 10)),
        )
    ),
    *(
        _refused("start_time", text, reason)
        for text, reason in (
            ('""', _NOT_A_TIME),
            ('"2025-06-01"', _NOT_A_TIME),
            ('"1767322800"', _NOT_A_TIME),
            ('"2025-06-01T10:00"', _NOT_A_TIME),
            ('"2025-06-01T10:00:00."', _NOT_A_TIME),
            ('"2025-06-01T10:00:00,5"', _NOT_A_TIME),
            ('"2025-06-01T10:00:001"', _NOT_A_TIME),
            ('"2025-06-01T10:00:00+0100"', _NOT_A_TIME),
            ('"2025-06-01T10:00:00+24:00"', _NOT_A_TIME),
            ('"2025-06-01T10:00:00 Z"', _NOT_A_TIME),
            ('"2025-06-01T24:00:00"', _NOT_A_TIME),
            ('"2025-06-01T10:00:00\\n"', _NOT_A_TIME),
            ('"20250601T100000"', _NOT_A_TIME),
            ('"٢٠٢٥-06-01T10:00:00"', _NOT_A_TIME),
            ("1767322800", "must be a date-time, not a number"),
            ("false", "must be a date-time, not a boolean"),
        )
    ),
    *(
        Case(f"start_time {text}", record(start_time=text), reasons=(reason,))
        for text, reason in (
            ('"2025-02-30T10:00:00"', "start_time: is not a date-time: day is out of range for month"),
            ('"2025-06-01T10:00:60"', "start_time: is not a date-time: second must be in 0..59"),
            ('"0000-01-01T00:00:00"', "start_time: is not a date-time: year 0 is out of range"),
            ('"0001-01-01T00:00:00+00:01"', "start_time: is not a date-time: outside years 1 to 9999"),
            ('"9999-12-31T23:59:59-00:01"', "start_time: is not a date-time: outside years 1 to 9999"),
        )
    ),
)

NUMBERS = (
    _kept("run_count", "-9223372036854775808", -(2**63)),
    _kept("run_count", "9223372036854775807", 2**63 - 1),
    _kept("run_count", "9223372036854775807.0", 2**63 - 1),
    _kept("run_count", "1.0", 1),
    _kept("run_count", "1e3", 1000),
    _kept("run_count", "1200e-2", 12),
    _kept("run_count", "-0.0", 0),
    _kept("run_count", "null", None),
    _refused("run_count", "9223372036854775808", "is an integer beyond 64 bits"),
    _refused("run_count", "-9223372036854775809", "is an integer beyond 64 bits"),
    _refused("run_count", "1e999999999", "is an integer beyond 64 bits"),
    _refused("run_count", _HUGE, "is an integer beyond 64 bits"),
    _refused("run_count", "1.5", "must be an integer, not a fraction"),
    _refused("run_count", "1e-999999999", "must be an integer, not a fraction"),
    _refused("run_count", "true", "must be an integer, not a boolean"),
    _refused("run_count", '"1"', "must be an integer, not a string"),
    _kept("latency_p50", "0", 0.0),
    _kept("latency_p50", "-0", 0.0),
    _kept("latency_p50", "-0.0", 0.0),
    _kept("latency_p50", "-1e-400", 0.0),
    _kept("latency_p50", "-1.5", -1.5),
    _kept("latency_p50", "1e-400", 0.0),
    _kept("latency_p50", "12345678901234567890123", 1.2345678901234568e22),
    _kept("latency_p50", "0.1e1", 1.0),
    _refused("latency_p50", "1e400", _BEYOND_DOUBLE),
    _refused("latency_p50", "-1e400", _BEYOND_DOUBLE),
    _refused("latency_p50", _HUGE, _BEYOND_DOUBLE),
    _refused("latency_p50", "NaN", _NOT_FINITE),
    _refused("latency_p50", "true", "must be a number, not a boolean"),
    _refused("latency_p50", '"1.5"', "must be a number, not a string"),
)

TEXTS = (
    _kept("id", f'"{ID.upper()}"', ID),
    _kept("id", f'"{ID[:8].upper()}{ID[8:]}"', ID),
    _kept("reference_dataset_id", "null", None),
    _refused("id", None, "is required, but absent"),
    _refused("tenant_id", "null", "must not be null"),
    _refused("id", '""', "is not a UUID"),
    _refused("id", f'"{{{ID}}}"', "is not a UUID"),
    _refused("id", f'"{ID.replace("-", "")}"', "is not a UUID"),
    _refused("id", f'"urn:uuid:{ID}"', "is not a UUID"),
    _refused("id", f'"{ID}\\n"', "is not a UUID"),
    _refused("id", "7", "must be a UUID, not a number"),
    _refused("default_dataset_id", '"x"', "is not a UUID"),
    _kept("name", None, None),
    _kept("name", '""', ""),
    _kept("name", '"a\\u0000b"', "a\0b"),
    _kept("name", '"\\ud83d\\ude00 é"', "😀 é"),
    _kept("name", '"\\\\ud800"', "\\ud800"),
    _kept("name", '"NaN, Infinity"', "NaN, Infinity"),
    Case("name null", record(name="null"), values={"name": None}, drift=("name=null",)),
    _refused("name", "1", "must be a string, not a number"),
    _refused("name", '"\\ud800"', _SURROGATE),
    _refused("name", '"\\udc00\\ud800"', _SURROGATE),
    _refused("description", '{"a": 1}', "must be a string, not an object"),
    _kept("trace_tier", "null", None),
    Case("a new tier", record(trace_tier='"xyz"'), values={"trace_tier": "xyz"}, drift=("trace_tier=xyz",)),
    Case("an empty tier", record(trace_tier='""'), values={"trace_tier": ""}, drift=("trace_tier=",)),
    _refused("trace_tier", "1", "must be a string, not a number"),
)

FULL_VALUES = {
    "id": ID,
    "tenant_id": TENANT,
    "start_time": _utc(2025, 6, 1, 10, 0, 0, 123_456),
    "last_run_start_time": _utc(2025, 6, 1, 10, 4, 59),
    "total_cost": _cost("0.0123"),
    "prompt_cost": _cost("0.01"),
    "completion_cost": _cost("0.0023"),
    "latency_p99": 4.0,
    "test_run_number": 7,
    "extra": FULL["extra"],
    "session_feedback_stats": "{}",
    "unknown_fields": None,
}

_PROGRESS = '{"expected_run_count":%s,"run_progress":%s,"evaluator_progress":%s}'
STRUCTURES = (
    _kept("extra", "null", None),
    _kept("extra", "{ }", "{ }"),
    _kept("extra", '{"big": ' + _HUGE + "}", '{"big": ' + _HUGE + "}"),
    _kept("description", '"' + "[" * 5000 + '"', "[" * 5000),
    _kept("extra", '{"a":1e400,"a":"\\u00e9"}', '{"a":1e400,"a":"\\u00e9"}'),
    _kept("extra", '{"a":' + "[" * 255 + "]" * 255 + "}", '{"a":' + "[" * 255 + "]" * 255 + "}"),
    _refused("extra", '{"a":' + "[" * 256 + "]" * 256 + "}", _TOO_DEEP),
    _refused("extra", '{"a":' + _DEEP + "}", _TOO_DEEP),
    _kept("extra", '{"wide":[' + "[]," * 999 + "[]]}", '{"wide":[' + "[]," * 999 + "[]]}"),
    _refused("extra", "[]", "must be an object, not an array"),
    _refused("extra", '"{}"', "must be an object, not a string"),
    _refused("extra", '{"a":{"b":[NaN]}}', _NOT_FINITE),
    _refused("extra", '{"a":NaN,"a":1}', _NOT_FINITE),
    _refused("extra", '{"\\udfff":1}', _SURROGATE),
    _refused("feedback_stats", "1", "must be an object, not a number"),
    _kept("run_facets", "[]", "[]"),
    _kept("run_facets", "[ ]", "[ ]"),
    _kept("run_facets", '[{"a":[1,{}]}, {}]', '[{"a":[1,{}]}, {}]'),
    _refused("run_facets", "{}", "must be an array, not an object"),
    _refused("run_facets", "[" + _DEEP + "]", _TOO_DEEP),
    Case(
        "facets that are none",
        record(run_facets="[{},1,null]"),
        reasons=("run_facets.1: must be an object, not a number", "run_facets.2: must not be null"),
    ),
    _kept("experiment_progress", "null", None),
    _kept("experiment_progress", _PROGRESS % ("1.0", "1", "{}"), _PROGRESS % ("1.0", "1", "{}")),
    Case(
        "progress with more than the schema names",
        record(experiment_progress=(_PROGRESS % (1, 1, "{}"))[:-1] + ',"x":[]}'),
        values={"experiment_progress": (_PROGRESS % (1, 1, "{}"))[:-1] + ',"x":[]}'},
    ),
    Case(
        "progress with a wrong value before the right one",
        record(experiment_progress='{"run_progress":"x",' + (_PROGRESS % (1, 1, "{}"))[1:]),
        values={"experiment_progress": '{"run_progress":"x",' + (_PROGRESS % (1, 1, "{}"))[1:]},
    ),
    Case(
        "progress of wrong types",
        record(experiment_progress=_PROGRESS % (2**63, "null", '{"a":"b"}')),
        reasons=(
            "experiment_progress.expected_run_count: is an integer beyond 64 bits",
            "experiment_progress.run_progress: must not be null",
            "experiment_progress.evaluator_progress.a: must be a number, not a string",
        ),
    ),
    Case(
        "progress beyond 64 bits",
        record(experiment_progress=_PROGRESS % (2**63, 1, "{}")),
        reasons=("experiment_progress.expected_run_count: is an integer beyond 64 bits",),
    ),
    Case(
        "progress that is empty",
        record(experiment_progress="{}"),
        reasons=tuple(
            f"experiment_progress.{name}: is required, but absent"
            for name in ("expected_run_count", "run_progress", "evaluator_progress")
        ),
    ),
    _refused("experiment_progress", "[]", "must be an object, not an array"),
)

UNKNOWN = (
    Case(
        "unknown properties",
        record({"zeta": "[1,  2]", "alpha": "null", 'q\\"é': '"\\u0041"'}),
        values={"unknown_fields": '{"alpha":null,"q\\"é":"\\u0041","zeta":[1,  2]}'},
        drift=("zeta", "alpha", 'q"é'),
    ),
    Case(
        "unknown properties in another place",
        "{" + '"zeta":2,"alpha":1,' + record()[1:],
        values={"unknown_fields": '{"alpha":1,"zeta":2}'},
        drift=("alpha", "zeta"),
    ),
    Case(
        "an unknown property twice",
        record(a="1", b="2")[:-1] + ',"a":3}',
        values={"unknown_fields": '{"a":3,"b":2}'},
        drift=("b", "a"),
    ),
    Case("NaN before the right value", '{"name":NaN,"total_cost":NaN,' + record()[1:], values=FULL_VALUES),
    Case("a null name before the right one", '{"name":null,' + record()[1:], values={"name": "nightly-42"}),
    Case(
        "an unknown property twice beside NaN for a cost",
        record(a="1", b="2", total_cost="NaN")[:-1] + ',"a":3}',
        values={"unknown_fields": '{"a":3,"b":2}'},
        drift=("b", "a"),
        problems=(f"total_cost: {_NOT_DECIMAL} (NaN)",),
    ),
    Case("a known property twice", record()[:-1] + ',"name":"last"}', values={"name": "last"}),
    Case("a wrong value before the right one", '{"run_count":"x",' + record()[1:], values={"run_count": 12}),
    Case("a name in escapes", record(name=None)[:-1] + ',"n\\u0061me":"x"}', values={"name": "x"}),
    Case("an empty name of a property", record({"": "1"}), values={"unknown_fields": '{"":1}'}, drift=("",)),
    Case("NaN in an unknown property", record(more="[NaN]"), reasons=(f"more: {_NOT_FINITE}",)),
    Case("a deep unknown property", record(more=_DEEP), reasons=(f"more: {_TOO_DEEP}",)),
    Case("an unknown property of 300 levels", record(more="[" * 300 + "]" * 300), reasons=(f"more: {_TOO_DEEP}",)),
    Case("half a pair in a name", record({"\\ud800": "1"}), reasons=(f"\\ud800: {_SURROGATE}",)),
    Case(
        "all that is wrong",
        record(id=None, total_cost="-1", run_count='"1"', extra="[]", more="NaN"),
        reasons=(
            f"more: {_NOT_FINITE}",
            "id: is required, but absent",
            "run_count: must be an integer, not a string",
            "extra: must be an object, not an array",
        ),
    ),
    Case(
        "a long name of a property",
        record({"x" * 500: "NaN"}),
        reasons=(f"{'x' * 80}…: {_NOT_FINITE}",),
    ),
)

NO_OBJECTS = tuple(
    Case(f"no object: {_short(payload)}", payload, reasons=(f"record: {reason}",))
    for payload, reason in (
        ("null", "must be an object, not null"),
        ("7", "must be an object, not a number"),
        (_HUGE, "must be an object, not a number"),
        ("NaN", "must be an object, not a number"),
        ('"text"', "must be an object, not a string"),
        ("true", "must be an object, not a boolean"),
        ("[]", "must be an object, not an array"),
        (_DEEP, "must be an object, not an array"),
        ("", "is not JSON"),
        ("<html>", "is not JSON"),
        (record()[:-1], "is not JSON"),
        (record() + "}", "is not JSON"),
        ("\ud800", "is not Unicode text"),
    )
)

CORPUS = (
    Case("a full session", record(), values=FULL_VALUES),
    Case(
        "the least session",
        f'{{"id":"{ID}","tenant_id":"{TENANT}"}}',
        values={"id": ID, "name": None, "start_time": None, "total_cost": None, "extra": None},
    ),
    Case("spaces everywhere", "{ " + record()[1:-1].replace('":', '" : \t').replace(',"', ' ,\n "') + " \r\n}"),
    *COSTS,
    *TIMES,
    *NUMBERS,
    *TEXTS,
    *STRUCTURES,
    *UNKNOWN,
    *NO_OBJECTS,
)
