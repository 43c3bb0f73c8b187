"""Tables and pictures from `benchmarks/results/*.json`, printed or put between the marks in `docs/performance.md`.

python benchmarks/report.py [--size full]
"""

import json
import re
import statistics
from collections import defaultdict
from datetime import date
from typing import Any

import plots
import targets
from contenders import CONTENDERS, OURS
from environment import HERE, RESULTS

DOCUMENT = HERE.parent / "docs" / "performance.md"
PICTURES = HERE.parent / "docs" / "performance"
Result = dict[str, Any]


def medians(trials: list[Result]) -> dict[str, Result]:
    """The median of every figure, by contender, in the order in which they ran."""
    by_contender: dict[str, list[Result]] = defaultdict(list)
    for trial in trials:
        by_contender[trial["contender"]].append(trial)
    return {name: _median_of(found) for name, found in by_contender.items()}


def _median_of(trials: list[Result]) -> Result:
    middle: Result = {"rounds": len(trials)}
    for figure, value in trials[0].items():
        values = [trial[figure] for trial in trials]
        if isinstance(value, int | float) and not isinstance(value, bool) and None not in values:
            middle[figure] = statistics.median(values)
    judged = [trial["exact"] for trial in trials]
    middle["exact"] = None if None in judged else all(judged)
    walls = [trial["wall_seconds"] for trial in trials]
    middle["spread"] = (min(walls), max(walls))
    return middle


def table(result: Result) -> str:
    """One result as Markdown."""
    if result["name"] == "overhead":
        return _overhead(result)
    if result["name"] == "reading":
        return _reading(result)
    if result["name"] == "server":
        return _server(result)
    if result["along"] and any(point["trials"] for point in result["points"]):
        return plots.as_text(result["along"], _curve(result))
    return "\n\n".join(_point(result, point) for point in result["points"])


def _curve(result: Result) -> plots.Points:
    return [(point["point"], medians(point["trials"])) for point in result["points"]]


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _point(result: Result, point: Result) -> str:
    setting = point["point"]
    found = medians(point["trials"])
    ours = found.get(OURS)
    rows = []
    for name, row in found.items():
        ratio = f"{row['wall_seconds'] / ours['wall_seconds']:.2f}" if ours else "-"
        exact = {True: "yes", False: "no", None: "-"}[row["exact"]]
        rows.append(
            [
                CONTENDERS[name].label,
                f"{row['wall_seconds']:.2f}",
                f"{row['spread'][0]:.2f} to {row['spread'][1]:.2f}",
                ratio,
                f"{row['cpu_seconds']:.2f}",
                f"{row['peak_megabytes']:.0f}",
                f"{row['requests']:.0f}",
                f"{row['rows']:,.0f}",
                exact,
            ]
        )
    head = ["", "wall, s", "least to most, s", "times ours", "CPU, s", "peak, MB", "requests", "rows", "exact"]
    days = f"{setting['days']:,} days"
    if setting["first_day"]:
        days += f" of which {setting['first_day']} to {setting['last_day']} are read"
    title = (
        f"**{setting['sessions']:,} sessions, {days}**, {setting['latency'] * 1000:.0f} ms a page, "
        f"{setting['in_flight']} in flight, medians of {result['rounds']}"
    )
    return f"{title}\n\n{_grid(head, rows)}"


def _server(result: Result) -> str:
    found = medians(result["points"][0]["trials"])
    rows = [
        [
            CONTENDERS[name].label,
            f"{row['wall_seconds']:.2f}",
            f"{row['megabytes_received'] / row['wall_seconds']:.0f}",
            f"{row['server_cpu_seconds'] / row['requests'] * 1e6:.0f}",
            f"{row['server_cpu_seconds'] / row['wall_seconds']:.0%}",
        ]
        for name, row in found.items()
    ]
    return _grid(["", "wall, s", "MB/s", "server CPU, µs a page", "server busy"], rows)


def _overhead(result: Result) -> str:
    starts = _grid(["start", "s"], [[name, f"{seconds:.2f}"] for name, seconds in result["starts"].items()])
    phases = next(iter(result["empty_run"].values()))
    rows = []
    for days, run in result["empty_run"].items():
        whole = result["whole_run"].get(days)
        rows.append([str(days), *(f"{run[phase]:.2f}" for phase in phases), f"{whole:.2f}" if whole else "-"])
    runs = _grid(["days", *phases, "our whole CLI run, 1,000 sessions"], rows)
    lines = [starts, runs]
    for name, figures in (
        (
            "A Dagster run of the same shape that does nothing",
            {d: run["run"] for d, run in result["empty_run"].items()},
        ),
        ("Our whole run", result["whole_run"]),
    ):
        if figures:
            first, last = min(figures, key=int), max(figures, key=int)
            slope = (figures[last] - figures[first]) / (int(last) - int(first)) * 1000
            lines.append(f"{name}: {slope:.1f} ms a day.")
    return "\n\n".join(lines)


def _reading(result: Result) -> str:
    rows = [
        [
            one["question"],
            f"{one['milliseconds']:.0f}",
            f"{one['files']:,} of {one['files_there']:,}",
            f"{one['rows']:,}",
        ]
        for one in result["questions"]
    ]
    return _grid(["question", "ms", "files read", "rows scanned"], rows)


def load(size: str) -> dict[str, Result]:
    """Every result of this size, by name."""
    found = {}
    for file in sorted(RESULTS.glob(f"{size}-*.json")):
        result = json.loads(file.read_text())
        found[result["name"]] = result
    return found


def write(size: str) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`, for every result there is; draw the curves."""
    results = load(size)
    text = DOCUMENT.read_text()
    blocks = {name: table(result) for name, result in results.items() if not result.get("along")}
    for name, result in results.items():
        if result.get("along") and any(point["trials"] for point in result["points"]):
            PICTURES.mkdir(exist_ok=True)
            plots.growth(result["along"], _curve(result), PICTURES / f"{name}.svg")
            blocks[name] = f"![{result['title']}](performance/{name}.svg)\n\n{table(result)}"
    if results:
        blocks["machine"] = _machine(results)
        blocks["targets"] = targets.table(results, medians)
    for name, block in blocks.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            lambda mark, block=block: f"{mark[1]}\n{block}\n\n{mark[2]}",  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    DOCUMENT.write_text(text)


def _machine(results: dict[str, Result]) -> str:
    about = max(results.values(), key=lambda result: result["measured_at"])
    named = ", ".join(f"{name} {value}" for name, value in about["machine"].items() if name not in {"cores", "memory"})
    day = date.fromisoformat(about["measured_at"][:10])
    return f"Measured on {day}: {about['machine']['cores']} cores, {about['machine']['memory']}, {named}."
