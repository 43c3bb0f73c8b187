"""What experiments cost by what they say about themselves, such as their models or their git branch."""

import json

import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.tables import column
from sessions_pipeline.tables.aggregate import SUMMED, conform, sums, tuples
from sessions_pipeline.tables.daily_cost_by_reference_dataset import (
    DAILY_COST_BY_REFERENCE_DATASET,
    DAILY_MEASURES,
    NEEDED,
    summed_costs,
)
from sessions_pipeline.tables.session_attributes import SESSION_ATTRIBUTES
from sessions_pipeline.tables.sessions import SESSIONS, experiments
from sessions_pipeline.tables.table import CheckResult, DayTables, Table, check, derived

DAILY_COST_BY_ATTRIBUTE = Table(
    "daily_cost_by_attribute",
    "What experiments cost by an attribute's value, by the UTC day they started; for each attribute the rows of a "
    "dataset add up to its row of `daily_cost_by_reference_dataset`.",
    (
        column.TENANT,
        column.EXPERIMENTS_DATASET,
        column.text("attribute", "The key of `extra.metadata`", nullable=False, repeats=True),
        column.text("value", "The attribute's value; null where the experiments do not say", repeats=True),
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
    by_attributes=True,
)
def daily_cost_by_attribute(day: DayTables) -> pa.Table:
    """The sums of one day for each of the day's `attributes`.

    Raises:
        SumOverflowError: a sum does not fit its column; the text names it.
    """
    found, tables = experiments(day, ("id", *NEEDED)), [DAILY_COST_BY_ATTRIBUTE.schema.empty_table()]
    names = list(dict.fromkeys(day.attributes))
    # Usual days' attributes are summed all at once: on a small day each sum takes longer to set up than to make.
    many = max(1, SUMMED // max(1, found.num_rows))
    for first in range(0, len(names), many):
        said = [_with_attribute(found, day[SESSION_ATTRIBUTES], name) for name in names[first : first + many]]
        summed = summed_costs(pa.concat_tables(said), DAILY_COST_BY_ATTRIBUTE.order)
        tables.append(conform(summed, DAILY_COST_BY_ATTRIBUTE.schema))
    return pa.concat_tables(tables)


def _with_attribute(experiments: pa.Table, attributes: pa.Table, attribute: str) -> pa.Table:
    said = attributes.filter(pc.equal(attributes.column("key"), attribute)).combine_chunks()
    places = pc.index_in(experiments.column("id"), value_set=said.column("session_id").combine_chunks())
    names = pa.repeat(pa.scalar(attribute), experiments.num_rows)
    return experiments.append_column("attribute", names).append_column("value", said.column("value").take(places))


@check(
    DAILY_COST_BY_ATTRIBUTE,
    "For each attribute, the rows of a dataset add up to the dataset's own row.",
    "The dataset's own cost holds, its attributes' do not; materialize daily_cost_by_attribute of these days again.",
    reads={
        DAILY_COST_BY_ATTRIBUTE: (*_GROUP, *_SUMMED),
        DAILY_COST_BY_REFERENCE_DATASET: (*DAILY_COST_BY_REFERENCE_DATASET.order, *_SUMMED),
    },
)
def attributes_add_up(day: DayTables) -> CheckResult:
    """Every count, token and cost of them, for the attributes that the file lists."""
    names = json.loads(day.metadata(DAILY_COST_BY_ATTRIBUTE).get("attributes", "[]"))
    daily = tuples(day[DAILY_COST_BY_REFERENCE_DATASET], *DAILY_COST_BY_REFERENCE_DATASET.order, *_SUMMED)
    expected = {(tenant, dataset, name): measures for tenant, dataset, *measures in daily for name in names}
    summed = tuples(sums(day[DAILY_COST_BY_ATTRIBUTE], _GROUP, _SUMMED), *_GROUP, *_SUMMED)
    found = {(tenant, dataset, name): measures for tenant, dataset, name, *measures in summed}
    broken = [key for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
    return CheckResult(
        tuple(f"{day.day} {attribute} of {dataset}" for _, dataset, attribute in broken),
        {"rows": day[DAILY_COST_BY_ATTRIBUTE].num_rows},
    )
