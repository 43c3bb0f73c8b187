"""The report as one HTML file: no network, no external file, and a script that only the page's own hash may run."""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from sessions_pipeline.outputs import formatting
from sessions_pipeline.outputs.report import charts, ranking
from sessions_pipeline.outputs.report.caveats import caveats
from sessions_pipeline.outputs.report.data import ReportData, Row
from sessions_pipeline.outputs.report.spending import Spending, spending
from sessions_pipeline.settings import DEMO
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET

if TYPE_CHECKING:
    from jinja2 import Environment

# What is in the page before its script runs, for readers without one.
ROWS_SHOWN = 50
PROJECTS_SHOWN = 10
MOVERS = 3

_WIDE, _NARROW, _PANEL = (1000, 300), (340, 250), (300, 180)
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
    spent = spending(data)
    found, left_out = ranking.panels(data, spent)
    used = ranking.projects(data)
    moved = sorted(spent.datasets, key=lambda one: (-abs(one.difference), one.id))
    return {
        "data": data,
        "range": formatting.days(data.first, data.last),
        "range_before": formatting.days(data.before[0], data.before[-1]),
        "spent": spent,
        "empty": not spent.rows and not data.experiments and not (data.days_read & set(data.days)),
        "compared": len(spent.unread_before) < len(data.before),
        "at_least": bool(spent.now.unpriced or spent.unread),
        "caveats": caveats(data, spent),
        "movers": [one for one in moved if one.difference][:MOVERS],
        "stack": _stack(data, spent),
        "series": charts.SERIES,
        "projects": used[:PROJECTS_SHOWN],
        "other_projects": len(used[PROJECTS_SHOWN:]),
        "other_projects_cost": formatting.total(one.cost for one in used[PROJECTS_SHOWN:]),
        "projects_cost": formatting.total(one.cost for one in used),
        "project_days": len({row["usage_date"] for row in data.projects or ()}),
        "projects_measured": data.projects is not None,
        "most_expensive": ranking.most_expensive(data),
        "panels": [(panel, _panel_svg(panel)) for panel in found],
        "panels_left_out": left_out,
        "shown": spent.rows[:ROWS_SHOWN],
        "embedded": _embedded(data, spent.rows),
    }


def _stack(data: ReportData, spent: Spending) -> dict[str, str] | None:
    if spent.now.cost is None:
        return None
    description = (
        f"Cost by {spent.unit}, stacked by dataset, {formatting.days(data.first, data.last)}: "
        f"{formatting.money(spent.now.cost)} in all. The tables below hold the same numbers."
    )
    return {
        name: charts.stacked(spent, width=width, height=height, description=description)
        for name, (width, height) in (("wide", _WIDE), ("narrow", _NARROW))
    }


def _panel_svg(panel: ranking.Panel) -> str:
    words = (
        f"{panel.score_key} by cost of {len(panel.best) + len(panel.others)} experiments; the list below names the best"
    )
    return charts.scatter(panel, width=_PANEL[0], height=_PANEL[1], description=words)


def _embedded(data: ReportData, rows: Sequence[Row]) -> str:
    """The daily costs with every digit, as JSON that can stand in a script element."""
    datasets = sorted({row["reference_dataset_id"] for row in rows})
    tenants = sorted({row["tenant_id"] for row in rows})
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
                *(_value(row[name], is_money=name.endswith("_cost")) for name in measures),
            ]
            for row in rows
        ],
        "file": f"daily_cost_by_reference_dataset_{data.first}_{data.last}.csv",
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # No markup can begin or end inside; the two separators are line ends to old scripts.
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _value(value: Any, *, is_money: bool) -> Any:
    if value is None:
        return None
    # As text, because a script's numbers keep 15 digits.
    return formatting.exact(value) if is_money else value


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
    for name in ("money", "exact", "count", "number", "day"):
        environment.filters[name] = getattr(formatting, name)
    for name in ("share", "change", "signed", "plural"):
        environment.globals[name] = getattr(formatting, name)
    environment.globals["demo"] = DEMO
    return environment


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")
