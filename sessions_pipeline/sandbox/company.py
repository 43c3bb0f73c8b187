"""A made-up company's sessions: the same for the same seed and time.

Three teams evaluate seven datasets on weekdays and, in nightly regressions, every day; five long-lived projects trace
production. A session's runs are drawn when they are first asked for, and all its numbers are sums over them.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

DAYS = 45
DAY_US = 86_400_000_000
WORKSPACE = str(uuid5(NAMESPACE_URL, "sandbox/workspace/main"))
OTHER_WORKSPACE = str(uuid5(NAMESPACE_URL, "sandbox/workspace/research"))
TEAMS = {
    "support": ("support-answers", "support-triage", "refund-policy"),
    "search": ("query-rewrite", "product-ranking"),
    "legal": ("contract-clauses", "privacy-requests"),
}
DATASETS = {name: str(uuid5(NAMESPACE_URL, f"sandbox/dataset/{name}")) for names in TEAMS.values() for name in names}
TAGS = {team: str(uuid5(NAMESPACE_URL, f"sandbox/tag/{team}")) for team in TEAMS}
PROJECTS = (
    "checkout-assistant",
    "search-production",
    "support-production",
    "<script>alert(1)</script>",
    "legal-copilot",
)
# Billionths of a dollar per token, prompt and completion; None: a model without a price.
MODELS = {"gpt-5.2": (1_750, 14_000), "claude-sonnet-5": (3_000, 15_000), "haiku-5": (800, 4_000), "in-house-7b": None}
PRICES = {model: price for model, price in MODELS.items() if price}


class Run(NamedTuple):
    """One trace: when it began (microseconds), what it used, what it cost (billionths of a dollar) and how it went."""

    start_us: int
    prompt_tokens: int
    completion_tokens: int
    prompt_cost: int
    completion_cost: int
    latency: float
    first_token: float
    is_error: bool
    is_streamed: bool


@dataclass
class Session:
    """A session as the database would hold it.

    `run_count` runs are made in all or, with `until`, a day; `broken` replaces fields of its JSON.
    """

    id: str
    tenant_id: str
    name: str
    start: datetime | None
    seed: int
    run_count: int
    model: str
    dataset: str | None = None
    end: datetime | None = None
    team: str = "support"
    until: datetime | None = None
    broken: dict[str, Any] = field(default_factory=dict)
    emptied: bool = False
    order: float = 0.0

    @cached_property
    def runs(self) -> list[Run]:
        """Its runs in the order of their start."""
        if self.emptied:
            return []
        if self.until is not None and self.start is not None:
            return list(self._runs_by_day(self.start, self.until))
        choose = random.Random(self.seed)
        begin = self.start or datetime(2026, 1, 1, tzinfo=UTC)
        span = max(int(((self.end or begin + timedelta(minutes=20)) - begin).total_seconds() * 1e6), 1)
        starts = sorted(choose.randrange(span) for _ in range(self.run_count))
        first = microseconds(begin)
        return [self._run(choose, first + start) for start in starts]

    def _runs_by_day(self, start: datetime, until: datetime) -> Iterator[Run]:
        """`run_count` runs a day: what a day had does not depend on when it is looked at."""
        first, last = microseconds(start), microseconds(until)
        for day in range(first // DAY_US, last // DAY_US + 1):
            choose = random.Random(self.seed + day)
            for offset in sorted(choose.randrange(DAY_US) for _ in range(self.run_count)):
                run = self._run(choose, day * DAY_US + offset)
                if first <= run.start_us <= last:
                    yield run

    def _run(self, choose: random.Random, start_us: int) -> Run:
        prompt, completion = choose.randrange(200, 6_000), choose.randrange(20, 900)
        price = MODELS[self.model] or (0, 0)
        latency = round(choose.lognormvariate(0.4, 0.6), 4)
        first_token = round(latency * choose.uniform(0.1, 0.5), 4)
        return Run(
            start_us,
            prompt,
            completion,
            prompt * price[0],
            completion * price[1],
            latency,
            first_token,
            choose.random() < 0.03,  # noqa: PLR2004
            choose.random() < 0.4,  # noqa: PLR2004
        )

    @cached_property
    def extra(self) -> dict[str, Any]:
        """Free-form properties, as an evaluation would leave them."""
        choose = random.Random(self.seed + 1)
        author = choose.choice(["ana", "bob", "chen", "dara"])
        metadata = {
            "team": self.team,
            "dataset_version": f"v{1 + self.seed % 3}",
            "models": [self.model],
            "git": {"commit": f"{choose.getrandbits(160):040x}", "author_email": f"{author}@example.com"},
        }
        if self.dataset:
            metadata["dataset"] = self.dataset
        return {"metadata": metadata}

    def feedback(self, now: datetime) -> dict[str, Any]:
        """Scores on its runs; some arrive a day late."""
        if not self.dataset or self.emptied:
            return {}
        choose = random.Random(self.seed + 2)
        late = timedelta(days=1) if choose.random() < 0.2 else timedelta(0)  # noqa: PLR2004
        if self.start and self.start + late > now:
            return {}
        n = self.run_count
        scores: dict[str, Any] = {
            key: {
                "n": n,
                "avg": round(choose.uniform(low, 1), 4),
                "stdev": round(choose.uniform(0.05, 0.3), 4),
                "errors": 0,
            }
            for key, low in (("correctness", 0.55), ("conciseness", 0.4))
        }
        scores["verdict"] = {
            "n": n,
            "avg": None,
            "stdev": None,
            "errors": 0,
            "values": {"pass": n - n // 8, "fail": n // 8},
        }
        return scores


def microseconds(time: datetime) -> int:
    """Since the epoch, UTC."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def company(seed: int, now: datetime, *, broken: bool = True) -> list[Session]:
    """Its sessions up to `now`, about 6,000 in 45 days; a day's sessions are the same whenever it is looked at."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    sessions = [*_projects(seed, today, now)]
    for back in range(DAYS - 1, -1, -1):
        day = today - timedelta(days=back)
        choose = random.Random(f"{seed}/{day:%Y-%m-%d}")
        of_day = list(_experiments(choose, seed, day))
        if broken and day.day % 3 == 0:
            _break_one(of_day, choose)
        sessions += [session for session in of_day if session.start is None or session.start <= now]
    for session in sessions:
        session.order = random.Random(session.seed).random()
    return sessions


def _projects(seed: int, today: datetime, now: datetime) -> Iterator[Session]:
    # Begun in the last quarter but one, so that they stay the same for months.
    quarter = today.replace(day=1, month=(today.month - 1) // 3 * 3 + 1)
    for number, name in enumerate(PROJECTS):
        choose = random.Random(f"{seed}/{name}")
        start = quarter - timedelta(days=10 + 7 * number, hours=-number)
        yield Session(
            id=str(uuid5(NAMESPACE_URL, f"sandbox/{seed}/project/{name}")),
            tenant_id=WORKSPACE if number != len(PROJECTS) - 1 else OTHER_WORKSPACE,
            name=name,
            start=start,
            seed=choose.getrandbits(60),
            run_count=choose.randrange(40, 120),
            model=choose.choice(list(PRICES)),
            team=list(TEAMS)[number % 3],
            until=now,
        )


def _experiments(choose: random.Random, seed: int, day: datetime) -> Iterator[Session]:
    weekend = day.weekday() >= 5  # noqa: PLR2004
    for team, datasets in TEAMS.items():
        for dataset in datasets:
            count = choose.randrange(2, 6) if weekend else choose.randrange(20, 33)
            for number in range(count):
                nightly = number == 0
                offset = timedelta(hours=2) if nightly else timedelta(hours=8) + timedelta(hours=10) * choose.random()
                start = day + offset + timedelta(microseconds=choose.randrange(1_000_000))
                model = choose.choices(list(MODELS), weights=(4, 4, 3, 1))[0]
                label = (
                    "nightly" if nightly else choose.choice(["prompt-tuning", "model-swap", "retrieval", "ablation"])
                )
                yield Session(
                    id=str(uuid5(NAMESPACE_URL, f"sandbox/{seed}/{dataset}/{day:%Y-%m-%d}/{number}")),
                    tenant_id=OTHER_WORKSPACE if team == "legal" and number % 10 == 9 else WORKSPACE,  # noqa: PLR2004
                    name=f"{dataset} · {label} · {day:%Y-%m-%d} #{number}",
                    start=start,
                    seed=choose.getrandbits(60),
                    run_count=choose.randrange(10, 45),
                    model=model,
                    dataset=dataset,
                    end=start + timedelta(minutes=choose.randrange(3, 40)),
                    team=team,
                )


def _break_one(sessions: list[Session], choose: random.Random) -> None:
    """One record of the day breaks the schema, and on some days one has no start time: a dozen and five in all."""
    faults: list[dict[str, Any]] = [
        {"total_cost": "12,50"},
        {"run_count": "many"},
        {"reference_dataset_id": "support-answers"},
        {"end_time": "yesterday"},
        {"total_cost": "-0.01"},
        {"error_rate": "3%"},
    ]
    broken, undated = choose.sample(sessions, 2)
    broken.broken = choose.choice(faults)
    if choose.random() < 0.4:  # noqa: PLR2004
        undated.start = None


def dumps(value: Any) -> str:
    """JSON as the API writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
