"""A made-up company: its datasets, experiments and projects, the same for the same seed and day.

Three teams evaluate eight datasets, every night, and on weekdays also by hand. Another workspace has two datasets. A
session's runs are generated when they are first needed, and all its numbers are sums over them. LLM judges run in the
project `evaluators`, as the SDK traces them.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from sessions_pipeline.days import DAY_US, microseconds

DAYS = 60
# Price per prompt and completion token, in billionths of a dollar; None: a model without a price.
PRICES: dict[str, tuple[int, int] | None] = {
    "gpt-5-mini": (150, 750),
    "gpt-5.2": (1_750, 14_000),
    "claude-sonnet-5": (3_000, 15_000),
    "claude-opus-5": (15_000, 75_000),
    "in-house-7b": None,
}
# A model's lowest average score for correctness.
QUALITY = {"gpt-5-mini": 0.55, "gpt-5.2": 0.75, "claude-sonnet-5": 0.78, "claude-opus-5": 0.85, "in-house-7b": 0.45}
LABELS = ("prompt-tuning", "model-swap", "retrieval", "ablation", 'prompt "v2"', "terse\\strict")
# The last one gets more expensive: its prompts grow with each day of the quarter.
BRANCHES = ("main", "fix-42", "prompt-cache", "long-context")
# Values that the API has been seen to send, or is known to have sent, against its own schema.
BROKEN: tuple[dict[str, Any], ...] = (
    {"end_time": ""},
    {"total_cost": "-0.0012", "prompt_cost": "-0.0031"},
    {"reference_dataset_id": ""},
    {"error_rate": "0.03"},
)


def identity(name: str) -> str:
    """A UUID that depends on the given text only."""
    return str(uuid5(NAMESPACE_URL, f"sandbox/{name}"))


WORKSPACE, OTHER_WORKSPACE = identity("workspace/main"), identity("workspace/research")


@dataclass(eq=False)
class Dataset:
    """A reference dataset. The names of its experiments begin with `prefix`."""

    name: str
    team: str
    prefix: str
    tenant_id: str = WORKSPACE

    def __post_init__(self) -> None:
        self.id = identity(f"dataset/{self.tenant_id}/{self.prefix}")


def datasets() -> list[Dataset]:
    """The datasets of both workspaces. Two share a name; one was renamed after its experiments had got their names."""
    names = {
        "support": ("support-answers", "support-triage", "refund-policy"),
        "search": ("query-rewrite", "product-ranking", "catalogue-tags"),
        "legal": ("privacy-requests",),
    }
    return [
        *(Dataset(name, team, name) for team, of_team in names.items() for name in of_team),
        Dataset("contract-clauses", "legal", "clauses"),
        *(Dataset(name, "research", name, OTHER_WORKSPACE) for name in ("support-answers", "long-documents")),
    ]


class Run(NamedTuple):
    """One trace. `start_us` is in microseconds since the epoch, costs in billionths of a dollar, times in seconds.

    `experiment` is the name of the experiment that it judged, if any.
    """

    start_us: int
    prompt_tokens: int
    completion_tokens: int
    prompt_cost: int
    completion_cost: int
    latency: float
    first_token: float
    is_error: bool
    is_streamed: bool
    experiment: str | None = None


@dataclass(eq=False)
class Session:
    """A session as the database would hold it.

    An experiment has `run_count` runs in all, between `start` and `end`; a project has as many each day. No run starts
    after `until`. `length` multiplies the length of prompts, `broken` replaces fields of the JSON, `undated` leaves out
    the start time. The project `evaluators` has one run for each run of the sessions that it `judged`, and a few more.
    """

    id: str
    tenant_id: str
    name: str
    start: datetime
    until: datetime
    seed: int
    run_count: int
    model: str
    dataset: Dataset | None = None
    end: datetime | None = None
    branch: str = "main"
    length: float = 1.0
    broken: dict[str, Any] = field(default_factory=dict)
    undated: bool = False
    judged: tuple["Session", ...] = ()

    @cached_property
    def runs(self) -> list[Run]:
        """Its runs, by start time."""
        last = microseconds(self.until)
        return [run for run in sorted(self._draw()) if run.start_us <= last]

    @cached_property
    def runs_by_experiment(self) -> dict[str | None, list[Run]]:
        """The runs that judged an experiment, by the experiment's name; under None those that judged none."""
        found = defaultdict[str | None, list[Run]](list)
        for run in self.runs:
            found[run.experiment].append(run)
        return dict(found)

    def _draw(self) -> Iterator[Run]:
        first = microseconds(self.start)
        if self.end is not None:
            choose, span = random.Random(self.seed), microseconds(self.end) - first
            yield from (self._run(choose.random, first + int(choose.random() * span)) for _ in range(self.run_count))
            return
        # Seeded by day, so that a day's runs do not depend on `until`.
        for day in range(first // DAY_US + 1, microseconds(self.until) // DAY_US + 1):
            choose = random.Random(self.seed + day)
            for _ in range(self.run_count):
                yield self._run(choose.random, day * DAY_US + int(choose.random() * DAY_US))
        for experiment in self.judged:
            yield from _judge(experiment)

    def _run(self, chance: Any, start_us: int) -> Run:
        prompt, completion = int((200 + 5_800 * chance()) * self.length), 20 + int(880 * chance())
        per_prompt, per_completion = PRICES[self.model] or (0, 0)
        latency, luck = round(0.3 + 6 * chance() ** 3, 4), chance()
        first_token, costs = round(latency * (0.1 + 0.4 * luck), 4), (prompt * per_prompt, completion * per_completion)
        return Run(start_us, prompt, completion, *costs, latency, first_token, luck < 0.03, luck > 0.6)  # noqa: PLR2004


def _judge(experiment: Session) -> Iterator[Run]:
    """The runs that judged an experiment: by dataset, 25 to 58 % of the total cost of experiments and judges."""
    of_dataset = 0.1 + 1.3 * random.Random(f"judges/{experiment.dataset and experiment.dataset.id}").random()
    share = of_dataset * (0.75 + 0.5 * random.Random(experiment.seed + 2).random())
    per_prompt, per_completion = PRICES[experiment.model] or (150, 750)
    for run in experiment.runs:
        prompt, completion = round(run.prompt_tokens * share), round(run.completion_tokens * share)
        costs = (prompt * per_prompt, completion * per_completion)
        values: Any = (run.start_us + int(run.latency * 1e6), prompt, completion, *costs, *run[5:9], experiment.name)
        yield Run(*values)


def company(seed: int, now: datetime, known: list[Dataset]) -> list[Session]:
    """The company's sessions up to `now`; the main workspace has about 1,500 experiments in 60 days."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    experiments: list[Session] = []
    for back in range(DAYS - 1, -1, -1):
        day = today - timedelta(days=back)
        choose = random.Random(f"{seed}/{day:%Y-%m-%d}")
        of_day = [one for dataset in known for one in _experiments(choose, dataset, day, now)]
        if day.day % 4 == 0:
            choose.choice(of_day).broken = choose.choice(BROKEN)
        if day.day % 14 == 0:
            choose.choice(of_day).undated = True
        experiments += [session for session in of_day if session.start <= now]
    return [*_projects(seed, now, experiments), *experiments]


def _quarter(day: datetime) -> datetime:
    return day.replace(day=1, month=(day.month - 1) // 3 * 3 + 1, hour=0, minute=0, second=0, microsecond=0)


def _projects(seed: int, now: datetime, experiments: list[Session]) -> Iterator[Session]:
    names = ("checkout-assistant", "search-production", "support-production", "legal-copilot", "research-notebooks")
    for number, name in enumerate(names):
        tenant = WORKSPACE if number < 4 else OTHER_WORKSPACE  # noqa: PLR2004
        # Started before the quarter, so that projects keep their start times for months.
        start, luck = _quarter(now) - timedelta(days=62 + 7 * number), random.Random(f"{seed}/{name}").getrandbits(60)
        key, model = identity(f"{seed}/project/{name}"), list(PRICES)[luck % 4]
        yield Session(key, tenant, name, start, now, luck, 20 + luck % 30, model)
    for tenant in (WORKSPACE, OTHER_WORKSPACE):
        key, start = identity(f"{seed}/judges/{tenant}"), _quarter(now) - timedelta(days=100)
        mine = tuple(session for session in experiments if session.tenant_id == tenant)
        yield Session(key, tenant, "evaluators", start, now, seed, 2, "gpt-5.2", judged=mine)


def _experiments(choose: random.Random, dataset: Dataset, day: datetime, now: datetime) -> Iterator[Session]:
    """One experiment at night and, on weekdays, one to five by hand."""
    for number in range(1 if day.weekday() >= 5 else choose.randrange(2, 7)):  # noqa: PLR2004
        start = day + timedelta(hours=8 + 10 * choose.random() if number else 2, microseconds=choose.randrange(10**6))
        luck, branch = choose.getrandbits(60), choose.choice(BRANCHES) if number else "main"
        yield Session(
            id=identity(f"{dataset.id}/{luck}"),
            tenant_id=dataset.tenant_id,
            name=f"{dataset.prefix}-{choose.choice(LABELS) if number else 'nightly'}-{luck & 0xFFFFFFFF:08x}",
            start=start,
            until=now,
            seed=luck,
            run_count=choose.randrange(10, 40),
            model=choose.choices(list(PRICES), weights=(4, 4, 3, 1, 1))[0],
            dataset=dataset,
            end=start + timedelta(minutes=choose.randrange(3, 40)),
            branch=branch,
            length=1 + (day - _quarter(day)).days / 45 if branch == BRANCHES[-1] else 1,
        )


def feedback(session: Session) -> dict[str, Any]:
    """Scores of an experiment's runs. For a fifth of the experiments they arrive a day late."""
    choose, n = random.Random(session.seed + 3), len(session.runs)
    late = timedelta(days=1) if choose.random() < 0.2 else timedelta(minutes=40)  # noqa: PLR2004
    if session.dataset is None or n == 0 or session.start + late > session.until:
        return {}
    scores: dict[str, Any] = {}
    for key, least in (("correctness", QUALITY[session.model]), ("conciseness", 0.6)):
        average, spread = round(least + 0.15 * choose.random(), 4), round(0.05 + choose.random() / 4, 4)
        scores[key] = {"n": n, "avg": average, "stdev": spread, "errors": 0}
    values = {"pass": n - n // 8, "fail": n // 8}
    return scores | {"verdict": {"n": n, "avg": None, "stdev": None, "errors": 0, "values": values}}
