"""The report as one HTML file, without network or other files. Its policy allows only its own script, by hash."""

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined

from sessions_pipeline.outputs import formatting, judges_command
from sessions_pipeline.outputs.report import charts
from sessions_pipeline.outputs.report.caveats import caveats
from sessions_pipeline.outputs.report.data import ReportData
from sessions_pipeline.outputs.spending import Row, totals_by, with_judges
from sessions_pipeline.settings import DEMO
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET
from sessions_pipeline.tables.aggregate import EXACT, sums, total, tuples
from sessions_pipeline.tables.rows import PART

# How many rows of the table are in the HTML; the script adds the others.
ROWS_SHOWN = 50
# How many experiments and projects are listed, and how many datasets whose costs rose or fell are named.
MOST_EXPENSIVE = 10
MOVERS = 3

# The chart is drawn twice, for wide and for narrow screens: CSS class, width and height.
STACKS = (("wide", 1000, 300), ("narrow", 340, 250))


def projects(data: ReportData) -> list[Row]:
    """The tracing projects of the period, the most expensive first; none if usage by project was not measured.

    Each has its `id` and latest `name`, the sum of its `cost`, the number of its `days`, and how many of these are
    exact, and have no known cost.
    """
    rows = data.projects.filter(pc.field("reference_dataset_id").is_null()).sort_by("usage_date")
    ids, costs, names = rows.column("id"), rows.column("total_cost"), dict(tuples(rows, "id", "name"))
    measures = {"cost": costs, "exact_days": rows.column("is_exact"), "unknown_days": costs.is_null()}
    summed = sums(pa.table({"id": ids, **measures}), ["id"], [*measures]).to_pylist()
    found = [{**one, "name": names[one["id"]], "days": one["rows"]} for one in summed]
    return sorted(found, key=lambda one: (one["cost"] is None, -(one["cost"] or 0), one["id"]))


def most_expensive(experiments: pa.Table) -> pa.Table:
    """The experiments with the highest known costs of their own, the most expensive first."""
    known = experiments.filter(pc.field("total_cost").is_valid())
    return known.take(pc.sort_indices(known, [("total_cost", "descending"), ("id", "ascending")])[:MOST_EXPENSIVE])


def main_score(row: Row) -> tuple[str, float] | None:
    """The key and average of the feedback that an experiment got most often, or None.

    If the feedback is on the session and not on its runs, the key is followed by `(session)`.
    """
    scores = row["scores"] or ()
    main = min(scores, key=lambda score: (-(score["count"] or 0), score["feedback_key"]), default=None)
    if main is None:
        return None
    scope = " (session)" if main["scope"] == "session" else ""
    return f"{formatting.visible(main['feedback_key'])}{scope}", main["average"]


def build_report(data: ReportData) -> bytes:
    """The whole report as HTML, in UTF-8. The same data always give the same bytes."""
    used, script, experiments = projects(data), _resource("script.js"), most_expensive(data.experiments)
    judges = data.judges.filter(pc.is_in(data.judges.column("id"), experiments.column("id").combine_chunks()))
    totals = totals_by(data.costs_now, data.judge_costs, lambda row: row["reference_dataset_id"])
    judged = [(dataset, totals[dataset.key]) for dataset in data.datasets if dataset.key in totals]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    content = {
        "data": data,
        "caveats": caveats(data),
        "rises": [one for one in data.movers if (one.difference or 0) > 0][:MOVERS],
        "falls": [one for one in data.movers if (one.difference or 0) < 0][:MOVERS],
        # Datasets after the first are named only if they make up 5 % of the whole change.
        "least_moved": EXACT.divide((data.whole.difference or Decimal(0)).copy_abs(), 20),
        "ranks": {one.key: place for place, one in enumerate(data.datasets)},
        "stacks": [(name, charts.stacked(data, width=width, height=height)) for name, width, height in STACKS],
        "series": charts.SERIES,
        "projects": used[:MOST_EXPENSIVE],
        "other_projects": used[MOST_EXPENSIVE:],
        "most_expensive": [(row, main_score(row)) for row in with_judges(experiments.to_pylist(), judges.to_pylist())],
        # The highest sum of own costs and judges' costs comes first.
        "judged": sorted(judged, key=lambda pair: -(pair[1].whole_cost or 0)),
        "shown": data.rows.slice(0, ROWS_SHOWN).to_pylist(),
        "tenants": data.rows.column("tenant_id").unique(),
        "embedded": _embedded(data),
        "style": _resource("style.css"),
        "script": script,
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
    }
    # Encoded part by part: as one text, a page of many rows would take four times its size.
    return b"".join(part.encode() for part in _environment().get_template("report.html.j2").generate(content))


def _embedded(data: ReportData) -> Iterator[str]:
    """The daily costs with all digits, as JSON that is safe inside a `script` element, in parts."""
    columns = ["start_date", *DAILY_COST_BY_REFERENCE_DATASET.schema.names]
    datasets = sorted(data.rows.column("reference_dataset_id").unique().to_pylist())
    content = {
        "columns": columns,
        "names": {key: data.labels[key] for key in datasets},
        "csvNames": {key: formatting.spreadsheet_text(data.names.get(key, "")) for key in datasets},
        "file": f"daily_cost_by_reference_dataset_{data.first}_{data.last}.csv",
    }
    yield f'{_json(content)[:-1]},"rows":['
    for start in range(0, data.rows.num_rows, PART):
        yield ("," if start else "") + _json([*tuples(data.rows.slice(start, PART), *columns)])[1:-1]
    yield "]}"


def _json(value: Any) -> str:
    def text_of(value: date | Decimal) -> str:
        # Costs as text, because JavaScript's numbers keep only 15 digits.
        return value.isoformat() if isinstance(value, date) else formatting.exact(value)

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=text_of)
    # Escaped, so that no markup can begin or end inside; old browsers take the two separators for line ends.
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("money", "exact", "count", "day", "month", "visible", "share", "change", "signed", "plural", "days"):
        environment.filters[name] = environment.globals[name] = getattr(formatting, name)
    environment.filters["total"] = total
    environment.globals |= {"demo": DEMO, "judges_command": judges_command, "at_least_text": formatting.at_least}
    return environment


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")
