"""The verdict on many records at once, a hundred thousand a second: the same as `judge` on each.

msgspec reads the records, Arrow converts the columns. Both decide only what they decide exactly as the model does;
every record in doubt goes to `judge`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from sessions_pipeline.validation.arrays import flag_array, int64_array, text_array, value_array
from sessions_pipeline.validation.conversion import CONVERSIONS, UNREADABLE, deep_at
from sessions_pipeline.validation.fields import NOTHING, base_type, field_types
from sessions_pipeline.validation.model import TracerSession
from sessions_pipeline.validation.verdict import COLUMNS, KNOWN, TIERS, Rejected, Valid, judge, unknown_name

# Small enough that a column falls into the cache and that text offsets of 32 bits never overflow.
_CHUNK = 1024
# More names that the schema does not know are a sign of free-form keys, which no decoder should be built for.
_LEARNT_NAMES = 32
# msgspec takes no other names for a struct's fields.
_LEARNABLE = re.compile(r'[^"\\\x00-\x1f]+')
_SCHEMA = pa.schema([*(pa.field(c.name, c.type, c.nullable) for c in COLUMNS), pa.field("row", pa.int64(), False)])
_FIELDS = field_types(TracerSession)
_NAMES = [field[0] for field in _FIELDS]
_CONVERT = {name: CONVERSIONS[base_type(field.annotation)] for name, field in TracerSession.model_fields.items()}
_PROPERTIES = msgspec.json.Decoder(dict[str, msgspec.Raw])

Row = tuple[Any, ...]


class Judged(NamedTuple):
    """What a batch of records came to.

    `sessions` has the columns of `sessions` up to `unknown_fields` and `row`, the record's place in the batch, by
    which it is ordered; `rejected` gives the other rows' reasons; `drift` counts the sessions by what the schema does
    not name.
    """

    sessions: pa.Table
    rejected: dict[int, tuple[str, ...]]
    drift: Counter[str]


def judge_batch(payloads: Sequence[str]) -> Judged:
    """Judge records by their JSON text; every row is either in `sessions` or in `rejected`."""
    tables: list[pa.Table] = []
    rejected: dict[int, tuple[str, ...]] = {}
    drift: Counter[str] = Counter()
    learnt: list[str] = []
    for first in range(0, len(payloads), _CHUNK):
        part = payloads[first : first + _CHUNK]
        fast, doubtful = _judge_columns(part, first, learnt, drift)
        slow = {first + place: judge(part[place]) for place in doubtful}
        rejected.update((row, verdict.reasons) for row, verdict in slow.items() if isinstance(verdict, Rejected))
        valid = {row: verdict for row, verdict in slow.items() if isinstance(verdict, Valid)}
        drift.update(name for verdict in valid.values() for name in verdict.drift)
        tables.append(pa.concat_tables([fast, _table(valid)]).sort_by("row") if valid else fast)
    return Judged(pa.concat_tables([*tables, pa.Table.from_batches([], _SCHEMA)]), rejected, drift)


def _judge_columns(
    payloads: Sequence[str], first: int, learnt: list[str], drift: Counter[str]
) -> tuple[pa.Table, list[int]]:
    """The rows that are sessions beyond doubt, and the places of all others."""
    rows = _read(payloads, learnt)
    places = [place for place, row in enumerate(rows) if row is not None]
    if not places:
        return pa.Table.from_batches([], _SCHEMA), list(range(len(rows)))
    columns = list(zip(*(row for row in rows if row is not None), strict=True))
    doubtful: set[int] = set()
    arrays = {name: _CONVERT[name](values, doubtful) for name, values in zip(_NAMES, columns, strict=False)}
    extras = dict(zip(learnt, columns[len(_NAMES) :], strict=True))
    for values in extras.values():
        doubtful.update(deep_at([bytes(value) for value in values]))
    kept = [position not in doubtful for position in range(len(places))]
    unknown = _unknown(kept, extras, drift)
    _count_tiers(columns[_NAMES.index("trace_tier")], kept, drift)
    arrays["unknown_fields"] = text_array(unknown)
    arrays["row"] = int64_array([first + place for place in places], pa.int64())
    table = pa.table([arrays[field.name] for field in _SCHEMA], schema=_SCHEMA)
    if not doubtful:
        missed = sorted(set(range(len(rows))).difference(places))
        return table, missed
    sure = {place for place, keep in zip(places, kept, strict=True) if keep}
    return table.filter(flag_array(bytes(kept))), [place for place in range(len(rows)) if place not in sure]


def _read(payloads: Sequence[str], learnt: list[str]) -> list[Row | None]:
    """Each record's values in the order of `_NAMES` and the learnt names; None where msgspec can't tell."""
    rows: list[Row | None] = []
    decode, before = _decoder(tuple(learnt)).decode, len(learnt)
    for payload in payloads:
        try:
            rows.append(msgspec.structs.astuple(decode(payload)))
        except UNREADABLE:
            new = _new_names(payload, learnt)
            learnt.extend(new)
            decode = _decoder(tuple(learnt)).decode
            rows.append(_values(decode, payload) if new else None)
    if len(learnt) == before:
        return rows
    width = len(_NAMES) + len(learnt)
    return [None if row is None else row + (NOTHING,) * (width - len(row)) for row in rows]


def _values(decode: Callable[[str], Any], payload: str) -> Row | None:
    try:
        return msgspec.structs.astuple(decode(payload))
    except UNREADABLE:
        return None


def _new_names(payload: str, learnt: Sequence[str]) -> list[str]:
    """Names in the record that the schema does not know, and that are to be known from now on."""
    if len(learnt) == _LEARNT_NAMES:
        return []
    try:
        names = _PROPERTIES.decode(payload)
    except UNREADABLE:
        return []
    new = [name for name in names if name not in KNOWN and name not in learnt and _LEARNABLE.fullmatch(name)]
    return new[: _LEARNT_NAMES - len(learnt)]


@lru_cache(maxsize=16)
def _decoder(unknown: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    fields = [(f"unknown_{number}", msgspec.Raw, NOTHING) for number in range(len(unknown))]
    rename = {field[0]: name for field, name in zip(fields, unknown, strict=True)}
    struct = msgspec.defstruct(
        "Session", [*_FIELDS, *fields], rename=rename, forbid_unknown_fields=True, frozen=True, gc=False
    )
    return msgspec.json.Decoder(struct)


def _unknown(
    kept: Sequence[bool], columns: Mapping[str, Sequence[msgspec.Raw]], drift: Counter[str]
) -> list[str | None]:
    """The column `unknown_fields` from the learnt names' values; the kept rows are counted in `drift`."""
    result: list[str | None] = [None] * len(kept)
    spelt = {name: unknown_name(name) for name in columns}
    for position, values in enumerate(zip(*columns.values(), strict=True)):
        present = [(name, value) for name, value in zip(columns, values, strict=True) if value is not NOTHING]
        if not present or not kept[position]:
            continue
        if len(present) > 1:
            # Each value is a view into the record's text, so its address tells its place there.
            present.sort(key=lambda pair: pa.py_buffer(pair[1]).address)
        for name, _ in present:
            drift[name] += 1
        result[position] = "{" + ",".join([spelt[name] + bytes(value).decode() for name, value in present]) + "}"
    return result


def _count_tiers(tiers: Sequence[str | None], kept: Iterable[bool], drift: Counter[str]) -> None:
    if not {None, *TIERS}.issuperset(tiers):
        pairs = zip(tiers, kept, strict=True)
        drift.update(f"trace_tier={tier}" for tier, keep in pairs if keep and tier is not None and tier not in TIERS)


def _table(valid: dict[int, Valid]) -> pa.Table:
    columns = [value_array([verdict.values[c.name] for verdict in valid.values()], c.type) for c in COLUMNS]
    return pa.table([*columns, int64_array(list(valid), pa.int64())], schema=_SCHEMA)
