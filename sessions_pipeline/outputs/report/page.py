"""The report as one HTML file: no network, no external file, and a script that only the page's own hash may run."""

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from sessions_pipeline.outputs import formatting
from sessions_pipeline.outputs.report import charts, ranking
from sessions_pipeline.outputs.report.caveats import caveats
from sessions_pipeline.outputs.report.data import ReportData
from sessions_pipeline.outputs.spending import total
from sessions_pipeline.settings import DEMO
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET

if TYPE_CHECKING:
    from jinja2 import Environment

# What is in the page before its script runs, for readers without one.
ROWS_SHOWN = 50
PROJECTS_SHOWN = 10
MOVERS = 3

# The chart of all costs, drawn for a desk and for a phone: class, width and height.
STACKS = (("wide", 1000, 300), ("narrow", 340, 250))
_KEYS = ("start_date", "tenant_id", "reference_dataset_id")


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
    panels, left_out = ranking.panels(data)
    used = ranking.projects(data)
    moved = sorted(data.datasets, key=lambda one: (-abs(one.difference), one.id))
    return {
        "data": data,
        "range": formatting.days(data.first, data.last),
        "range_before": formatting.days(data.days_before[0], data.days_before[-1]),
        "empty": not (data.rows or data.experiments or data.days_read.intersection(data.days)),
        "compared": len(data.unread_before) < len(data.days_before),
        "caveats": caveats(data),
        "movers": [one for one in moved if one.difference][:MOVERS],
        "stacks": [(name, charts.stacked(data, width=width, height=height)) for name, width, height in STACKS],
        "series": charts.SERIES,
        "projects": used[:PROJECTS_SHOWN],
        "other_projects": len(used[PROJECTS_SHOWN:]),
        "other_projects_cost": total(one.cost for one in used[PROJECTS_SHOWN:]),
        "projects_cost": total(one.cost for one in used),
        "project_days": len({row["usage_date"] for row in data.projects or ()}),
        "most_expensive": ranking.most_expensive(data),
        "panels": [(panel, charts.scatter(panel, width=300, height=180)) for panel in panels],
        "panels_left_out": left_out,
        "shown": data.rows[:ROWS_SHOWN],
        "tenants": sorted({row["tenant_id"] for row in data.rows}),
        "embedded": _embedded(data),
    }


def _embedded(data: ReportData) -> str:
    """The daily costs with every digit, as JSON that can stand in a script element."""
    datasets = sorted({row["reference_dataset_id"] for row in data.rows})
    tenants = sorted({row["tenant_id"] for row in data.rows})
    places = {
        name: {key: index for index, key in enumerate(keys)}
        for name, keys in zip(_KEYS[1:], (tenants, datasets), strict=True)
    }
    measures = [name for name in DAILY_COST_BY_REFERENCE_DATASET.schema.names if name not in _KEYS]
    content = {
        "columns": [*_KEYS, *measures],
        "tenants": tenants,
        "datasets": [[key, data.labels[key]] for key in datasets],
        "csvNames": [formatting.spreadsheet_text(data.names.get(key, "")) for key in datasets],
        "rows": [
            [
                row["start_date"].isoformat(),
                *(places[name][row[name]] for name in _KEYS[1:]),
                *(row[name] for name in measures),
            ]
            for row in data.rows
        ],
        "file": f"daily_cost_by_reference_dataset_{data.first}_{data.last}.csv",
    }
    # Costs as text, because a script's numbers keep 15 digits.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=formatting.exact)
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
    for name in ("money", "exact", "count", "number", "day", "visible"):
        environment.filters[name] = getattr(formatting, name)
    for name in ("share", "change", "signed", "plural"):
        environment.globals[name] = getattr(formatting, name)
    environment.globals["demo"] = DEMO
    return environment


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")
