"""Which projects and experiments cost most, and which experiments score best for what they cost."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sessions_pipeline.outputs.formatting import known_sum, total, visible
from sessions_pipeline.outputs.report.data import ReportData, Row
from sessions_pipeline.outputs.report.spending import Spending

MOST_EXPENSIVE = 10
PANELS = 6
# Points of a panel; more can't be told apart at this size.
LATEST_SHOWN = 150


@dataclass(frozen=True, slots=True)
class Project:
    """What a project used in the period. `exact_days` of `days` are exact."""

    id: str
    name: str
    is_experiment: bool
    cost: Decimal | None
    tokens: int | None
    days: int
    exact_days: int


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment. Money in US dollars; `score` is of the feedback that its panel or row names."""

    id: str
    name: str
    dataset_id: str
    dataset: str
    start_time: datetime | None
    runs: int | None
    cost: Decimal | None
    cost_per_run: Decimal | None
    score_key: str | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Panel:
    """A dataset's experiments by score and cost.

    `best` are those that no other beats in both, cheapest first; `others` the latest of the rest. `scored` counts all
    that have the score and a cost, `without` those that lack one of them or cost 0 although they used tokens.
    """

    dataset_id: str
    dataset: str
    score_key: str
    best: Sequence[Experiment]
    others: Sequence[Experiment]
    scored: int
    without: int


def projects(data: ReportData) -> list[Project]:
    """The projects of the period, the most expensive first; empty where usage by project was not measured."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in data.projects or ():
        groups[row["id"]].append(row)
    found = [_project(rows) for rows in groups.values()]
    return sorted(found, key=lambda one: (one.cost is None, -(one.cost or 0), one.id))


def _project(rows: Sequence[Row]) -> Project:
    latest = max(rows, key=lambda row: row["usage_date"])
    return Project(
        id=latest["id"],
        name=visible(latest["name"] or ""),
        is_experiment=latest["reference_dataset_id"] is not None,
        cost=total(row["total_cost"] for row in rows),
        tokens=known_sum(row["total_tokens"] for row in rows),
        days=len(rows),
        exact_days=sum(row["is_exact"] for row in rows),
    )


def most_expensive(data: ReportData) -> list[Experiment]:
    """The ten experiments with the highest known costs."""
    priced = [row for row in data.experiments if row["total_cost"] is not None]
    priced.sort(key=lambda row: (-row["total_cost"], row["id"]))
    return [_experiment(row, data, _main_score(row["scores"])) for row in priced[:MOST_EXPENSIVE]]


def panels(data: ReportData, spent: Spending) -> tuple[list[Panel], int]:
    """Score against cost for the most expensive datasets with scored experiments, and how many are left out."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in data.experiments:
        groups[row["reference_dataset_id"]].append(row)
    found = [panel for dataset in spent.datasets if (panel := _panel(groups.get(dataset.id, []), data))]
    return found[:PANELS], max(0, len(found) - PANELS)


def _panel(rows: Sequence[Row], data: ReportData) -> Panel | None:
    """The panel of the feedback that most of the experiments have."""
    priced = [row for row in rows if _is_priced(row)]
    keys = Counter(key for row in priced for key in {_key(score) for score in _scores(row["scores"])})
    if not keys:
        return None
    key = min(keys, key=lambda one: (-keys[one], one))
    scored = [_experiment(row, data, (key, value)) for row in priced if (value := _score(row, key)) is not None]
    best = _unbeaten(scored)
    chosen = {one.id for one in best}
    others = sorted((one for one in scored if one.id not in chosen), key=_latest_first)[:LATEST_SHOWN]
    first = scored[0]
    return Panel(
        dataset_id=first.dataset_id,
        dataset=first.dataset,
        score_key=key,
        best=best,
        others=others,
        scored=len(scored),
        without=len(rows) - len(scored),
    )


def _is_priced(row: Row) -> bool:
    """Whether the cost means something: 0 although tokens were used is a model without a price, which beats all."""
    return row["total_cost"] is not None and not (row["total_cost"] == 0 and (row["total_tokens"] or 0) > 0)


def _unbeaten(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Those that no other beats in both: each scores higher than all that cost no more."""
    found: list[Experiment] = []
    for one in sorted(experiments, key=lambda one: (one.cost, -(one.score or 0), one.id)):
        if not found or (one.score or 0) > (found[-1].score or 0):
            found.append(one)
    return found


def _experiment(row: Row, data: ReportData, scored: tuple[str, float] | None) -> Experiment:
    return Experiment(
        id=row["id"],
        name=visible(row["name"] or ""),
        dataset_id=row["reference_dataset_id"],
        dataset=data.labels[row["reference_dataset_id"]],
        start_time=row["start_time"],
        runs=row["run_count"],
        cost=row["total_cost"],
        cost_per_run=row["cost_per_run"],
        score_key=scored[0] if scored else None,
        score=scored[1] if scored else None,
    )


def _scores(scores: Sequence[Row] | None) -> list[Row]:
    return [one for one in scores or () if one["average"] is not None and one["feedback_key"] is not None]


def _key(score: Row) -> str:
    """A feedback's name; feedback on the session itself says so, because a run's may bear the same name."""
    name = visible(score["feedback_key"])
    return f"{name} (session)" if score["scope"] == "session" else name


def _score(row: Row, key: str) -> float | None:
    return next((one["average"] for one in _scores(row["scores"]) if _key(one) == key), None)


def _main_score(scores: Sequence[Row] | None) -> tuple[str, float] | None:
    """The feedback given most often."""
    found = _scores(scores)
    if not found:
        return None
    main = min(found, key=lambda one: (-(one["count"] or 0), _key(one)))
    return _key(main), main["average"]


def _latest_first(one: Experiment) -> tuple[float, str]:
    return (-(one.start_time.timestamp() if one.start_time else 0.0), one.id)
