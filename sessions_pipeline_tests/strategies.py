"""Hypothesis strategies that generate sessions as JSON text, from the OpenAPI file."""

import json
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

import sessions_pipeline.validation
from sessions_pipeline_tests.builders_corpus import CORPUS, FULL

OPENAPI = Path(sessions_pipeline.validation.__file__).with_name("sessions.openapi.yaml")
Pairs = list[tuple[str, str]]

_CHARACTERS = st.characters(exclude_categories=["Cs"])
_STRINGS = st.one_of(st.text(_CHARACTERS, max_size=12), st.sampled_from(["", "\0", "😀", '"\\', "\ud7ff"]))
# Texts that are not valid JSON, or that hold half of a surrogate pair.
_INVALID_VALUES = ["NaN", "-Infinity", '"\\ud800"', '{"a":1,"a":NaN}', "01", "tru"]
_ODD_VALUES = [
    *(
        "null",
        "true",
        "1e400",
        "-1",
        "1.0",
        "2.50",
        "1e3",
        "1e-400",
        "-1e-400",
        "-0",
        "-0.0",
        "1e-19",
        str(2**63),
        "1" * 400,
        '""',
    ),
    *(
        '"1.5"',
        '"x"',
        "[]",
        "[{}]",
        "[1]",
        "[null]",
        "{}",
        "[" * 300 + "]" * 300,
        '{"a":' + "[" * 300 + "]" * 300 + "}",
    ),
    *(f'"{text}"' for text in ("2025-02-30T00:00:00", "2025-01-01T00:00:00.9999999Z", "9999-12-31T23:59:59-00:01")),
    *(f'"{text}"' for text in ("0B8E3B1E-11AA-4000-8000-00000000000A", "1e-05", "-0", "-1", "0" * 40, "9" * 21)),
]
_BROKEN_TEXTS = st.sampled_from([*_ODD_VALUES, *_INVALID_VALUES])


