"""Validates the JSON text of many records: each becomes a row of `sessions`, or gets all reasons why it can't. Pure.

Each record is split once into the texts of its properties. Then all texts of one property are read together by its
rule.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec
import pyarrow as pa

from sessions_pipeline.validation.json_text import UNREADABLE, flaw, split_record
from sessions_pipeline.validation.model import PROPERTIES, TRACE_TIERS, Property
from sessions_pipeline.validation.rules import Text, missing, printable, reasons
from sessions_pipeline.validation.types import Rounded

_TIERS = frozenset([None, *TRACE_TIERS])
_LONGEST_COST = 40
_ABSENT = msgspec.Raw(b"null")  # compared by identity, so that a null that was sent is not absent
# A record without any property. Merged with one, it gives the schema's properties in their order, then all others.
_NO_PROPERTIES: Mapping[str, Text] = {item.name: _ABSENT for item in PROPERTIES}
_FIELDS = [(name, msgspec.Raw, _ABSENT) for name in _NO_PROPERTIES]
# For records without unknown properties. Takes half the time of a decoder into a dict.
_ORDINARY = msgspec.json.Decoder(msgspec.defstruct("Record", _FIELDS, forbid_unknown_fields=True, gc=False))
_ADDED = [pa.field("unknown_fields", pa.string()), pa.field("problems", pa.list_(pa.string()))]
_COLUMNS = [pa.field(item.name, item.rule.type, not item.required) for item in PROPERTIES]
SCHEMA = pa.schema([*_COLUMNS, *_ADDED, pa.field("row", pa.int64(), nullable=False)])


class Validator:
    """Validates records in several calls. Each record is a session, or in `rejected`. Never raises an error.

    `rejected`: all reasons, as `field: what is wrong`, by the record's index among the records of all calls.
    """

    def __init__(self) -> None:
        self.rejected = defaultdict[int, list[str]](list)
        self._drift: list[tuple[int, str]] = []
        self._rounded: list[int] = []
        self._present: set[str] = set()
        self._read = 0
        self._problems = defaultdict[int, list[str]](list)

    def sessions(self, payloads: Sequence[str]) -> pa.Table:
        """The sessions among the next records, given as JSON text, as a table of `SCHEMA`.

        Its columns are the schema's properties, then `unknown_fields` (JSON text of all others), `problems` (why a cost
        is null) and `row` (the record's index, ascending, counted on from the calls before).
        """
        texts: dict[int, Iterable[Text]] = {}
        odd: dict[int, Mapping[str, Text]] = {}
        for row, payload in enumerate(payloads, self._read):
            try:
                texts[row] = msgspec.structs.astuple(_ORDINARY.decode(payload))
            except UNREADABLE:
                try:
                    odd[row] = {**_NO_PROPERTIES, **split_record(payload)}
                    texts[row] = odd[row].values()
                except ValueError as error:
                    self.rejected[row] += reasons("record", error)
        self._read += len(payloads)
        if not texts:
            return SCHEMA.empty_table()
        rows = list(texts)
        known = list(zip(PROPERTIES, zip(*texts.values(), strict=False), strict=False))
        self._present.update(item.name for item, column in known if any(text is not _ABSENT for text in column))
        # Read first, so that their reasons for rejection come first.
        unknown_fields = [self._unknown_fields(row, odd[row]) if row in odd else None for row in rows]
        columns = [*(self._column(item, rows, column) for item, column in known), pa.array(unknown_fields, pa.string())]
        columns += [pa.array(map(self._problems.get, rows), pa.list_(pa.string())), pa.array(rows)]
        table = pa.table(columns, schema=SCHEMA)
        return table.filter(pa.array([row not in self.rejected for row in rows])) if self.rejected else table

    @property
    def drift(self) -> Counter[str]:
        """How many sessions have a property or tier that the schema does not name, or a null that it does not allow.

        For example `ttl`, `trace_tier=new` and `name=null`.
        """
        return Counter(name for row, name in self._drift if row not in self.rejected)

    @property
    def rounded(self) -> int:
        """The number of costs of sessions that had more than 18 decimal places."""
        return sum(row not in self.rejected for row in self._rounded)

    @property
    def absent(self) -> list[str]:
        """The schema's properties that no record has; empty if there are no records."""
        return [name for name in _NO_PROPERTIES if self._present and name not in self._present]

    def _column(self, item: Property, rows: Sequence[int], texts: Sequence[Text]) -> "pa.Array[object]":
        errors: dict[int, ValueError] = {}
        values = item.rule.column(texts, errors)
        if not item.nullable and None in values:
            for index in [index for index, value in enumerate(values) if value is None and index not in errors]:
                if item.required:
                    errors[index] = missing(None if texts[index] is _ABSENT else "null")
                elif texts[index] is not _ABSENT:
                    self._drift.append((rows[index], f"{item.name}=null"))
        for index, error in errors.items():
            if item.rule.rejects:
                self.rejected[rows[index]] += reasons(item.name, error)
            else:
                shown = printable(bytes(texts[index]).decode().removeprefix('"').removesuffix('"'), _LONGEST_COST)
                self._problems[rows[index]].append(f"{item.name}: {error} ({shown})")
        if item.name == "trace_tier" and not _TIERS.issuperset(values):
            tiers = zip(rows, values, strict=True)
            self._drift += [(row, f"trace_tier={tier}") for row, tier in tiers if tier not in _TIERS]
        if not item.rule.rejects:
            self._rounded += [row for row, value in zip(rows, values, strict=True) if type(value) is Rounded]
        return pa.array(values, item.rule.type)

    def _unknown_fields(self, row: int, record: Mapping[str, Text]) -> bytes | None:
        """The JSON text of a record's properties that the schema does not name, sorted by name."""
        texts: dict[str, msgspec.Raw] = {}
        for name in sorted(islice(record, len(_NO_PROPERTIES), None)):
            if problem := flaw(bytes(record[name])) or (not name.isprintable() and flaw(json.dumps(name).encode())):
                self.rejected[row] += reasons(printable(name), ValueError(problem))
            else:
                self._drift.append((row, name))
                texts[name] = msgspec.Raw(record[name])
        return msgspec.json.encode(texts) if texts else None
