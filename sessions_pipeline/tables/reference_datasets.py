"""Datasets and their names, from the API's list. Names are stored nowhere else, so a rename changes no history.

Rules:

- The latest reading of a dataset counts, so renames are followed.
- A dataset is missing from the first full list on (one read to its proven end) that does not contain it. It keeps its
  row, and stops being missing as soon as any reading returns it.
- Rows of workspaces that were not read stay as they are.
- A value that can't be parsed is null. A dataset without a valid workspace, id or name is not stored.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.table import Table
from sessions_pipeline.validation.json_text import split_record
from sessions_pipeline.validation.rules import RULES

REFERENCE_DATASETS = Table(
    "reference_datasets",
    "Datasets and their current names: one row per dataset that the API has ever listed, kept when it is deleted.",
    (
        column.text("id", "The dataset, canonical UUID", nullable=False),
        column.text("tenant_id", "The workspace that the dataset belongs to, canonical UUID", nullable=False),
        column.text("name", "Its current name; several datasets can share one", nullable=False),
        column.text("description", "Its description"),
        column.text("data_type", "The kind of its examples: `kv`, `llm` or `chat`"),
        column.time("created_at", "When it was created"),
        column.time("modified_at", "When it or one of its examples was last changed"),
        column.count("example_count", "Number of its examples"),
        column.text("baseline_experiment_id", "The experiment that others are compared with, canonical UUID"),
        column.text("metadata", "Its metadata, JSON text as sent"),
        column.time("read_at", "When the reading began that the row comes from", nullable=False),
        column.time("missing_since", "Time of the first full list without it; null while the API lists it"),
    ),
    order=("tenant_id", "name", "id"),
    partition_column=None,
    group="costs",
)
_RULES = {
    **dict.fromkeys(("id", "tenant_id", "baseline_experiment_id"), RULES[UUID]),
    **dict.fromkeys(("name", "description", "data_type"), RULES[str]),
    **dict.fromkeys(("created_at", "modified_at"), RULES[datetime]),
    "example_count": RULES[int],
    "metadata": RULES[dict[str, Any]],
}
Row: TypeAlias = Mapping[str, Any]


def dataset_rows(payloads: Iterable[str], read_at: datetime) -> list[Row]:
    """The rows of the API's records (JSON texts), without those that lack a valid id, workspace or name."""
    rows = [{**_values(payload), "read_at": read_at, "missing_since": None} for payload in payloads]
    return [row for row in rows if None not in (row["id"], row["tenant_id"], row["name"])]


def merge_datasets(stored: pa.Table, read: Sequence[Row], listed: Collection[str], read_at: datetime) -> pa.Table:
    """Merge a reading into the table. What another run has stored from a later reading stays.

    Args:
        stored: the table as it is.
        read: the rows of the reading, see `dataset_rows`.
        listed: the workspaces of which these rows are a full list.
        read_at: when the reading began.
    """
    known = {(row["tenant_id"], row["id"]): row for row in stored.to_pylist()}
    later = {key for key, row in known.items() if max(row["read_at"], row["missing_since"] or read_at) > read_at}
    found = {key: row for row in read if (key := (row["tenant_id"], row["id"])) not in later}
    missing = {
        key: {**row, "missing_since": row["missing_since"] or read_at}
        for key, row in known.items()
        if key[0] in listed and key not in later
    }
    return pa.Table.from_pylist(list({**known, **missing, **found}.values()), REFERENCE_DATASETS.schema)


def _values(payload: str) -> dict[str, Any]:
    try:
        sent: Mapping[str, Any] = split_record(payload)
    except ValueError:
        sent = {}
    values: dict[str, Any] = dict.fromkeys(_RULES)
    for name, rule in _RULES.items():
        with suppress(ValueError):
            values[name] = rule.value(bytes(sent.get(name, b"null")))
    return values
