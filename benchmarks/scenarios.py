"""What is measured, small (minutes, for a look) and full (an hour or two, for `docs/performance.md`)."""

from dataclasses import dataclass, replace
from datetime import date, timedelta

from contenders import FLOOR, OURS
from generate import LAST_DAY, RECENT_DAYS

EVERYONE = (OURS, "dlt_default", "dlt_tuned", "dlt_arrow", "sdk_pandas", "naive", FLOOR)


@dataclass(frozen=True, slots=True)
class Point:
    """One setting under which contenders run. Without `first_day` and `last_day` they read every day there is."""

    sessions: int
    days: int
    contenders: tuple[str, ...] = (OURS, FLOOR)
    latency: float = 0.0
    in_flight: int = 8
    first_day: date | None = None
    last_day: date | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """`rounds` times all points in turn, in each all contenders in turn; `along` names what a growth curve varies."""

    name: str
    title: str
    points: tuple[Point, ...]
    rounds: int
    along: str | None = None


def _growth(full: bool) -> list[Scenario]:
    rounds = 3 if full else 1
    sessions = (10_000, 30_000, 100_000, 300_000, 1_000_000) if full else (1_000, 4_000, 16_000)
    days = (1, 7, 30, 90, 365, 1_095) if full else (1, 7, 30)
    latencies = (0.0, 0.05, 0.1, 0.25, 0.5) if full else (0.0, 0.02, 0.05)
    in_flight = (1, 2, 4, 8, 16, 32) if full else (1, 4, 16)
    wide = Point(30_000 if full else 3_000, 30)
    many = 20_000 if full else 2_000
    return [
        Scenario("sessions", "Sessions", tuple(Point(n, 90) for n in sessions), rounds, "sessions"),
        Scenario("days", "Days", tuple(Point(many, n, (OURS,)) for n in days), rounds, "days"),
        Scenario("latency", "Latency", tuple(replace(wide, latency=n) for n in latencies), rounds, "latency"),
        Scenario(
            "concurrency",
            "Concurrency",
            tuple(replace(wide, latency=0.25 if full else 0.05, in_flight=n) for n in in_flight),
            rounds,
            "in_flight",
        ),
    ]


def _refresh(full: bool) -> Scenario:
    """The newest four days, and four days in the middle, of ever longer histories of the same density."""
    recent = LAST_DAY - timedelta(days=RECENT_DAYS - 1)
    points = []
    for sessions, days in ((10_000, 11), (100_000, 110), (1_000_000, 1_095)) if full else ((3_000, 10), (30_000, 100)):
        middle = LAST_DAY - timedelta(days=days // 2)
        here = Point(sessions, days, (OURS,))
        points.append(replace(here, first_day=recent, last_day=LAST_DAY))
        points.append(replace(here, first_day=middle, last_day=middle + timedelta(days=RECENT_DAYS - 1)))
    return Scenario("refresh", "Refresh of four days", tuple(points), 3 if full else 1)


def all_scenarios(*, full: bool) -> list[Scenario]:
    """Every scenario, the quickest to tell first."""
    rounds = 5 if full else 3
    backfill = Point(100_000, 90, EVERYONE) if full else Point(10_000, 30, EVERYONE)
    waiting = (OURS, "sdk_pandas", "dlt_tuned", "dlt_arrow", FLOOR)
    waits = Point(30_000, 90, waiting, latency=0.25) if full else Point(3_000, 30, waiting, latency=0.1)
    scenarios = [
        Scenario("server", "The server", (replace(backfill, contenders=("drain", FLOOR)),), rounds),
        Scenario("backfill", f"{backfill.sessions:,} sessions over {backfill.days} days", (backfill,), rounds),
        Scenario("waiting", f"{waits.sessions // 100} pages of {waits.latency * 1000:.0f} ms", (waits,), rounds),
        _refresh(full),
        *_growth(full),
    ]
    if full:
        large = Point(500_000, 90, EVERYONE)
        scenarios.insert(2, Scenario("large", "500,000 sessions over 90 days", (large,), rounds))
    return scenarios
