"""Any table of the lake as one Arrow table for notebooks, with judges beside experiments and datasets by name.

Datasets are called as the API says now, else as experiments say of themselves.
"""

import difflib
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline import tables
from sessions_pipeline.days import days_between, is_day_over, utc_day
from sessions_pipeline.errors import NotReadError, UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.lake.parquet import Stored
from sessions_pipeline.outputs.formatting import dataset_labels, day_ranges, plural
from sessions_pipeline.outputs.spending import JUDGES_FILE, JudgeReadings, Row, load_judge_readings, with_judges
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import Table
from sessions_pipeline.tables.aggregate import tuples
from sessions_pipeline.tables.readings import Reading
from sessions_pipeline.validation.types import MONEY

_BOTH = "tenant_id", "reference_dataset_id"
# Names that the API did not give are looked for in this many of the latest days.
MOST_DAYS = 7
MOST_NAMES = 10
Key: TypeAlias = tuple[str, str]
"""A workspace and a dataset."""


class _Metadata(msgspec.Struct):
    dataset_name: str = ""


class _Extra(msgspec.Struct):
    metadata: _Metadata


_EXTRA = msgspec.json.Decoder(_Extra)


def read(
    table: str, start: date | str | None, end: date | str | None, root: str | Path | None, undated: bool
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
        raise NotReadError(f"{place}: no data are here; materialize days, or name another folder as root")
    if asked.partition is None:
        return _with_names(lake, _of_periods(lake, asked, first, last), lake.days(tables.SESSIONS))
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
    dayless = lake.read_days(asked, [UNDATED], ("tenant_id",)).num_rows if lake.has(asked, UNDATED) else 0
    if dayless and first is last is None and not undated:
        message = f"{asked.name} has {plural(dayless, 'row')} without a day, in no total; undated=True adds them"
        warnings.warn(message, stacklevel=3)
    chosen: list[Day] = [*days, *([UNDATED] if dayless and undated else [])]
    rows = _with_names(lake, lake.read_days(asked, chosen), days)
    return _with_judges(lake, rows, chosen) if asked is tables.EXPERIMENT_SUMMARY else rows


def _table(name: str) -> Table:
    known = {table.name: table for table in tables.TABLES}
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
    start = pc.field(key.name)
    return rows.filter((start >= (first or date.min)) & (start <= (last or date.max)))


def _with_names(lake: Lake, rows: pa.Table, days: list[date]) -> pa.Table:
    """With the column `dataset` behind the datasets' ids, where there are any."""
    if not set(_BOTH) <= set(rows.schema.names):
        return rows
    pairs = rows.select(_BOTH).to_pylist()
    names = {dataset: name for (_, dataset), name in dataset_names(lake, pairs, days).items()}
    ids = {row["reference_dataset_id"] for row in pairs} - {None}
    labels = dataset_labels(ids, {one: names.get(one, one) for one in ids})
    column = pa.array([labels.get(row["reference_dataset_id"]) for row in pairs], pa.string())
    return rows.add_column(rows.schema.get_field_index("reference_dataset_id") + 1, "dataset", column)


def _with_judges(lake: Lake, rows: pa.Table, days: Sequence[Day]) -> pa.Table:
    """With `judge_cost` and `whole_cost` behind the experiments' own; null where judges' cost is not known."""
    own = rows.select(["start_date", "tenant_id", "id", "total_cost"])
    found = with_judges(own.to_pylist(), judge_rows(lake, days))
    place = rows.schema.get_field_index("total_cost") + 1
    for name in ("whole_cost", "judge_cost"):
        rows = rows.add_column(place, name, pa.array([row[name] for row in found], MONEY))
    return rows


def stored_days(
    lake: Lake, table: Table, days: Sequence[Day], columns: Sequence[str] | None = None
) -> dict[Day, Stored]:
    """Those of the days that the table has.

    Raises:
        LakeError: a file can't be read.
    """
    versions = lake.versions(table, days)
    return {day: stored for day in days if versions[day] and (stored := lake.load(table, day, columns))}


def rows_of(days: Mapping[Day, Stored], partition: str = "start_date") -> list[Row]:
    """Their rows, each with its day; None for those without one."""
    return [{partition: day, **row} for day, stored in days.items() for row in stored.rows.to_pylist()]


def judge_rows(lake: Lake, days: Sequence[Day]) -> list[Row]:
    """What judges have spent on the experiments of the days, as `Totals` takes it."""
    columns = ("tenant_id", "reference_dataset_id", "id", "total_cost", "read_at")
    return rows_of(stored_days(lake, tables.JUDGE_COST_BY_EXPERIMENT, days, columns))


def judge_readings(lake: Lake) -> JudgeReadings:
    """What is kept of judges beside the tables.

    Raises:
        LakeError: it can't be read.
    """
    return load_judge_readings(lake.read_file(JUDGES_FILE))


def dataset_names(lake: Lake, rows: Iterable[Row], days: Sequence[date], *, all_known: bool = False) -> dict[Key, str]:
    """Names of the rows' datasets, of which some may have none: those that the API gives.

    For datasets that it gives no name, `extra.metadata.dataset_name` of the latest experiments on the days counts.
    `all_known`: also of all datasets that the API has listed, and one without a name goes by its id.

    Raises:
        LakeError: a file can't be read.
    """
    stored = lake.load(tables.REFERENCE_DATASETS, None, ("tenant_id", "id", "name"))
    listed = {(row["tenant_id"], row["id"]): row["name"] for row in (stored.rows.to_pylist() if stored else ())}
    keys = {(row["tenant_id"], row["reference_dataset_id"]) for row in rows if row["reference_dataset_id"]}
    if all_known:
        keys |= listed.keys()
    names = {key: listed[key] for key in keys if listed.get(key, "").strip()}
    if len(names) < len(keys):
        for day in [day for day in sorted(days, reverse=True) if lake.has(tables.SESSIONS, day)][:MOST_DAYS]:
            for key, name in _names_said(lake, day):
                if key in keys:
                    names.setdefault(key, name)
    return {**({key: key[1] for key in keys} if all_known else {}), **names}


def dataset_called(wanted: str, names: Mapping[Key, str]) -> str:
    """The id of the dataset that has this name or id.

    Raises:
        UsageError: none has it, or several have; the text says what to write instead.
    """
    ids = sorted({dataset for (_, dataset), name in names.items() if wanted in (name, dataset, dataset.upper())})
    if len(ids) == 1:
        return ids[0]
    instead = ids or difflib.get_close_matches(wanted, names.values(), n=3) or sorted({*names.values()})[:MOST_NAMES]
    found = f"{len(ids)} datasets are" if ids else "no dataset is"
    raise UsageError(f"{found} called {wanted!r}; write {' or '.join(instead)}")


def workspace_called(wanted: str, read: Collection[str]) -> str:
    """The id of a workspace, in small letters.

    Raises:
        UsageError: others were read, and this one was not.
    """
    if read and wanted.lower() not in read:
        raise UsageError(f"{wanted.lower()} was never read; write {' or '.join(sorted(read))}")
    return wanted.lower()


def unread_of_workspaces(readings: Mapping[date, Sequence[Reading]]) -> dict[str, list[date]]:
    """By workspace the days on which only others were read; a reading that saw no session may be of any.

    `readings` are the latest ones by day. Known are the workspaces that they name.
    """
    read = {day: {name for one in of for name in one.workspaces or ("",)} for day, of in readings.items() if of}
    known = sorted(set[str]().union(*read.values()) - {""})
    days = {name: [day for day, names in read.items() if names.isdisjoint({name, ""})] for name in known}
    return {name: unread for name, unread in days.items() if unread}


def is_read(day: date, readings: Iterable[Reading], workspace: str | None, now: datetime) -> bool:
    """Whether a workspace (None: each) was read on a day, and since its end if it is over, by its latest readings."""
    # One that found nothing may not know whose workspace it was.
    mine = [one for one in readings if not one.workspaces or workspace in (None, *one.workspaces)]
    return bool(mine) and (day >= utc_day(now) or all(is_day_over(day, one.fetched_at) for one in mine))


def _names_said(lake: Lake, day: date) -> Iterator[tuple[Key, str]]:
    sessions = lake.read(tables.SESSIONS, day, ("tenant_id", "reference_dataset_id", "extra"))
    # Most sessions do not say it, and decoding all of them in vain takes 2 us each.
    says = pc.match_substring(sessions.column("extra"), '"dataset_name"')
    said = sessions.filter(pc.and_(pc.is_valid(sessions.column("reference_dataset_id")), says))
    for tenant, dataset, extra in tuples(said, *said.schema.names):
        with suppress(msgspec.DecodeError, RecursionError):
            if (name := _EXTRA.decode(extra).metadata.dataset_name).strip():
                yield (tenant, dataset), name
