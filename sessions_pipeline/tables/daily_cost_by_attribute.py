"""Daily costs of experiments by the values of their attributes, such as their models or their git branch."""

import json
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import ROWS_PER_SUM, sums, tuples
from sessions_pipeline.tables.daily_cost_by_reference_dataset import (
    DAILY_COST_BY_REFERENCE_DATASET,
    DAILY_MEASURES,
    NEEDED,
    summed_costs,
)
from sessions_pipeline.tables.session_attributes import SESSION_ATTRIBUTES
from sessions_pipeline.tables.sessions import SESSIONS, experiments
from sessions_pipeline.tables.table import ATTRIBUTES, CheckResult, DayTables, Table, Tables, check, derived

DAILY_COST_BY_ATTRIBUTE = Table(
    "daily_cost_by_attribute",
    "Costs of experiments by the value of an attribute and the UTC day they started. For each attribute, the rows of a "
    "dataset add up to its row in `daily_cost_by_reference_dataset`.",
    (
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        column.text("attribute", "The key of `extra.metadata`", nullable=False),
        column.text("value", "The attribute's value; null for experiments without this attribute"),
        *DAILY_MEASURES,
    ),
    order=("tenant_id", "reference_dataset_id", "attribute", "value"),
    group="costs",
)
_GROUP = ("tenant_id", "reference_dataset_id", "attribute")
_SUMMED = tuple(column.name for column in DAILY_MEASURES)


@derived(
    DAILY_COST_BY_ATTRIBUTE,
    reads={SESSIONS: ("id", *NEEDED), SESSION_ATTRIBUTES: ("session_id", "key", "value")},
    takes=("attributes",),
)
def daily_cost_by_attribute(tables: Tables, attributes: Iterable[str]) -> pa.Table:
    """The sums of one day for each of these attributes.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    rows, summed = experiments(tables, ("id", *NEEDED)), list[pa.Table]()
    names = list(dict.fromkeys(attributes))
    # Sum several attributes at once, usually all: on a small day, setting up a sum takes longer than computing it.
    at_once = max(1, ROWS_PER_SUM // max(1, rows.num_rows))
    for first in range(0, len(names), at_once):
        batch = [_with_attribute(rows, tables[SESSION_ATTRIBUTES], name) for name in names[first : first + at_once]]
        summed.append(summed_costs(pa.concat_tables(batch), DAILY_COST_BY_ATTRIBUTE.order))
    return pa.concat_tables(summed or [DAILY_COST_BY_ATTRIBUTE.schema.empty_table()])


def attributes_of(metadata: Mapping[str, str]) -> list[str]:
    """The attributes that a file was summed by, from its metadata; none if another program wrote it."""
    return list(json.loads(metadata.get(ATTRIBUTES, "[]")))


def _with_attribute(experiments: pa.Table, attributes: pa.Table, attribute: str) -> pa.Table:
    """The experiments with the columns `attribute` and `value`; the value is null where an experiment has none."""
    values = attributes.filter(pc.equal(attributes.column("key"), attribute)).combine_chunks()
    indices = pc.index_in(experiments.column("id"), value_set=values.column("session_id").combine_chunks())
    names = pa.repeat(pa.scalar(attribute), experiments.num_rows)
    return experiments.append_column("attribute", names).append_column("value", values.column("value").take(indices))


@check(
    DAILY_COST_BY_ATTRIBUTE,
    "For each attribute, the rows of a dataset add up to its row in daily_cost_by_reference_dataset.",
    "Total costs hold, costs by attribute do not; materialize daily_cost_by_attribute again for these days.",
    reads={
        DAILY_COST_BY_ATTRIBUTE: (*_GROUP, *_SUMMED),
        DAILY_COST_BY_REFERENCE_DATASET: (*DAILY_COST_BY_REFERENCE_DATASET.order, *_SUMMED),
    },
)
def attributes_add_up(day: DayTables) -> CheckResult:
    """Compares every count, token sum and cost, for the attributes that the file's metadata lists."""
    names = attributes_of(day.metadata(DAILY_COST_BY_ATTRIBUTE))
    daily = tuples(day[DAILY_COST_BY_REFERENCE_DATASET], *DAILY_COST_BY_REFERENCE_DATASET.order, *_SUMMED)
    expected = {(tenant, dataset, name): measures for tenant, dataset, *measures in daily for name in names}
    summed = tuples(sums(day[DAILY_COST_BY_ATTRIBUTE], _GROUP, _SUMMED), *_GROUP, *_SUMMED)
    found = {(tenant, dataset, name): measures for tenant, dataset, name, *measures in summed}
    wrong = [key for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
    broken = tuple(f"{day.day} {attribute} of {dataset}" for _, dataset, attribute in wrong)
    return CheckResult(broken, {"rows": day[DAILY_COST_BY_ATTRIBUTE].num_rows})
