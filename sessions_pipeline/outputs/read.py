"""Any table of the lake as one Arrow table, with datasets by name and judges beside experiments, for notebooks."""

import difflib
import warnings
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import days_between
from sessions_pipeline.errors import NotReadError, UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.outputs.dataset_names import dataset_names
from sessions_pipeline.outputs.formatting import EXACT, dataset_labels, day_ranges
from sessions_pipeline.outputs.judges import judge_rows
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import EXPERIMENT_SUMMARY, SESSIONS, TABLES, Table
from sessions_pipeline.validation.types import MONEY

_BOTH = "tenant_id", "reference_dataset_id"


def read(
    table: str, start: date | str | None = None, end: date | str | None = None, *, root: str | Path | None = None
) -> pa.Table:
    """The function that `sessions_pipeline.read` is; its docstring is there."""
    asked = _table(table)
    first, last = _day("start", start), _day("end", end)
    if first and last and first > last:
        raise UsageError(f"start {first} is after end {last}; swap them")
    settings = Settings.load()
    lake = Lake.open(settings.data_root if root is None else str(root), query=None, read_only=True)
    if not lake.is_there:
        place = settings.absolute_data_root if root is None else root
        raise NotReadError(f"{place}: no lake is here; materialize days, or name another folder as root")
    if asked.partition is None:
        return _with_names(lake, _of_periods(lake, asked, first, last), lake.days(SESSIONS))
    there = lake.days(asked)
    if not there:
        raise NotReadError(f"{asked.name} was never made; materialize it first")
    days = [day for day in there if (first or day) <= day <= (last or day)]
    # An end that was asked for counts by itself, as it may lie beyond all that was read.
    spanned = {*days_between(first or there[0], last or there[-1]), *(day for day in (first, last) if day)}
    unread = sorted(spanned - set(days))
    if unread:
        message = f"{asked.name} has nothing for {day_ranges(unread)}: never read, so missing from every sum"
        warnings.warn(message, stacklevel=3)
    chosen: list[Day] = [*days, *([UNDATED] if first is last is None and lake.has(asked, UNDATED) else [])]
    rows = _with_names(lake, lake.read_days(asked, chosen), days)
    return _with_judges(lake, rows, chosen) if asked is EXPERIMENT_SUMMARY else rows


def _table(name: str) -> Table:
    known = {table.name: table for table in TABLES}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise UsageError(f"{name} is no table; {meant}")
    return known[name]


def _day(argument: str, value: date | str | None) -> date | None:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise UsageError(f"{argument}: {value} is no day such as 2026-01-31") from None
    return value.date() if isinstance(value, datetime) else value


def _of_periods(lake: Lake, table: Table, first: date | None, last: date | None) -> pa.Table:
    """The one file of a table, between two days if its rows are periods."""
    rows, key = lake.read(table, None), table.columns[0]
    if first is last is None:
        return rows
    if key.type != pa.date32():
        raise UsageError(f"{table.name} has no days; leave out start and end")
    starts = rows.column(key.name)
    rows = rows.filter(pc.greater_equal(starts, pa.scalar(first or date.min)))
    return rows.filter(pc.less_equal(rows.column(key.name), pa.scalar(last or date.max)))


def _with_names(lake: Lake, rows: pa.Table, days: list[date]) -> pa.Table:
    """With the column `dataset` behind the datasets' ids, where there are any."""
    if not set(_BOTH) <= set(rows.schema.names):
        return rows
    tenants, ids = (rows.column(name).to_pylist() for name in _BOTH)
    keys = {(tenant, one) for tenant, one in zip(tenants, ids, strict=True) if one is not None}
    names = dataset_names(lake, keys, days)
    labels = dataset_labels((one for _, one in keys), {key[1]: names.get(key, key[1]) for key in keys})
    column = pa.array([labels.get(one) for one in ids], pa.string())
    return rows.add_column(rows.schema.get_field_index(_BOTH[1]) + 1, "dataset", column)


def _with_judges(lake: Lake, rows: pa.Table, days: Sequence[Day]) -> pa.Table:
    """With `judge_cost` and `whole_cost` behind the experiments' own; null where judges' cost is not known."""
    judged = {(row["tenant_id"], row["id"]): row["total_cost"] for row in judge_rows(lake, days)}
    own, *keys = (rows.column(name).to_pylist() for name in ("total_cost", "tenant_id", "id"))
    judges = [judged.get(key) for key in zip(*keys, strict=True)]
    whole = [
        None if one is None or other is None else EXACT.add(one, other) for one, other in zip(own, judges, strict=True)
    ]
    place = rows.schema.get_field_index("total_cost") + 1
    rows = rows.add_column(place, "whole_cost", pa.array(whole, MONEY))
    return rows.add_column(place, "judge_cost", pa.array(judges, MONEY))
