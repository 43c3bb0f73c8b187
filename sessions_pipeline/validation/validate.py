"""The validation: many records' JSON text at once, each a row of `sessions`, or every reason why it is none. Pure.

Each record is split into its properties' texts once; then the texts of one property are read together, by its rule.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from sessions_pipeline.validation.json_text import UNREADABLE, flaw, split_record
from sessions_pipeline.validation.model import PROPERTIES, Property, TraceTier
from sessions_pipeline.validation.rules import Text, missing, reasons, spelled
from sessions_pipeline.validation.types import Rounded

# Few enough that what is known about them stays in the processor's cache.
_PART = 512
_NAMES = tuple(one.name for one in PROPERTIES)
# More names that the schema does not have are a sign of free-form keys, which no decoder should be built for.
_LEARNT = len(_NAMES) + 32
_TIERS = frozenset([None, *TraceTier])
_COSTS = frozenset(one.name for one in PROPERTIES if not one.rule.rejects)
_LONGEST_COST = 40
_ABSENT = msgspec.Raw(b"null")
_TEXTS = [pa.field("unknown_fields", pa.string()), pa.field("problems", pa.list_(pa.string()))]
_COLUMNS = [pa.field(one.name, one.rule.type, not one.required) for one in PROPERTIES]
SCHEMA = pa.schema([*_COLUMNS, *_TEXTS, pa.field("row", pa.int64(), nullable=False)])


class Validated(NamedTuple):
    """What records came to; each is in `sessions` or in `rejected`.

    Attributes:
        sessions: the schema's properties, then `unknown_fields` (JSON text of the others), `problems` (why a cost is
            null) and `row` (the record's place in what was given, ascending).
        rejected: every reason, as `field: what is wrong`, by the record's place.
        drift: how many sessions have a property or tier that the schema does not name (`ttl`, `trace_tier=new`), or
            null where it does not allow it (`name=null`).
        rounded: costs of sessions that had more than 18 digits after the decimal point.
        absent: the schema's properties that no record has; none where there is no record to ask.
    """

    sessions: pa.Table
    rejected: dict[int, tuple[str, ...]]
    drift: Counter[str]
    rounded: int
    absent: tuple[str, ...]


def validate(payloads: Iterable[str]) -> Validated:
    """Read records by their JSON text, never more than a part of them at a time. Never raises, whatever the texts."""
    validator = Validator()
    return validator.result(validator.sessions(payloads))


class Validator:
    """Reads records some at a time; `result` leaves out drift and rounded costs of those that were rejected."""

    def __init__(self) -> None:
        self.rejected: dict[int, list[str]] = {}
        self.drift: list[tuple[int, str]] = []
        self.rounded: list[int] = []
        self.present: set[str] = set()
        self._read = 0
        self._problems: dict[int, list[str]] = {}
        self._names = _NAMES

    def sessions(self, payloads: Iterable[str]) -> pa.Table:
        """The sessions among the next records; their rows count on from those before."""
        source, tables = iter(payloads), list[pa.Table]()
        while part := list(islice(source, _PART)):
            tables.append(self._part(part, self._read))
            self._read += len(part)
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table()

    def result(self, sessions: pa.Table) -> Validated:
        """What all records came to, with these sessions."""
        rejected = {row: tuple(self.rejected[row]) for row in sorted(self.rejected)}
        drift = Counter(name for row, name in self.drift if row not in rejected)
        rounded = sum(row not in rejected for row in self.rounded)
        absent = tuple(name for name in _NAMES if self.present and name not in self.present)
        return Validated(sessions, rejected, drift, rounded, absent)

    def _part(self, payloads: Sequence[str], first: int) -> pa.Table:
        texts: dict[int, tuple[Text, ...]] = {}
        unknown: dict[int, Mapping[str, Text]] = {}
        for row, payload in enumerate(payloads, first):
            try:
                known = msgspec.structs.astuple(_decoder(self._names).decode(payload))
                if len(known) > len(_NAMES):
                    more = zip(self._names[len(_NAMES) :], known[len(_NAMES) :], strict=True)
                    unknown[row] = {name: text for name, text in more if text is not _ABSENT}
            except UNREADABLE:
                try:
                    record = split_record(payload)
                except ValueError as error:
                    self._reject(row, "record", error)
                    continue
                known = tuple([record.get(name, _ABSENT) for name in _NAMES])
                unknown[row] = {name: text for name, text in record.items() if name not in _NAMES}
                learnt = (name for name in unknown[row] if name not in self._names and name.isidentifier())
                self._names = (*self._names, *learnt)[:_LEARNT]
            texts[row] = known
        if not texts:
            return SCHEMA.empty_table()
        rows = list(texts)
        named = list(zip(PROPERTIES, zip(*texts.values(), strict=False), strict=False))
        self.present.update(one.name for one, column in named if any(text is not _ABSENT for text in column))
        # First, so that the reasons begin with what is wrong with the record as JSON.
        left = pa.array(
            [self._unknown_fields(row, unknown[row]) if row in unknown else None for row in rows], pa.string()
        )
        columns = [*(self._column(one, rows, column) for one, column in named), left]
        columns += [pa.array([self._problems.get(row) for row in rows], pa.list_(pa.string())), pa.array(rows)]
        table = pa.table(columns, schema=SCHEMA)
        return table.filter(pa.array([row not in self.rejected for row in rows])) if self.rejected else table

    def _reject(self, row: int, name: str, error: ValueError) -> None:
        self.rejected.setdefault(row, []).extend(reasons(spelled(name), error))

    def _column(self, one: Property, rows: Sequence[int], texts: Sequence[Text]) -> "pa.Array[object]":
        wrong: dict[int, ValueError] = {}
        values = one.rule.column(texts, wrong)
        if not one.nullable and None in values:
            for place, (text, value) in enumerate(zip(texts, values, strict=True)):
                if value is None and place not in wrong:
                    if one.required:
                        wrong[place] = missing(None if text is _ABSENT else "null")
                    elif text is not _ABSENT:
                        self.drift.append((rows[place], f"{one.name}=null"))
        for place, error in wrong.items():
            if one.rule.rejects:
                self._reject(rows[place], one.name, error)
            else:
                shown = spelled(bytes(texts[place]).decode().removeprefix('"').removesuffix('"'), _LONGEST_COST)
                self._problems.setdefault(rows[place], []).append(f"{one.name}: {error} ({shown})")
        if one.name == "trace_tier":
            tiers = zip(rows, values, strict=True)
            self.drift += [(row, f"trace_tier={tier}") for row, tier in tiers if tier not in _TIERS]
        if one.name in _COSTS:
            self.rounded += [row for row, value in zip(rows, values, strict=True) if type(value) is Rounded]
        return pa.array(values, one.rule.type)

    def _unknown_fields(self, row: int, unknown: Mapping[str, Text]) -> str | None:
        """The JSON text of a record's properties that the schema does not name, as they stood there."""
        texts = []
        for name in sorted(unknown, key=lambda name: _address(unknown[name])) if len(unknown) > 1 else unknown:
            text = bytes(unknown[name])
            wrong = flaw(text) or (None if name.isprintable() else flaw(json.dumps(name).encode()))
            if wrong:
                self._reject(row, name, ValueError(wrong))
            else:
                self.drift.append((row, name))
                texts.append(f"{json.dumps(name, ensure_ascii=False)}:{text.decode()}")
        return "{" + ",".join(texts) + "}" if texts else None


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
