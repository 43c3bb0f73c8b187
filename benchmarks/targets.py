"""The targets, each beside what was measured, from the results of one size."""

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

from contenders import FLOOR, OURS
from generate import LAST_DAY

Result = dict[str, Any]
Medians = Callable[[list[Result]], dict[str, Result]]
PAGE = 100
AT_LEAST = {
    "backfill": {"dlt_default": 5.0, "dlt_tuned": 4.0, "sdk_pandas": 4.0},
    "large": {"dlt_default": 8.0},
    "waiting": {"sdk_pandas": 6.5},
}


def table(results: dict[str, Result], medians: Medians) -> str:
    """Markdown: what, target, measured, met. A target without a result is left out."""
    lines = ["| what | target | measured | met |", "| --- | --: | --: | --- |"]
    for what, target, measured, met in _rows(results, medians):
        lines.append(f"| {what} | {target} | {measured} | {'yes' if met else '**no**'} |")
    return "\n".join(lines)


def _rows(results: dict[str, Result], medians: Medians) -> Iterator[tuple[str, str, str, bool]]:
    found = {
        name: medians(result["points"][0]["trials"])
        for name, result in results.items()
        if name in {"backfill", "large", "waiting"}
    }
    found = {name: rows for name, rows in found.items() if OURS in rows}
    for name, rows in found.items():
        title, ours = results[name]["title"], rows[OURS]["wall_seconds"]
        for peer, least in AT_LEAST[name].items():
            if peer in rows:
                times = rows[peer]["wall_seconds"] / ours
                yield f"{title}: times faster than {peer}", f"≥ {least}", f"{times:.1f}", times >= least
    if "large" in found:
        of_floor = found["large"][OURS]["wall_seconds"] / found["large"][FLOOR]["wall_seconds"]
        yield f"{results['large']['title']}: times the floor", "≤ 6", f"{of_floor:.1f}", of_floor <= 6
    if "waiting" in found:
        yield _waiting(results["waiting"], found["waiting"][OURS])
    if {"large", "backfill"} <= found.keys():
        yield from _memory(found["large"][OURS]["peak_megabytes"], found["backfill"][OURS]["peak_megabytes"])
    if "refresh" in results:
        yield from _refresh(results["refresh"], medians)
    if "overhead" in results:
        yield from _overhead(results["overhead"])
    if found:
        exact = all(rows[OURS]["exact"] for rows in found.values())
        yield "every sum per day and dataset is exact", "all", "all" if exact else "not all", exact


def _waiting(result: Result, ours: Result) -> tuple[str, str, str, bool]:
    setting = result["points"][0]["point"]
    least = ceil(setting["sessions"] / PAGE) * setting["latency"] / setting["in_flight"]
    times = ours["wall_seconds"] / least
    what = f"{result['title']}: times pages, times latency, divided by {setting['in_flight']}"
    return what, "≤ 1.3", f"{times:.2f}", times <= 1.3


def _memory(large: float, small: float) -> Iterator[tuple[str, str, str, bool]]:
    yield "peak memory at 500,000 sessions, MB", "≤ 300", f"{large:.0f}", large <= 300
    yield "the same above that at 100,000", "< 10 %", f"{large / small - 1:.0%}", large < 1.1 * small


def _refresh(result: Result, medians: Medians) -> Iterator[tuple[str, str, str, bool]]:
    for point in result["points"]:
        setting, ours = point["point"], medians(point["trials"]).get(OURS)
        if ours and setting["last_day"] == str(LAST_DAY):
            more = ours["requests"] - ceil(ours["rows"] / PAGE)
            what = f"four recent days among {setting['sessions']:,} sessions: requests beyond their pages"
            yield what, "≤ 40", f"{more:.0f}", more <= 40


def _overhead(result: Result) -> Iterator[tuple[str, str, str, bool]]:
    runs = {int(days): run for days, run in result["empty_run"].items()}
    few, many = min(runs), max(runs)
    fixed = sum(runs[few].values())
    a_day = (runs[many]["run"] - runs[few]["run"]) / (many - few) * 1000
    yield "Dagster's own share, fixed, s", "≤ 2.5", f"{fixed:.2f}", fixed <= 2.5
    yield "Dagster's own share, ms a day", "≤ 15", f"{a_day:.1f}", a_day <= 15
    shown = result["starts"].get("sessions-pipeline --help")
    if shown:
        yield "`sessions-pipeline --help`, s", "≤ 0.3", f"{shown:.2f}", shown <= 0.3
