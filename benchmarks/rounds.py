"""Interleaved rounds of whole processes, against a server of their own.

    python benchmarks/run.py                          # small: a few minutes
    python benchmarks/run.py --full --write           # what docs/performance.md shows: hours
    python benchmarks/run.py --only backfill --rounds 5
    python benchmarks/run.py --full --write --only nothing    # write again what was measured before

Keeps `benchmarks/results/*.json` and prints the tables; with `--write` fills the marked places of
`docs/performance.md` and draws its pictures.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import overhead
import reading
import report
from contenders import Contender, Task, available
from environment import RESULTS
from generate import Manifest, ensure
from machine import describe
from scenarios import EVERYONE, Point, Scenario, all_scenarios
from trial import RunFailedError, Trial, clean_folder, run, serving

DATA = RESULTS / "data"
EXTRA = {"overhead": overhead.measure, "reading": reading.measure}


def run_point(point: Point, contenders: list[Contender], number: int) -> list[Trial]:
    """Every contender once, in turn, against one server; one that fails is told of and left out."""
    folder, manifest = ensure(DATA, point.sessions, point.days)
    trials = []
    with serving(folder, point.latency) as endpoint:
        for contender in contenders:
            with clean_folder() as place:
                try:
                    trial = run(contender, _task(point, manifest, endpoint, place), manifest, number)
                except RunFailedError as error:
                    print(f"  {number} FAILED: {error}", file=sys.stderr)
                    continue
            trials.append(trial)
            print(
                f"  {number} {contender.label:28} {trial.wall_seconds:8.2f} s  {trial.cpu_seconds:8.2f} s CPU"
                f"  {trial.peak_megabytes:7.0f} MB  {trial.requests:6} requests  exact: {trial.exact}",
                file=sys.stderr,
            )
    return trials


def _task(point: Point, manifest: Manifest, endpoint: str, place: Path) -> Task:
    return Task(
        endpoint=endpoint,
        folder=place,
        first_day=str(point.first_day or manifest.first_day),
        last_day=str(point.last_day or manifest.last_day),
        in_flight=point.in_flight,
    )


def run_scenario(scenario: Scenario, rounds: int) -> dict[str, object]:
    """All rounds of one scenario, as what goes into its JSON."""
    print(f"{scenario.title}", file=sys.stderr)
    trials: list[list[Trial]] = [[] for _ in scenario.points]
    for number in range(rounds):
        for place, point in enumerate(scenario.points):
            trials[place] += run_point(point, available(point.contenders), number + 1)
    points = [
        {"point": asdict(point), "trials": [asdict(trial) for trial in found]}
        for point, found in zip(scenario.points, trials, strict=True)
    ]
    return {"name": scenario.name, "title": scenario.title, "along": scenario.along, "rounds": rounds, "points": points}


def leave_out(scenario: Scenario, names: list[str]) -> Scenario:
    """The scenario without these contenders."""
    points = tuple(
        replace(point, contenders=tuple(name for name in point.contenders if name not in names))
        for point in scenario.points
    )
    return replace(scenario, points=points)


def save(size: str, result: dict[str, object]) -> None:
    """Keep one result as JSON and print its table."""
    result |= {"machine": describe(), "measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
    file = RESULTS / f"{size}-{result['name']}.json"
    file.write_text(json.dumps(result, indent=1, default=str))
    print(f"\n{report.table(json.loads(file.read_text()))}\n", flush=True)


def warm_up(scenarios: list[Scenario]) -> None:
    """Run everyone once on little, so that no first round pays for byte code and a cold disk."""
    names = {name for scenario in scenarios for point in scenario.points for name in point.contenders}
    if names:
        print("Warming up", file=sys.stderr)
        run_point(Point(1_000, 5), available(tuple(sorted(names))), 0)


def check(without: list[str]) -> None:
    """Everyone reads every session, and all sums agree: to the last digit, or to a millionth where floats are summed.

    Raises:
        SystemExit: somebody does not.
    """
    _, manifest = ensure(DATA, 2_000, 10)
    contenders = available(tuple(name for name in EVERYONE if name not in without))
    trials = run_point(Point(2_000, 10), contenders, 0)
    if len(trials) < len(contenders):
        sys.exit("not everyone ran to the end")
    for trial in trials:
        total = Decimal(trial.total_cost or manifest.total_cost)
        close = abs(total - Decimal(manifest.total_cost)) < Decimal("0.000001")
        if trial.rows != manifest.sessions or not close or (trial.exact is False and trial.contender != "naive"):
            sys.exit(f"{trial.contender} does not agree: {trial}; expected {manifest}")
    print("All agree.")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the sizes and rounds of docs/performance.md")
    parser.add_argument("--only", action="append", help="a scenario by name, `overhead` or `reading`; may be repeated")
    parser.add_argument("--without", action="append", default=[], help="a contender by name; may be repeated")
    parser.add_argument("--rounds", type=int, help="instead of the scenario's own number")
    parser.add_argument("--write", action="store_true", help="fill docs/performance.md from all results of this size")
    parser.add_argument("--check", action="store_true", help="only see that everyone reads and sums the same")
    given = parser.parse_args()
    if given.check:
        check(given.without)
        return
    everything = [leave_out(scenario, given.without) for scenario in all_scenarios(full=given.full)]
    chosen = [scenario for scenario in everything if not given.only or scenario.name in given.only]
    size = "full" if given.full else "small"
    started = time.monotonic()
    warm_up(chosen)
    for scenario in chosen:
        save(size, run_scenario(scenario, given.rounds or scenario.rounds))
    for name, measure in EXTRA.items():
        if not given.only or name in given.only:
            save(size, measure(full=given.full))
    print(f"\n{time.monotonic() - started:.0f} s in all", file=sys.stderr)
    if given.write:
        report.write(size)


if __name__ == "__main__":
    main()
