"""The scenarios and their contenders: our command line, its peers and the floor."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from bench import HERE, PEERS, PRODUCT
from generate import LAST_DAY

OURS = "sessions-pipeline"
IN_THE_UI = "sessions-pipeline, launched in the UI"
EVERYONE = (OURS, "dlt, default", "dlt, tuned", "dlt, Arrow", "SDK + pandas", "floor")


@dataclass(frozen=True, slots=True)
class Point:
    """Reads the last `read_days` of `days` (default: all), after an untimed run of `before` days, if set."""

    sessions: int
    days: int
    who: tuple[str, ...] = (OURS,)
    latency: float = 0.0
    read_days: int | None = None
    before: int | None = None

    @property
    def label(self) -> str:
        read = f", of which {self.read_days} are read" if self.read_days else ""
        latency = f", {self.latency * 1000:.0f} ms a page" if self.latency else ""
        return f"{self.sessions:,} sessions over {self.days} days{read}{latency}"


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    title: str
    points: tuple[Point, ...] = field(default=())
    rounds: int = 1


def command(who: str, endpoint: str, folder: Path, read_days: int) -> tuple[list[str], dict[str, str]]:
    """A contender's command line, and its environment variables besides those that all contenders get."""
    if who not in (OURS, IN_THE_UI):
        name, *arguments = SCRIPTS[who]
        return [str(PEERS / "bin" / "python"), str(HERE / "peers" / name), endpoint, str(folder), *arguments], {}
    days = [str(LAST_DAY - timedelta(days=read_days - 1)), str(LAST_DAY)]
    words = [str(PRODUCT / "bin" / "sessions-pipeline"), "materialize", "--from", days[0], "--to", days[1]]
    if who == IN_THE_UI:
        words = [str(PRODUCT / "bin" / "python"), str(HERE / "ui_backfill.py"), *days]
    return words, {
        "LANGSMITH_ENDPOINT": endpoint,
        "LANGSMITH_API_KEY": "benchmark",
        "SESSIONS_PIPELINE_DATA_ROOT": str(folder / "lake"),
        "SESSIONS_PIPELINE_START_DATE": "2020-01-01",
        "DAGSTER_HOME": str(folder / "dagster"),
    }


SCRIPTS = {
    "dlt, default": ("dlt_default.py",),
    "dlt, tuned": ("dlt_tuned.py",),
    "dlt, Arrow": ("dlt_arrow.py",),
    "SDK + pandas": ("sdk_pandas.py",),
    "floor": ("floor.py",),
}


def scenarios(*, full: bool) -> list[Scenario]:
    """In the order of docs/performance.md."""
    pick: Callable[[int, int], int] = (lambda _small, large: large) if full else (lambda small, _large: small)
    backfill = Point(pick(5_000, 100_000), pick(30, 90), EVERYONE)
    large = Point(pick(20_000, 500_000), pick(30, 90), (OURS, "dlt, default", "dlt, Arrow", "floor"))
    waiting = Point(pick(3_000, 30_000), pick(30, 90), (OURS, "dlt, tuned", "dlt, Arrow", "floor"), latency=0.25)
    long, one_day = pick(120, 730), Point(1_000, 1, before=1)
    return [
        Scenario("backfill", "A backfill", (backfill,), pick(1, 5)),
        Scenario("large", "A large backfill", (large,), pick(1, 2)),
        Scenario("waiting", "A slow API", (waiting,), pick(1, 3)),
        Scenario("one_day", "One large day", (Point(pick(10_000, 200_000), 1),), pick(1, 2)),
        Scenario("start", "From start to the first request", (one_day, replace(one_day, days=365)), pick(1, 3)),
        Scenario(
            "refresh",
            "Four recent days of a short and a long history",
            tuple(Point(days * 100, days, read_days=4, before=days) for days in (30, long)),
            pick(1, 3),
        ),
        Scenario("ui", "Five days, launched in the UI", (Point(pick(500, 5_000), 5, (IN_THE_UI,)),)),
        Scenario("dagster", "Dagster's share", rounds=pick(1, 3)),
    ]
