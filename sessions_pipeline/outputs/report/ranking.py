"""Which projects and experiments cost most, and which experiments score best for what they cost."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from math import isfinite
from typing import NamedTuple

from sessions_pipeline.outputs.formatting import visible
from sessions_pipeline.outputs.report.data import ReportData
from sessions_pipeline.outputs.spending import Row, by_key, known_sum, total

MOST_EXPENSIVE = 10
PANELS = 6
# Points of a panel; more can't be told apart at this size.
LATEST_SHOWN = 150


class Project(NamedTuple):
    """What a project used in the period: its latest row, and its sums; `exact_days` of `days` are exact."""

    row: Row
    cost: Decimal | None
    tokens: int | None
    days: int
    exact_days: int


class Scored(NamedTuple):
    """A row of `experiment_summary` with the score that its panel or table shows; without feedback both are None."""

    row: Row
    key: str | None
    score: float | None


class Panel(NamedTuple):
    """A dataset's experiments by score and cost.

    `best` are those that no other beats in both, cheapest first; `others` the latest of the rest. `scored` counts all
    that have the score and a cost, `without` those that lack one of them or cost 0 although they used tokens.
    """

    dataset_id: str
    score_key: str
    best: Sequence[Scored]
    others: Sequence[Scored]
    scored: int
    without: int


def projects(data: ReportData) -> list[Project]:
    """The projects of the period, the most expensive first; empty where usage by project was not measured."""
    found = [
        Project(
            row=max(rows, key=lambda row: row["usage_date"]),
            cost=total(row["total_cost"] for row in rows),
            tokens=known_sum(row["total_tokens"] for row in rows),
            days=len(rows),
            exact_days=sum(row["is_exact"] for row in rows),
        )
        for rows in by_key(data.projects or (), "id").values()
    ]
    return sorted(found, key=lambda one: (one.cost is None, -(one.cost or 0), one.row["id"]))


def most_expensive(data: ReportData) -> list[Scored]:
    """The ten experiments with the highest known costs, with the feedback that each was given most often."""
    priced = [row for row in data.experiments if row["total_cost"] is not None]
    priced.sort(key=lambda row: (-row["total_cost"], row["id"]))
    return [_with_main_score(row) for row in priced[:MOST_EXPENSIVE]]


def panels(data: ReportData) -> tuple[list[Panel], int]:
    """Score against cost for the most expensive datasets with scored experiments, and how many are left out."""
    groups = by_key(data.experiments, "reference_dataset_id")
    found = [panel for one in data.datasets if (panel := _panel(one.id, groups.get(one.id, [])))]
    return found[:PANELS], max(0, len(found) - PANELS)


def _panel(dataset: str, rows: Sequence[Row]) -> Panel | None:
    """The panel of the feedback that most of the experiments have."""
    priced = [row for row in rows if _is_priced(row)]
    counts = Counter(key for row in priced for key in dict(_scores(row)))
    if not counts:
        return None
    key = min(counts, key=lambda one: (-counts[one], one))
    scored = [Scored(row, key, dict(_scores(row))[key]) for row in priced if key in dict(_scores(row))]
    best = _unbeaten(scored)
    chosen = {one.row["id"] for one in best}
    others = [one for one in scored if one.row["id"] not in chosen]
    others.sort(key=lambda one: (-(one.row["start_time"].timestamp() if one.row["start_time"] else 0), one.row["id"]))
    return Panel(dataset, key, best, others[:LATEST_SHOWN], len(scored), len(rows) - len(scored))


def _is_priced(row: Row) -> bool:
    """Whether the cost means something: 0 although tokens were used is a model without a price, which beats all."""
    return row["total_cost"] is not None and not (row["total_cost"] == 0 and (row["total_tokens"] or 0) > 0)


def _unbeaten(experiments: Iterable[Scored]) -> list[Scored]:
    """Those that no other beats in both: each scores higher than all that cost no more."""
    found: list[Scored] = []
    for one in sorted(experiments, key=lambda one: (one.row["total_cost"], -(one.score or 0), one.row["id"])):
        if not found or (one.score or 0) > (found[-1].score or 0):
            found.append(one)
    return found


def _scores(row: Row) -> Iterator[tuple[str, float]]:
    """Averages by feedback, the most given first; feedback on the session says so, as a run's may bear its name."""
    for one in sorted(row["scores"] or (), key=lambda one: (-(one["count"] or 0), one["feedback_key"] or "")):
        if one["average"] is not None and isfinite(one["average"]) and one["feedback_key"] is not None:
            scope = " (session)" if one["scope"] == "session" else ""
            yield f"{visible(one['feedback_key'])}{scope}", one["average"]


def _with_main_score(row: Row) -> Scored:
    return Scored(row, *next(_scores(row), (None, None)))
