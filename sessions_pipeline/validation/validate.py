"""Validates the JSON text of many records: each becomes a row of `sessions`, or gets all reasons why it can't. Pure.

Each record is split once into the texts of its properties. Then all texts of one property are read together by its
rule.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
import pyarrow as pa

from sessions_pipeline.validation.json_text import UNREADABLE, flaw, split_record
from sessions_pipeline.validation.model import PROPERTIES, Property, TraceTier
from sessions_pipeline.validation.rules import Text, missing, printable, reasons
from sessions_pipeline.validation.types import Rounded

# Records validated together: few enough that their data stays in the processor's cache.
_BATCH = 512
_NAMES = tuple(item.name for item in PROPERTIES)
# The decoder also learns up to 32 names that the schema does not have. More are probably free-form keys.
_MOST_NAMES = len(_NAMES) + 32
_TIERS = frozenset([None, *TraceTier])
_LONGEST_COST = 40
_ABSENT = msgspec.Raw(b"null")  # compared by identity, so that a null that was sent is not absent
_ADDED = [pa.field("unknown_fields", pa.string()), pa.field("problems", pa.list_(pa.string()))]
_COLUMNS = [pa.field(item.name, item.rule.type, not item.required) for item in PROPERTIES]
SCHEMA = pa.schema([*_COLUMNS, *_ADDED, pa.field("row", pa.int64(), nullable=False)])


def validate(payloads: Iterable[str]) -> pa.Table:
    """The sessions among records, given as JSON text, see `Validator.sessions`. Never raises an error."""
    return Validator().sessions(payloads)


class Validator:
    """Validates records in several calls. Each record is a session, or in `rejected`. Never raises an error.

    `rejected`: all reasons, as `field: what is wrong`, by the record's index among the records of all calls.
    """

    def __init__(self) -> None:
        self.rejected: dict[int, list[str]] = {}
        self._drift: list[tuple[int, str]] = []
        self._rounded: list[int] = []
        self._present: set[str] = set()
        self._read = 0
        self._problems: dict[int, list[str]] = {}
        self._names = _NAMES

    def sessions(self, payloads: Iterable[str]) -> pa.Table:
        """The sessions among the next records, given as JSON text, as a table of `SCHEMA`.

        Its columns are the schema's properties, then `unknown_fields` (JSON text of all others), `problems` (why a cost
        is null) and `row` (the record's index, ascending, counted on from the calls before).
        """
        source, tables = iter(payloads), list[pa.Table]()
        while batch := list(islice(source, _BATCH)):
            tables.append(self._batch(batch, self._read))
            self._read += len(batch)
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table()

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
        return [name for name in _NAMES if self._present and name not in self._present]

    def _batch(self, payloads: Sequence[str], first: int) -> pa.Table:
        texts: dict[int, tuple[Text, ...]] = {}
        unknown: dict[int, Mapping[str, Text]] = {}
        for row, payload in enumerate(payloads, first):
            try:
                known = msgspec.structs.astuple(_decoder(self._names).decode(payload))
                if len(known) > len(_NAMES):
                    learned = zip(self._names[len(_NAMES) :], known[len(_NAMES) :], strict=True)
                    unknown[row] = {name: text for name, text in learned if text is not _ABSENT}
            except UNREADABLE:
                try:
                    record = split_record(payload)
                except ValueError as error:
                    self._reject(row, "record", error)
                    continue
                known = tuple([record.get(name, _ABSENT) for name in _NAMES])
                unknown[row] = {name: text for name, text in record.items() if name not in _NAMES}
                new = (name for name in unknown[row] if name not in self._names and name.isidentifier())
                self._names = (*self._names, *new)[:_MOST_NAMES]
            texts[row] = known
        if not texts:
            return SCHEMA.empty_table()
        rows = list(texts)
        known_columns = list(zip(PROPERTIES, zip(*texts.values(), strict=False), strict=False))
        self._present.update(item.name for item, column in known_columns if any(text is not _ABSENT for text in column))
        # Read first, so that their reasons for rejection come first.
        unknown_fields = pa.array(
            [self._unknown_fields(row, unknown[row]) if row in unknown else None for row in rows], pa.string()
        )
        columns = [*(self._column(item, rows, column) for item, column in known_columns), unknown_fields]
        columns += [pa.array([self._problems.get(row) for row in rows], pa.list_(pa.string())), pa.array(rows)]
        table = pa.table(columns, schema=SCHEMA)
        return table.filter(pa.array([row not in self.rejected for row in rows])) if self.rejected else table

    def _reject(self, row: int, name: str, error: ValueError) -> None:
        self.rejected.setdefault(row, []).extend(reasons(printable(name), error))

    def _column(self, item: Property, rows: Sequence[int], texts: Sequence[Text]) -> "pa.Array[object]":
        errors: dict[int, ValueError] = {}
        values = item.rule.column(texts, errors)
        if not item.nullable and None in values:
            for index, (text, value) in enumerate(zip(texts, values, strict=True)):
                if value is None and index not in errors:
                    if item.required:
                        errors[index] = missing(None if text is _ABSENT else "null")
                    elif text is not _ABSENT:
                        self._drift.append((rows[index], f"{item.name}=null"))
        for index, error in errors.items():
            if item.rule.rejects:
                self._reject(rows[index], item.name, error)
            else:
                shown = printable(bytes(texts[index]).decode().removeprefix('"').removesuffix('"'), _LONGEST_COST)
                self._problems.setdefault(rows[index], []).append(f"{item.name}: {error} ({shown})")
        if item.name == "trace_tier":
            tiers = zip(rows, values, strict=True)
            self._drift += [(row, f"trace_tier={tier}") for row, tier in tiers if tier not in _TIERS]
        if not item.rule.rejects:
            self._rounded += [row for row, value in zip(rows, values, strict=True) if type(value) is Rounded]
        return pa.array(values, item.rule.type)

    def _unknown_fields(self, row: int, unknown: Mapping[str, Text]) -> str | None:
        """The JSON text of a record's properties that the schema does not name, sorted by name."""
        texts = []
        for name in sorted(unknown):
            text = bytes(unknown[name])
            problem = flaw(text) or (None if name.isprintable() else flaw(json.dumps(name).encode()))
            if problem:
                self._reject(row, name, ValueError(problem))
            else:
                self._drift.append((row, name))
                texts.append(f"{json.dumps(name, ensure_ascii=False)}:{text.decode()}")
        return "{" + ",".join(texts) + "}" if texts else None


@lru_cache(maxsize=64)
def _decoder(names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """A decoder for the texts of properties of these names, faster than one into a dict; it refuses any other name."""
    fields = {f"_{index}": name for index, name in enumerate(names)}
    types = [(field, msgspec.Raw, _ABSENT) for field in fields]
    return msgspec.json.Decoder(msgspec.defstruct("Record", types, rename=fields, forbid_unknown_fields=True, gc=False))
