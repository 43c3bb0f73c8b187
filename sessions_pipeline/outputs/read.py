"""Reads tables of the lake: `read` for notebooks, with dataset names and judges' costs, and what all outputs share.

A dataset's name is its current name in the API, else the name in the metadata of its experiments.
"""

import difflib
import json
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline import tables
from sessions_pipeline.days import days_between
from sessions_pipeline.errors import LakeError, NotReadError, UsageError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.outputs.formatting import dataset_labels, day_ranges, plural
from sessions_pipeline.outputs.spending import Row, with_judges
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET as DAILY
from sessions_pipeline.tables import Table
from sessions_pipeline.tables.day_metadata import rebuilt_days
from sessions_pipeline.tables.period_costs import PERIODS, Period
from sessions_pipeline.validation.types import MONEY

_KEY_COLUMNS = "tenant_id", "reference_dataset_id"
# How many names an error suggests.
MOST_NAMES = 10
Key: TypeAlias = tuple[str, str]
"""The ids of a workspace and of a dataset in it."""


def read(
    table: str, start: date | str | None, end: date | str | None, root: str | Path | None, undated: bool
) -> pa.Table:
    """See `sessions_pipeline.read`, which calls this."""
    known = {one.name: one for one in tables.TABLES}
    if table not in known:
        close = difflib.get_close_matches(table, known, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise UsageError(f"{table} is not a table; {advice}")
    asked = known[table]
    first, last = _day("start", start), _day("end", end)
    if first and last and first > last:
        raise UsageError(f"start {first} is after end {last}; swap them")
    settings = Settings.load()
    lake = Lake.open(settings.data_root if root is None else str(root), query=None, read_only=True)
    if not lake.is_there:
        place = settings.absolute_data_root if root is None else root
        raise NotReadError(f"{place}: there is no data here; materialize days, or name another folder as root")
    if asked.partition_column is None:
        return _with_names(lake, _of_periods(lake, asked, first, last), lake.days(tables.SESSIONS))
    if not (stored := lake.days(asked)):
        raise NotReadError(f"{asked.name} was never made; materialize it first")
    days = [day for day in stored if (first or day) <= day <= (last or day)]
    # A given first or last day is added by itself: if it lies outside of the stored days, the range may be empty.
    spanned = {*days_between(first or stored[0], last or stored[-1]), *(day for day in (first, last) if day)}
    undated_rows = lake.load_days(asked, [UNDATED], asked.schema.names[:1])[0].num_rows
    if undated_rows and first is last is None and not undated:
        message = f"{asked.name} has {plural(undated_rows, 'row')} without a day, in no total; undated=True adds them"
        warnings.warn(message, stacklevel=3)
    selected: list[Day] = [*days, *([UNDATED] if undated_rows and undated else [])]
    found, files = lake.load_days(asked, selected)
    if unread := spanned - files.keys():
        message = f"{asked.name} has nothing for {day_ranges(unread)}: never read, so missing from every sum"
        warnings.warn(message, stacklevel=3)
    if rebuilt := rebuilt_days(files):
        message = f"{asked.name} of {day_ranges(rebuilt)} is as known earlier, rebuilt by --as-of"
        warnings.warn(message, stacklevel=3)
    rows = _with_names(lake, found, days)
    return _with_judges(lake, rows, selected) if asked is tables.EXPERIMENT_SUMMARY else rows


def _day(argument: str, value: date | str | None) -> date | None:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise UsageError(f"{argument}: {value} is not a day such as 2026-01-31") from None
    return value.date() if isinstance(value, datetime) else value


def _of_periods(lake: Lake, table: Table, first: date | None, last: date | None) -> pa.Table:
    """A table without partitions; if its rows are weeks or months, those that start from `first` to `last`."""
    rows, key = lake.read(table, None), table.columns[0]
    if outdated := ", ".join(outdated_periods(lake, [period for period in PERIODS if period.table is table])):
        warnings.warn(f"{table.name} is not the sum of its days: {outdated}; materialize it again", stacklevel=4)
    if first is last is None:
        return rows
    if key.type != pa.date32():
        raise UsageError(f"{table.name} has no days; leave out start and end")
    found = rows.filter((pc.field(key.name) >= (first or date.min)) & (pc.field(key.name) <= (last or date.max)))
    if not found.num_rows:
        warnings.warn(f"{table.name} has no row here: weeks and months are selected by their first day", stacklevel=4)
    return found


def _with_names(lake: Lake, rows: pa.Table, days: list[date]) -> pa.Table:
    """The rows with a column `dataset` after the datasets' ids, if the table has these."""
    if not set(_KEY_COLUMNS) <= set(rows.schema.names):
        return rows
    pairs = rows.select(_KEY_COLUMNS).to_pylist()
    names = {dataset: name for (_, dataset), name in dataset_names(lake, pairs, days).items()}
    ids = {row["reference_dataset_id"] for row in pairs} - {None}
    labels = dataset_labels(ids, {dataset: names.get(dataset, dataset) for dataset in ids})
    column = pa.array([labels.get(row["reference_dataset_id"]) for row in pairs], pa.string())
    return rows.add_column(rows.schema.get_field_index("reference_dataset_id") + 1, "dataset", column)


def _with_judges(lake: Lake, rows: pa.Table, days: Sequence[Day]) -> pa.Table:
    """The rows with `judge_cost` and `whole_cost` after `total_cost`; both are null if judges' cost is not known."""
    own = rows.select(["start_date", "tenant_id", "id", "total_cost"]).to_pylist()
    costs = with_judges(own, judge_rows(lake, days))
    place = rows.schema.get_field_index("total_cost") + 1
    for name in ("whole_cost", "judge_cost"):
        rows = rows.add_column(place, name, pa.array([row[name] for row in costs], MONEY))
    return rows


def outdated_periods(lake: Lake, periods: Iterable[Period] = PERIODS) -> list[str]:
    """The weeks and months that are not the sums of their days, such as `week of 2026-01-05`.

    A run that was killed leaves them so until the next one. Daily costs are only read where their files have changed
    since they were summed.

    Raises:
        LakeError: a file can't be read.
    """
    found, versions = list[str](), lake.versions_of_days(DAILY)
    for period in periods:
        if (stored := lake.load(period.table, None)) and (changed := period.changed(versions, stored.metadata)[1]):
            days = [day for day in period.days(changed) if day in versions]
            found += period.outdated(stored.rows, lake.read_days(DAILY, days), days, changed)
    return found


def broken_files(lake: Lake) -> list[str]:
    """What is wrong with each file that can't be read, of the tables that no refresh of its day makes from others.

    Raises:
        LakeError: a table can't be listed.
    """

    def problem(file: tuple[Table, Day]) -> str:
        try:
            # Of the many files of days only the ends are read, which any that was cut off lacks.
            lake.load(*file, () if file[0].partition_column else None)
        except LakeError as error:
            return str(error)
        return ""

    kept = (*tables.FROM_API, *(period.table for period in PERIODS))
    files = [(table, day) for table in kept for day in (*lake.days(table), UNDATED)]
    return [text for _, text in lake.each(problem, files) if text]


def judge_rows(lake: Lake, days: Sequence[Day]) -> list[Row]:
    """The rows of `judge_cost_by_experiment` on these days, with the columns that `Totals.of` needs.

    Raises:
        LakeError: a file can't be read.
    """
    columns = ("tenant_id", "reference_dataset_id", "id", "total_cost", "read_at")
    return list(lake.load_days(tables.JUDGE_COST_BY_EXPERIMENT, days, columns)[0].to_pylist())


def dataset_names(lake: Lake, rows: Iterable[Row], days: Sequence[date], *, all_known: bool = False) -> dict[Key, str]:
    """The names of the rows' datasets, as the API gives them.

    A dataset without a name there gets the `extra.metadata.dataset_name` of its latest experiment on these days; if
    there is none, it is left out. With `all_known`, all datasets that the API has listed are included, and those
    without any name get their id as their name.

    Raises:
        LakeError: a file can't be read.
    """
    stored = lake.load(tables.REFERENCE_DATASETS, None, ("tenant_id", "id", "name"))
    listed = {(row["tenant_id"], row["id"]): row["name"] for row in (stored.rows.to_pylist() if stored else ())}
    keys = {(row["tenant_id"], row["reference_dataset_id"]) for row in rows if row["reference_dataset_id"]}
    if all_known:
        keys |= listed.keys()
    names = {key: listed[key] for key in keys if listed.get(key, "").strip()}
    # A missing file is not ruled out first: in a bucket that is a listing for each day.
    latest_first = sorted(days, reverse=True) if len(names) < len(keys) else []
    for _, stored in lake.each(lambda day: lake.load(tables.SESSIONS, day, (*_KEY_COLUMNS, "extra")), latest_first):
        for key, name in dict(_names_in_metadata(stored.rows)).items() if stored else ():
            if key in keys:
                names.setdefault(key, name)
        if len(names) == len(keys):
            break
    return {**({key: key[1] for key in keys} if all_known else {}), **names}


def dataset_called(wanted: str, names: Mapping[Key, str]) -> str:
    """The id of the dataset with this name or id.

    Raises:
        UsageError: there is none, or there are several; the message says what to write instead.
    """
    ids = sorted({dataset for (_, dataset), name in names.items() if wanted in (name, dataset, dataset.upper())})
    if len(ids) == 1:
        return ids[0]
    instead = ids or difflib.get_close_matches(wanted, names.values(), n=3) or sorted({*names.values()})[:MOST_NAMES]
    found = f"{len(ids)} datasets are" if ids else "no dataset is"
    raise UsageError(f"{found} called {wanted!r}; write {' or '.join(instead)}")


def workspace_called(wanted: str, read: Collection[str]) -> str:
    """The id of a workspace in lower case, if it is among those that were `read`. An empty `read` refuses none.

    Raises:
        UsageError: only other workspaces were read.
    """
    if read and wanted.lower() not in read:
        raise UsageError(f"{wanted.lower()} was never read; write {' or '.join(sorted(read))}")
    return wanted.lower()


def _names_in_metadata(sessions: pa.Table) -> Iterator[tuple[Key, str]]:
    """The datasets and their names in `extra.metadata.dataset_name` of the experiments, the latest experiment last."""
    # Decoding takes 2 us a session, and most have no such name.
    has_name = pc.match_substring(sessions.column("extra"), '"dataset_name"')
    named = sessions.filter(pc.and_(pc.is_valid(sessions.column("reference_dataset_id")), has_name))
    for tenant, dataset, extra in zip(*(column.to_pylist() for column in named.columns), strict=True):
        metadata = json.loads(extra, parse_int=float).get("metadata")
        if isinstance(metadata, dict) and isinstance(name := metadata.get("dataset_name"), str) and name.strip():
            yield (tenant, dataset), name
