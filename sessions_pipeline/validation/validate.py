"""The validation: many records' JSON text at once, each a row of `sessions`, or every reason why it is none. Pure.

Each record is split into its properties' texts once; then the texts of one property are read together, by its rule.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from sessions_pipeline.validation.decimals import Rounded
from sessions_pipeline.validation.json_text import TOO_DEEP, UNREADABLE, flaw, is_deep, split_record
from sessions_pipeline.validation.model import PROPERTIES, Property, TraceTier
from sessions_pipeline.validation.rules import Text, missing, reasons, spelled

# A part's columns stay in the processor's cache, and far below the 2 GiB that a text array holds.
_RECORDS, _CHARACTERS = 512, 1 << 26
_TIERS = frozenset(TraceTier)
_COSTS = frozenset(one.name for one in PROPERTIES if not one.rule.rejects)
_ABSENT, _FLAWED = msgspec.Raw(b"null"), msgspec.Raw(b"null")
_OBJECT: msgspec.json.Decoder[dict[str, Text]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SCHEMA = pa.schema(
    [
        *(pa.field(one.name, one.rule.type, not one.required) for one in PROPERTIES),
        pa.field("unknown_fields", pa.string()),
        pa.field("problems", pa.list_(pa.string())),
        pa.field("row", pa.int64(), nullable=False),
    ]
)

_NAMES = tuple(one.name for one in PROPERTIES)
# More names that the schema does not have are a sign of free-form keys, which no decoder should be built for.
_LEARNT = len(_NAMES) + 32


class Validated(NamedTuple):
    """What records came to; each is in `sessions` or in `rejected`.

    Attributes:
        sessions: the schema's properties, then `unknown_fields` (JSON text of the others), `problems` (why a cost is
            null) and `row` (the record's place in what was given, ascending).
        rejected: every reason, as `field: what is wrong`, by the record's place.
        drift: how many sessions have a property or tier that the schema does not name (`ttl`, `trace_tier=new`), or
            null where it does not allow it (`name=null`).
        rounded: costs of sessions that had more than 18 digits after the decimal point.
    """

    sessions: pa.Table
    rejected: dict[int, tuple[str, ...]]
    drift: Counter[str]
    rounded: int


def validate(payloads: Sequence[str]) -> Validated:
    """Read records by their JSON text. Never raises, whatever the texts."""
    tables = [_SCHEMA.empty_table()]
    rejected: dict[int, tuple[str, ...]] = {}
    drift: Counter[str] = Counter()
    rounded = 0
    for first, last in _parts(payloads):
        part = _Part(payloads[first:last], first)
        tables.append(part.table())
        rejected |= {row: tuple(part.rejected[row]) for row in sorted(part.rejected)}
        drift.update(name for row, name in part.drift if row not in part.rejected)
        rounded += sum(row not in part.rejected for row in part.rounded)
    return Validated(pa.concat_tables(tables), rejected, drift, rounded)


def _parts(payloads: Sequence[str]) -> Iterator[tuple[int, int]]:
    first = characters = 0
    for place, payload in enumerate(payloads):
        if place - first == _RECORDS or (place > first and characters + len(payload) > _CHARACTERS):
            yield first, place
            first, characters = place, 0
        characters += len(payload)
    if payloads:
        yield first, len(payloads)


class _Part:
    """Some records on their way; what is noted about rows may be about rejected ones, too."""

    def __init__(self, payloads: Sequence[str], first: int) -> None:
        self.rejected: dict[int, list[str]] = {}
        self.drift: list[tuple[int, str]] = []
        self.rounded: list[int] = []
        self._problems: dict[int, list[str]] = {}
        self._texts: dict[int, tuple[Text, ...]] = {}
        self._unknown: dict[int, dict[str, Text]] = {}
        names = _NAMES
        for row, payload in enumerate(payloads, first):
            try:
                texts: tuple[Text, ...] = msgspec.structs.astuple(_decoder(names).decode(payload))
            except UNREADABLE:
                record = self._read(row, payload)
                if record is not None:
                    names += tuple(name for name in record if name not in names and name.isidentifier())
                    names = names[:_LEARNT]
                    self._take(row, record)
            else:
                self._texts[row] = texts
                if len(texts) > len(_NAMES):
                    more = zip(names[len(_NAMES) :], texts[len(_NAMES) :], strict=True)
                    self._unknown[row] = {name: text for name, text in more if text is not _ABSENT}
        self._rows = list(self._texts)

    def table(self) -> pa.Table:
        if not self._rows:
            return _SCHEMA.empty_table()
        texts = zip(*self._texts.values(), strict=False)
        columns = [self._column(one, column) for one, column in zip(PROPERTIES, texts, strict=False)]
        columns += [
            pa.array(list(map(self._unknown_fields, self._rows)), pa.string()),
            pa.array(list(map(self._problems.get, self._rows)), pa.list_(pa.string())),
            pa.array(self._rows, pa.int64()),
        ]
        table = pa.table(columns, schema=_SCHEMA)
        return table.filter(pa.array([row not in self.rejected for row in self._rows])) if self.rejected else table

    def _read(self, row: int, payload: str) -> Mapping[str, Text] | None:
        """A record's properties, if it is an object."""
        try:
            return _OBJECT.decode(payload)
        except UNREADABLE:
            pass
        try:
            members = split_record(payload)
        except ValueError as error:
            self._reject(row, "record", str(error))
            return None
        return {name: self._without_flaw(row, name, text) for name, text in members.items()}

    def _take(self, row: int, record: Mapping[str, Text]) -> None:
        self._texts[row] = tuple([record.get(name, _ABSENT) for name in _NAMES])
        self._unknown[row] = {name: text for name, text in record.items() if name not in _NAMES}

    def _without_flaw(self, row: int, name: str, text: str) -> Text:
        wrong = None if name in _COSTS else flaw(name, text)
        if wrong is None:
            return text.encode()
        self._reject(row, name, wrong)
        return _FLAWED

    def _column(self, one: Property, texts: Sequence[Text]) -> "pa.Array[object]":
        wrong: dict[int, ValueError] = {}
        values = one.rule.column(texts, wrong)
        if not one.nullable and None in values:
            self._note_nulls(one, texts, values, wrong)
        notes = self.rejected if one.rule.rejects else self._problems
        for place, error in wrong.items():
            notes.setdefault(self._rows[place], []).extend(reasons(one.name, error))
        if one.name == "trace_tier":
            self.drift += [
                (row, f"trace_tier={tier}")
                for row, tier in zip(self._rows, values, strict=True)
                if tier is not None and tier not in _TIERS
            ]
        if one.name in _COSTS:
            self.rounded += [row for row, value in zip(self._rows, values, strict=True) if type(value) is Rounded]
        return pa.array(values, one.rule.type)

    def _note_nulls(
        self, one: Property, texts: Sequence[Text], values: Sequence[object], wrong: dict[int, ValueError]
    ) -> None:
        for place, (text, value) in enumerate(zip(texts, values, strict=True)):
            if value is not None or text is _FLAWED or place in wrong:
                continue
            if one.required:
                wrong[place] = missing(None if text is _ABSENT else "null")
            elif text is not _ABSENT:
                self.drift.append((self._rows[place], f"{one.name}=null"))

    def _reject(self, row: int, name: str, wrong: str) -> None:
        self.rejected.setdefault(row, []).append(f"{spelled(name)}: {wrong}")

    def _unknown_fields(self, row: int) -> str | None:
        """The JSON text of a record's properties that the schema does not name, as they stood there."""
        unknown = self._unknown.get(row)
        if not unknown:
            return None
        texts = []
        for name in sorted(unknown, key=lambda name: _address(unknown[name])):
            text = bytes(unknown[name])
            if is_deep(text):
                self._reject(row, name, TOO_DEEP)
            if unknown[name] is not _FLAWED:
                self.drift.append((row, name))
                texts.append(f"{json.dumps(name, ensure_ascii=False)}:{text.decode()}")
        return "{" + ",".join(texts) + "}"


def _address(text: Text) -> int:
    """Where in its record a text stands; copies stand in order already."""
    address: int = pa.py_buffer(text).address if isinstance(text, msgspec.Raw) else 0
    return address


@lru_cache(maxsize=64)
def _decoder(names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Reads the texts of properties of these names, and refuses a record that has others: quicker than any dict."""
    fields = {f"_{place}": name for place, name in enumerate(names)}
    types = [(field, msgspec.Raw, _ABSENT) for field in fields]
    return msgspec.json.Decoder(msgspec.defstruct("Record", types, rename=fields, forbid_unknown_fields=True, gc=False))
