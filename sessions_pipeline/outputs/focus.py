"""A month's experiments as a FOCUS 1.2 dataset, the FinOps Foundation's open specification for cost data.

The columns are those of version 1.2 on https://focus.finops.org: all mandatory ones, others that we have values for,
and last our own, which begin with `x_`. Each row is an experiment, charged to the UTC day on which it started; the ends
of periods are exclusive. FOCUS allows no null costs, so experiments whose cost is unknown are left out and counted. The
quantity, which FOCUS requires, is the number of tokens or, if it is unknown, one experiment.

In three points we can't follow the specification: `BillingAccountName` is always null and `Tags` are left out, since
neither is known here, and `BilledCost` is the estimate, although nobody sends an invoice for it.
"""

from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sessions_pipeline.days import days_between, midnight, next_month_start
from sessions_pipeline.lake import Lake
from sessions_pipeline.outputs import write_named
from sessions_pipeline.outputs.formatting import day_ranges, spreadsheet_text
from sessions_pipeline.outputs.read import dataset_names
from sessions_pipeline.outputs.spending import Row
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, EXPERIMENT_SUMMARY
from sessions_pipeline.tables.aggregate import tuples
from sessions_pipeline.tables.day_metadata import incomplete_days, rebuilt_days
from sessions_pipeline.tables.readings import workspaces_of
from sessions_pipeline.validation.types import MONEY

# Times in seconds, because a CSV file shows all digits of finer units. Quantities with one decimal place, because
# readers of CSV take whole numbers for integers.
_TIME, _QUANTITY = pa.timestamp("s", "UTC"), pa.decimal128(20, 1)
_READ = ("id", "tenant_id", "reference_dataset_id", "name", "run_count", "total_tokens", "total_cost")
# The text columns, as templates. Who sends the invoice, and for how much, is unknown here: hence the estimates.
_TEXTS = {
    "BillingAccountId": "{tenant_id}",
    "BillingAccountType": "Workspace",
    "BillingCurrency": "USD",
    "ChargeCategory": "Usage",
    "ChargeFrequency": "Usage-Based",
    "ChargeDescription": "Estimate: model calls of the experiment {label}, without judges",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceSubcategory": "Generative AI",
    "ServiceName": "LangSmith experiments",
    **dict.fromkeys(("ProviderName", "InvoiceIssuerName"), "LangSmith (estimate)"),
    "PublisherName": "LangChain",
    **dict.fromkeys(("PricingUnit", "ConsumedUnit"), "{unit}"),
    "ResourceId": "{id}",
    "ResourceType": "Experiment",
}
_MAY_BE_NULL = ("BillingAccountName", "ChargeClass", "InvoiceId", "ResourceName")
SCHEMA = pa.schema(
    [
        *(pa.field(f"{kind}Cost", MONEY, nullable=False) for kind in ("Billed", "Effective", "List", "Contracted")),
        *(pa.field(f"{kind}Period{end}", _TIME, False) for kind in ("Billing", "Charge") for end in ("Start", "End")),
        *(pa.field(f"{kind}Quantity", _QUANTITY, nullable=False) for kind in ("Pricing", "Consumed")),
        *(pa.field(name, pa.string(), nullable=False) for name in _TEXTS),
        *(pa.field(name, pa.string()) for name in _MAY_BE_NULL),
        *(pa.field("x_DatasetId", pa.string(), nullable=False), pa.field("x_DatasetName", pa.string())),
        *(pa.field("x_RunCount", pa.int64()), pa.field("x_IsEstimate", pa.bool_(), nullable=False)),
    ],
    {"FocusVersion": "1.2", "DataGenerator": "sessions-pipeline"},
)


class Focus(NamedTuple):
    """A month's rows (of `SCHEMA`), and how many experiments were left out because their cost is unknown.

    `missing` names the days that were not read in every workspace since they were over, those that show what was known
    earlier (`--as-of`), and those that are not over, and says what to do; it is empty if there are none.
    """

    rows: pa.Table
    unknown: int
    missing: str


def focus_costs(lake: Lake, month: date, today: date) -> Focus:
    """The experiments of the month that begins on the day `month`. `today` is the current UTC day.

    The workspaces are those that any reading of the month names.

    Raises:
        LakeError: a file can't be read.
    """
    days = days_between(month, next_month_start(month) - timedelta(days=1))
    costs, files = lake.load_days(DAILY_COST_BY_REFERENCE_DATASET, days, ("is_day_over",))
    summaries, summed = lake.load_days(EXPERIMENT_SUMMARY, days, _READ)
    readings, rebuilt = lake.readings_of_days(days), rebuilt_days(files, summed)
    # Days that were rebuilt are named by themselves.
    read = rebuilt | (summed.keys() & files.keys()) - incomplete_days(costs, files, readings)
    known = [row for row in summaries.to_pylist() if row["total_cost"] is not None]
    names = dataset_names(lake, known, days)
    rows = [_row(row, month, names.get((row["tenant_id"], row["reference_dataset_id"]))) for row in known]
    where = " in every workspace" if len(workspaces_of(readings)) > 1 else ""
    missing = {
        f"not read{where} after their end; materialize them": {day for day in days if day < today} - read,
        "rebuilt by --as-of; materialize them without it": rebuilt,
        "not over yet; export the month when it is over": {day for day in days if day >= today},
    }
    text = ", and ".join(f"{day_ranges(found)}: {advice}" for advice, found in missing.items() if found)
    return Focus(pa.Table.from_pylist(rows, SCHEMA), summaries.num_rows - len(known), text)


def _row(experiment: Row, month: date, dataset: str | None) -> dict[str, Any]:
    day, tokens, name = experiment["start_date"], experiment["total_tokens"], (experiment["name"] or "").strip()
    quantity, unit = (1, "Experiments") if tokens is None else (tokens, "Tokens")
    periods = {"Billing": (month, next_month_start(month)), "Charge": (day, day + timedelta(days=1))}
    label = f"{name or experiment['id']} on {dataset or experiment['reference_dataset_id']}"
    return {
        **{field.name: experiment["total_cost"] for field in SCHEMA if field.type == MONEY},
        **{f"{kind}PeriodStart": midnight(start) for kind, (start, _) in periods.items()},
        **{f"{kind}PeriodEnd": midnight(end) for kind, (_, end) in periods.items()},
        **{f"{kind}Quantity": quantity for kind in ("Pricing", "Consumed")},
        **{column: text.format(**experiment, label=label, unit=unit) for column, text in _TEXTS.items()},
        "ResourceName": experiment["name"] if name else None,
        "x_DatasetId": experiment["reference_dataset_id"],
        "x_DatasetName": dataset,
        "x_RunCount": experiment["run_count"],
        "x_IsEstimate": True,
    }


def write_focus(rows: pa.Table, file: Path) -> str:
    """Write rows of `SCHEMA` as CSV if the file's name ends with `.csv`, else as Parquet; see `write_named`."""
    if file.suffix == ".csv":
        lines = chain([SCHEMA.names], tuples(rows, *SCHEMA.names))
        return write_named(file, "".join(f"{','.join(map(_cell, line))}\n" for line in lines).encode())
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return write_named(file, sink.getvalue().to_pybytes())


def _cell(value: str | Decimal | datetime | int | None) -> str:
    """A value in CSV: texts in quotes and never formulas, nothing for null. Arrow would write a zero as `0E-18`."""
    if isinstance(value, str):
        return '"{}"'.format(spreadsheet_text(value).replace('"', '""'))
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return f"{value:f}"
    return "" if value is None else str(value).lower()
