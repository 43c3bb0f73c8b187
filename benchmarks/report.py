"""Formats results as tables, and puts them between `<!-- NAME -->` and `<!-- /NAME -->` in docs/performance.md."""

import json
import operator
import re
import statistics
from collections.abc import Iterator
from typing import Any

from bench import HERE, RESULTS
from scenarios import IN_THE_UI, OURS, scenarios

DOCUMENT = HERE.parent / "docs" / "performance.md"
PAGE, IN_FLIGHT = 100, 8
Result = dict[str, Any]


def table(result: Result) -> str:
    """A scenario's result as Markdown."""
    if "dagster" in result:
        return _dagster(result)
    parts = []
    for point in result["points"]:
        found = medians(point)
        ours = found.get(OURS, {}).get("wall")
        several = any(row["least"] < row["most"] for row in found.values())
        columns = {
            "wall, s": lambda row: f"{row['wall']:.2f}",
            **({"range": lambda row: f"{row['least']:.2f} to {row['most']:.2f}"} if several else {}),
            "times ours": lambda row, ours=ours: f"{row['wall'] / ours:.2f}" if ours else "-",
            "CPU, s": lambda row: f"{row['cpu']:.2f}",
            "peak, MB": lambda row: f"{row['megabytes']:.0f}",
            "requests": lambda row: f"{row['requests']:.0f}",
            "first request, s": lambda row: f"{row['first_request']:.2f}",
        }
        rows = [[who, *(figure(row) for figure in columns.values())] for who, row in found.items()]
        rounds = f"medians of {result['rounds']} rounds" if result["rounds"] > 1 else "one round"
        parts.append(f"**{point['label']}**, {rounds}\n\n{grid(['', *columns], rows)}")
        tables = {name for trial in point["trials"] for name in trial.get("tables", ())}
        if tables and result["name"] == "backfill":
            parts.append(f"Ours writes {', '.join(f'`{name}`' for name in sorted(tables))}.")
    return "\n\n".join(parts)


def medians(point: Result) -> dict[str, Result]:
    """The median of every figure over the successful trials, by contender."""
    found: dict[str, Result] = {}
    for who in dict.fromkeys(trial["who"] for trial in point["trials"]):
        trials = [trial for trial in point["trials"] if trial["who"] == who and not trial["failed"]]
        if trials:
            walls = [wall for trial in trials for wall in trial["walls"]]
            figures = [name for name, value in trials[0].items() if isinstance(value, int | float)]
            found[who] = {name: statistics.median(trial[name] for trial in trials) for name in figures}
            found[who] |= {"least": min(walls), "most": max(walls)}
    return found


def grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _share(result: Result, storage: str) -> dict[int, Result]:
    runs: dict[int, list[Result]] = {}
    for one in result["dagster"]:
        if one["storage"] == storage:
            for run in one["runs"]:
                runs.setdefault(run["days"], []).append(run)
    return {days: {name: statistics.median(run[name] for run in of) for name in of[0]} for days, of in runs.items()}


def _dagster(result: Result) -> str:
    rows = []
    for storage in ("stock", "ours"):
        for days, run in _share(result, storage).items():
            each = run["cpu"] * 1000 / days / result["dagster"][0]["tables"]
            rows.append([storage, f"{days}", *(f"{run[name]:.2f}" for name in ("wall", "cpu", "before_the_asset"))])
            rows[-1].append(f"{each:.2f}")
    return grid(["storage", "days", "wall, s", "CPU, s", "before the asset, s", "ms of CPU a day and table"], rows)


def targets(results: dict[str, Result]) -> str:
    """A table of the targets and what was measured."""
    rows = []
    for what, asked, goal, measured, good in _targets(results):
        sign = "≥" if good is operator.ge else "≤"
        reached = "goal reached" if good(measured, goal) else "reached" if good(measured, asked) else "**missed**"
        rows.append([what, f"{sign} {asked:g}", f"{sign} {goal:g}", f"{measured:.2f}", reached])
    return grid(["what", "asked for", "goal", "measured", ""], rows)


