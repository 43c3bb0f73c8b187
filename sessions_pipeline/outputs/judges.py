"""What experiments cost with their judges, and what judges have spent that no experiment claims."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from sessions_pipeline.errors import NotReadError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.lake.layout import Day
from sessions_pipeline.outputs.formatting import EXACT
from sessions_pipeline.outputs.spending import Row, total
from sessions_pipeline.tables import EXPERIMENT_SUMMARY, JUDGE_COST_BY_EXPERIMENT, Table

JUDGES_FILE = "_readings/judges.json"
_Key = TypeVar("_Key", bound=Hashable)


class WholeCost(NamedTuple):
    """What an experiment cost, and its judges so far, in US dollars; None: unknown, or not measured."""

    start_date: date | None
    tenant_id: str
    reference_dataset_id: str
    id: str
    name: str | None
    own: Decimal | None
    judges: Decimal | None
    is_measured: bool

    @property
    def whole(self) -> Decimal | None:
        """Both together; None where one of them is not known."""
        return None if self.own is None or self.judges is None else EXACT.add(self.own, self.judges)


def whole_costs(lake: Lake, days: Sequence[Day]) -> list[WholeCost]:
    """Every experiment of the days, as the lake has them.

    Raises:
        LakeError: a file can't be read.
    """
    columns = ("tenant_id", "reference_dataset_id", "id", "name", "total_cost")
    judged = {(row["tenant_id"], row["id"]): row["total_cost"] for row in judge_rows(lake, days)}
    return [
        WholeCost(**row, own=own, judges=judged.get(key), is_measured=key in judged)
        for row in _rows(lake, EXPERIMENT_SUMMARY, days, columns)
        for key, own in [((row["tenant_id"], row["id"]), row.pop("total_cost"))]
    ]


def judge_rows(lake: Lake, days: Sequence[Day]) -> Sequence[Row]:
    """What judges have spent on the experiments of the days: of `judge_cost_by_experiment` what `Spent` is made from.

    Raises:
        LakeError: a file can't be read.
    """
    return _rows(lake, JUDGE_COST_BY_EXPERIMENT, days, ("tenant_id", "reference_dataset_id", "id", "total_cost"))


class Spent(NamedTuple):
    """What some experiments cost, and their judges: the known part, US dollars, exact; None where nothing is known.

    `measured` counts the experiments whose judges were asked about, `unknown` those of them whose judges' cost is not
    known, and `not_measured` the others.
    """

    own: Decimal | None
    judges: Decimal | None
    measured: int
    unknown: int
    not_measured: int

    @property
    def whole(self) -> Decimal | None:
        """What is known of both together."""
        return total((self.own, self.judges))

    @classmethod
    def of(cls, daily: Iterable[Row], judges: Iterable[Row]) -> Self:
        """The sums of rows of `daily_cost_by_reference_dataset` and of `judge_rows`, of the same days and datasets."""
        rows, costs = list(daily), [row["total_cost"] for row in judges]
        experiments = sum(row["session_count"] for row in rows)
        own = total(row["total_cost"] for row in rows)
        return cls(own, total(costs), len(costs), costs.count(None), experiments - len(costs))


def spent_by(daily: Iterable[Row], judges: Iterable[Row], key: Callable[[Row], _Key]) -> dict[_Key, Spent]:
    """The sums by a key that both kinds of rows have, such as the dataset and the month of `start_date`."""
    groups: dict[_Key, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for kind, rows in enumerate((daily, judges)):
        for row in rows:
            groups[key(row)][kind].append(row)
    return {found: Spent.of(*rows) for found, rows in groups.items()}


class JudgeReading(msgspec.Struct, frozen=True):
    """What a workspace's judge project had spent in all at `read_at`, and what of it the lake's experiments claim.

    US dollars, exact; None: unknown. `unattributed_cost` is what no experiment claims: below zero, something is counted
    twice, or for the wrong experiment. `is_exact`: nothing moved meanwhile, and retention has emptied nothing.
    `skipped` counts the experiments that were not measured although they are new, or never were, by the reason.
    """

    project: str
    total_cost: Decimal | None
    attributed_cost: Decimal
    unattributed_cost: Decimal | None
    is_exact: bool
    read_at: datetime
    skipped: dict[str, int]


class JudgeReadings(msgspec.Struct):
    """The latest reading of each workspace, and why others were not measured when it was tried last."""

    readings: dict[str, JudgeReading] = {}
    problems: dict[str, str] = {}


def judge_readings(lake: Lake) -> JudgeReadings:
    """What is kept beside the tables.

    Raises:
        LakeError: it can't be read.
    """
    with suppress(NotReadError):
        return load_readings(lake.read_file(JUDGES_FILE))
    return JudgeReadings()


def load_readings(text: bytes | None) -> JudgeReadings:
    """What such a file says; nothing where there is none, or a broken one."""
    try:
        return msgspec.json.decode(text or b"{}", type=JudgeReadings)
    except msgspec.DecodeError:
        return JudgeReadings()


def _rows(lake: Lake, table: Table, days: Sequence[Day], columns: Sequence[str]) -> list[dict[str, Any]]:
    there = [day for day, version in lake.versions(table, days).items() if version]
    rows: list[dict[str, Any]] = lake.read_days(table, there, columns).to_pylist()
    return rows