@cache
def openapi() -> dict[str, Any]:
    """The API's OpenAPI file."""
    loaded: dict[str, Any] = yaml.safe_load(OPENAPI.read_text(encoding="utf-8"))
    return loaded


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its `$ref` followed."""
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = openapi()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return found


def _spelt(value: Any) -> st.SearchStrategy[str]:
    return st.booleans().map(lambda ascii_only: json.dumps(value, ensure_ascii=ascii_only))


@st.composite
def _date_times(draw: st.DrawFn) -> str:
    day, time = draw(st.dates(date(1, 1, 2), date(9999, 12, 30))), draw(st.times())
    fraction = draw(st.sampled_from(["", f".{time.microsecond:06d}", ".5", ".1234567899"]))
    offset = draw(st.sampled_from(["", "Z", "z", "+00:00", "-00:00", "+05:30", "-11:45", "+23:59"]))
    return f'"{day.isoformat()}{draw(st.sampled_from("Tt "))}{time:%H:%M:%S}{fraction}{offset}"'


def _cost() -> st.SearchStrategy[str]:
    digits = st.decimals(min_value=0, max_value=10**20 - 1, places=18, allow_nan=False).map(lambda cost: f"{cost:f}")
    short = st.sampled_from(["0", "0.10", "1.5e-05", "12E2", "0.30000000000000004", "-0"])
    return st.one_of(st.one_of(digits, short), st.one_of(digits, short).map(lambda text: f'"{text}"'), st.just('""'))


def _integer() -> st.SearchStrategy[str]:
    whole = st.integers(-(2**63), 2**63 - 1)
    return st.one_of(whole.map(str), st.integers(0, 10**6).map(lambda n: f"{n}.0"), st.just("12e2"))


def _number() -> st.SearchStrategy[str]:
    return st.one_of(
        st.floats(allow_nan=False, allow_infinity=False).map(repr), st.integers(-(10**25), 10**25).map(str)
    )


def _json() -> st.SearchStrategy[str]:
    leaves = st.one_of(_STRINGS.flatmap(_spelt), _number(), st.sampled_from(["null", "true", "false", "[]", "{}"]))
    return st.recursive(leaves, lambda inner: st.one_of(_array(inner), _object(_STRINGS, inner)), max_leaves=5)


def _array(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, max_size=3).map(lambda texts: f"[{', '.join(texts)}]")


def _object(names: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(names.flatmap(_spelt), values), max_size=3).map(
        lambda pairs: "{" + ",".join(f"{name}: {value}" for name, value in pairs) + "}"
    )


def _text_of(name: str, schema: dict[str, Any]) -> st.SearchStrategy[str]:
    schema = resolved(schema)
    if "anyOf" in schema:
        return st.one_of(*(_text_of(name, option) for option in schema["anyOf"]))
    if name.endswith("_cost") and schema["type"] == "string":
        return _cost()
    if "enum" in schema:
        return st.sampled_from(schema["enum"]).map(json.dumps)
    if schema.get("properties"):
        parts = [_text_of(key, inner) for key, inner in schema["properties"].items()]
        names = list(schema["properties"])
        return st.tuples(*parts).map(
            lambda texts: "{" + ",".join(f'"{n}":{t}' for n, t in zip(names, texts, strict=True)) + "}"
        )
    by_format = {"uuid": st.uuids().map(lambda value: f'"{value}"'), "date-time": _date_times()}
    by_type = {
        "null": st.just("null"),
        "string": _STRINGS.flatmap(_spelt),
        "integer": _integer(),
        "number": _number(),
    }
    if schema["type"] == "array":
        return _array(_text_of(name, schema["items"]))
    if schema["type"] == "object":
        inner = schema["additionalProperties"]
        return _object(_STRINGS, _json() if inner is True else _text_of(name, inner))
    return {**by_type, **by_format}[schema.get("format", schema["type"])]


@cache
def _properties() -> dict[str, st.SearchStrategy[str]]:
    schema = openapi()["components"]["schemas"]["TracerSession"]
    return {name: _text_of(name, inner) for name, inner in schema["properties"].items()}


def column_texts(name: str) -> st.SearchStrategy[str]:
    """JSON values for a property: often right, in many spellings, otherwise of a wrong type or out of bounds."""
    right = _properties()[name]
    return st.one_of(
        right, right, right, st.just("null"), st.sampled_from(_ODD_VALUES), _json(), _cost(), _date_times()
    )


@st.composite
def session_pairs(draw: st.DrawFn) -> Pairs:
    """A valid session, as pairs of a property's name and JSON text in any order."""
    names = draw(st.sets(st.sampled_from(sorted(_properties())))) | {"id", "tenant_id"}
    return [(name, draw(_properties()[name])) for name in draw(st.permutations(sorted(names)))]


def join(pairs: Pairs) -> str:
    """The record's JSON text."""
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in pairs) + "}"


def sessions() -> st.SearchStrategy[str]:
    """Valid sessions as JSON texts, in many spellings."""
    return session_pairs().map(join)


@st.composite
def odd_records(draw: st.DrawFn) -> str:
    """Records that may be wrong in any way: values, names, duplicates, unknown properties, broken text."""
    pairs = draw(st.one_of(session_pairs(), st.just(list(FULL.items()))))
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.one_of(st.sampled_from(sorted(FULL)), st.sampled_from(["ttl", "zeta", "é", "", "\0"])))
        text = draw(st.one_of(_BROKEN_TEXTS, _json(), _cost(), _date_times()))
        place = draw(st.integers(0, len(pairs)))
        kept = pairs if draw(st.booleans()) else [pair for pair in pairs if pair[0] != name]
        pairs = [*kept[:place], (name, text), *kept[place:]]
    text = join(pairs)
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(text) - 1))
        text = (
            text[:place] + draw(st.sampled_from(['"', "\\", "{", "]", ",", " ", "0", "-", "\x01"])) + text[place + 1 :]
        )
    return text


def records() -> st.SearchStrategy[str]:
    """Valid and odd records, and the cases of the corpus."""
    small = [case.payload for case in CORPUS if len(case.payload) < 10_000]
    edges = st.integers(0, len(small) - 1).map(small.__getitem__)
    return st.one_of(sessions(), odd_records(), odd_records(), edges)