AGAINST = {
    "backfill": {"dlt, default": (3.5, 5), "dlt, tuned": (2.2, 4), "SDK + pandas": (2.2, 4), "dlt, Arrow": (1, 1.5)},
    "large": {"dlt, default": (4.5, 8)},
}


def _targets(results: dict[str, Result]) -> Iterator[tuple[str, float, float, float, Any]]:
    found = {name: [medians(point) for point in result["points"]] for name, result in results.items()}
    for name, peers in AGAINST.items():
        for peer, (at_least, goal) in peers.items():
            if name in found and {peer, OURS} <= found[name][0].keys():
                times = found[name][0][peer]["wall"] / found[name][0][OURS]["wall"]
                sessions = results[name]["points"][0]["label"].partition(" over")[0]
                yield f"{sessions}: times {peer}", at_least, goal, times, operator.ge
    for what, at_least, goal, measured in _at_most(results, found):
        yield what, at_least, goal, measured, operator.le


def _at_most(
    results: dict[str, Result], found: dict[str, list[dict[str, Result]]]
) -> Iterator[tuple[str, float, float, float]]:
    ours = {name: [point[OURS] for point in points if OURS in point] for name, points in found.items()}
    if "waiting" in found:
        asked = results["waiting"]["points"][0]["in"]
        bound = asked["sessions"] / PAGE * asked["latency"] / IN_FLIGHT
        yield (
            f"{asked['sessions'] // PAGE} pages of 250 ms: times the bound",
            1.5,
            1.3,
            ours["waiting"][0]["wall"] / bound,
        )
    if "dagster" in results:
        run = _share(results["dagster"], "ours")[90]
        yield "Dagster's share, ms of CPU a day and table", 3, 1, run["cpu"] * 1000 / 90 / 8
    if "start" in found:
        yield "365 days: start to first request, s", 3, 2, ours["start"][-1]["first_request"]
    if "refresh" in found:
        short, long = (point["wall"] for point in ours["refresh"])
        yield "four recent days of a long history, s", 6, 4, long
        yield "the same, times a short history", 1.1, 1, long / short
    if "ui" in found:
        yield "five days, launched in the UI: median, s", 30, 15, found["ui"][0][IN_THE_UI]["wall"]
        yield "the same: longest, s", 30, 15, found["ui"][0][IN_THE_UI]["most"]
    if {"large", "backfill"} <= found.keys():
        large, small = (ours[name][0]["megabytes"] for name in ("large", "backfill"))
        yield "memory of the large backfill, MB", 400, 300, large
        yield "growth from the small one, %", 15, 0, (large / small - 1) * 100
    if "one_day" in found:
        yield "memory of the large day, MB", 600, 400, ours["one_day"][0]["megabytes"]


def write(size: str) -> None:
    """Write the tables into the document.

    Raises:
        SystemExit: there is no result for a table of the document.
    """
    names = [scenario.name for scenario in scenarios(full=size == "full")]
    files = {name: RESULTS / f"{size}-{name}.json" for name in names}
    results = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    machine = next(iter(results.values()))["machine"]
    blocks = {name: table(result) for name, result in results.items()} | {"targets": targets(results)}
    day, processor, system = (machine.pop(name) for name in ("day", "processor", "system"))
    versions = ", ".join(f"{name} {version}" for name, version in machine.items())
    blocks["machine"] = f"Measured on {day}: {processor}, {system}, {versions}."
    text = DOCUMENT.read_text()
    marks = re.findall(r"<!-- (\w+) -->", text)
    if missing := [mark for mark in marks if mark not in blocks]:
        raise SystemExit(f"bench: no result for {', '.join(missing)}, which {DOCUMENT.name} shows")
    for name in marks:
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = between.sub(lambda found, name=name: f"{found[1]}\n{blocks[name]}\n\n{found[2]}", text)  # type: ignore[misc]
    DOCUMENT.write_text(text)
