"""The report as one HTML file: no network, no external file, and a script that only the page's own hash may run."""

import base64
import hashlib
import json
from datetime import date
from decimal import Decimal
from functools import cache
from importlib import resources
from math import isfinite
from typing import TYPE_CHECKING, Any

from sessions_pipeline.outputs import formatting, judges_command
from sessions_pipeline.outputs.report import charts
from sessions_pipeline.outputs.report.caveats import caveats
from sessions_pipeline.outputs.report.data import DATASETS_OFFERED, ReportData
from sessions_pipeline.outputs.spending import Row, Spending, Totals, by_key, totals_by, with_judges
from sessions_pipeline.settings import DEMO
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET
from sessions_pipeline.tables.aggregate import EXACT, total

if TYPE_CHECKING:
    from jinja2 import Environment

# What is in the page before its script runs, for readers without one.
ROWS_SHOWN = 50
MOST_EXPENSIVE = 10
MOVERS = 3

# The chart of all costs, drawn for a desk and for a phone: class, width and height.
STACKS = (("wide", 1000, 300), ("narrow", 340, 250))


def projects(data: ReportData) -> list[Row]:
    """The tracing projects of the period, the most expensive first; none where usage by project was not measured.

    Each is its latest row, with `cost`, its sum, and `exact_days` of its `days`.
    """
    rows = [row for row in data.projects or () if row["reference_dataset_id"] is None]
    found = [
        {
            **max(group, key=lambda row: row["usage_date"]),
            "cost": total(row["total_cost"] for row in group),
            "days": len(group),
            "exact_days": sum(row["is_exact"] for row in group),
        }
        for group in by_key(rows, "id").values()
    ]
    return sorted(found, key=lambda one: (one["cost"] is None, -(one["cost"] or 0), one["id"]))


def most_expensive(data: ReportData) -> list[Row]:
    """The experiments with the highest known costs of their own, and what they cost with their judges."""
    priced = [row for row in data.experiments if row["total_cost"] is not None]
    return with_judges(sorted(priced, key=lambda row: (-row["total_cost"], row["id"]))[:MOST_EXPENSIVE], data.judges)


def main_score(row: Row) -> tuple[str, float] | None:
    """The feedback that an experiment was given most often, and its average; its session's own is called so."""
    for one in sorted(row["scores"] or (), key=lambda one: (-(one["count"] or 0), one["feedback_key"] or "")):
        if one["average"] is not None and isfinite(one["average"]) and one["feedback_key"] is not None:
            scope = " (session)" if one["scope"] == "session" else ""
            return f"{formatting.visible(one['feedback_key'])}{scope}", one["average"]
    return None


def build_report(data: ReportData) -> str:
    """The whole report, UTF-8 HTML. Equal data give equal text."""
    template = _environment().get_template("report.html.j2")
    style, script = _resource("style.css"), _resource("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return template.render(
        **_content(data),
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
    )


def _content(data: ReportData) -> dict[str, Any]:
    used = projects(data)
    return {
        "data": data,
        "month": data.month,
        "range": formatting.days(data.first, data.last),
        "range_before": formatting.days(data.days_before[0], data.days_before[-1]),
        "empty": not (data.rows or data.experiments or data.days_read.intersection(data.days)),
        "caveats": caveats(data),
        "judges_note": "without judges" if data.now.judges_measured else "judge calls not counted",
        "rises": [one for one in data.movers if (one.difference or 0) > 0][:MOVERS],
        "falls": [one for one in data.movers if (one.difference or 0) < 0][:MOVERS],
        # Behind the first one, only what is 5 % of the whole change.
        "least_moved": EXACT.divide((data.whole.difference or Decimal(0)).copy_abs(), 20),
        "ranks": {one.key: place for place, one in enumerate(data.datasets)},
        "stacks": [(name, charts.stacked(data, width=width, height=height)) for name, width, height in STACKS],
        "series": charts.SERIES,
        "offered": data.datasets[:DATASETS_OFFERED],
        "projects": used[:MOST_EXPENSIVE],
        "other_projects": used[MOST_EXPENSIVE:],
        "other_projects_cost": total(one["cost"] for one in used[MOST_EXPENSIVE:]),
        "projects_cost": total(one["cost"] for one in used),
        "project_days": data.measured_days,
        "most_expensive": [(row, main_score(row)) for row in most_expensive(data)],
        "judged": _judged(data),
        "shown": data.rows[:ROWS_SHOWN],
        "tenants": sorted({row["tenant_id"] for row in data.rows}),
        "embedded": _embedded(data),
    }


def _judged(data: ReportData) -> list[tuple[Spending, Totals]]:
    """Datasets with what they and their judges cost, what is the most expensive as a whole first."""
    spent = totals_by(data.rows, data.judges, lambda row: row["reference_dataset_id"])
    found = [(one, spent[one.key]) for one in data.datasets if one.key in spent]
    return sorted(found, key=lambda one: -(one[1].whole_cost or 0))


def _embedded(data: ReportData) -> str:
    """The daily costs with every digit, as JSON that can stand in a script element."""
    columns = ["start_date", *DAILY_COST_BY_REFERENCE_DATASET.schema.names]
    datasets = sorted({row["reference_dataset_id"] for row in data.rows})
    content = {
        "columns": columns,
        "names": {key: data.labels[key] for key in datasets},
        "csvNames": {key: formatting.spreadsheet_text(data.names.get(key, "")) for key in datasets},
        "rows": [[row[name] for name in columns] for row in data.rows],
        "file": f"daily_cost_by_reference_dataset_{data.first}_{data.last}.csv",
    }

    def text_of(value: date | Decimal) -> str:
        # Costs as text, because a script's numbers keep 15 digits.
        return value.isoformat() if isinstance(value, date) else formatting.exact(value)

    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=text_of)
    # No markup can begin or end inside; the two separators are line ends to old scripts.
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - 0.1 s, for those who draw

    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("money", "exact", "count", "number", "day", "month", "visible"):
        environment.filters[name] = getattr(formatting, name)
    for name in ("share", "change", "signed", "plural", "days"):
        environment.globals[name] = getattr(formatting, name)
    environment.globals |= {"demo": DEMO, "judges_command": judges_command}
    return environment


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")
