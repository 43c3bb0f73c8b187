"""What datasets are called, as the API's list of datasets says. The only place of names: a rename changes no history.

Rules:

- The latest reading of a dataset counts, so a rename is taken over.
- A dataset is missing from the reading on in which a full list, read to its proven end, did not have it; it keeps its
  row, and is there again as soon as any reading has it.
- Rows of workspaces that were not read stay as they are.
- A value that can't be read is null. A dataset without a workspace, an id or a name can't be stored.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa

from sessions_pipeline.tables import column
from sessions_pipeline.tables.table import Table
from sessions_pipeline.validation.json_text import split_record
from sessions_pipeline.validation.rules import INTEGER, OBJECT, STRING, TIME, UUID

REFERENCE_DATASETS = Table(
    "reference_datasets",
    "What datasets are called: one row for each that the API has listed, kept when it is deleted.",
    (
        column.text("id", "The dataset, canonical UUID", nullable=False),
        column.text("tenant_id", "The workspace that the dataset belongs to, canonical UUID", nullable=False),
        column.text("name", "What it is called now; two may bear one name", nullable=False),
        column.text("description", "What its owners say of it"),
        column.text("data_type", "The kind of its examples: `kv`, `llm` or `chat`"),
        column.time("created_at", "When it was made"),
        column.time("modified_at", "When it, or an example of it, was changed last"),
        column.count("example_count", "How many examples it has"),
        column.text("baseline_experiment_id", "The experiment that others are compared with, canonical UUID"),
        column.text("metadata", "What its owners attached to it, JSON text as sent"),
        column.time("read_at", "When the reading that the row comes from began", nullable=False),
        column.time("missing_since", "When a full list first lacked it; null while it is there"),
    ),
    order=("tenant_id", "name", "id"),
    partition=None,
    group="costs",
)
_RULES = {
    **dict.fromkeys(("id", "tenant_id", "baseline_experiment_id"), UUID),
    **dict.fromkeys(("name", "description", "data_type"), STRING),
    **dict.fromkeys(("created_at", "modified_at"), TIME),
    "example_count": INTEGER,
    "metadata": OBJECT,
}
Row: TypeAlias = Mapping[str, Any]


def dataset_rows(payloads: Iterable[str], read_at: datetime) -> list[Row]:
    """A row for each of the API's records, but for those that can't be stored."""
    rows = [{**_values(payload), "read_at": read_at, "missing_since": None} for payload in payloads]
    return [row for row in rows if None not in (row["id"], row["tenant_id"], row["name"])]


def merge_datasets(
    stored: pa.Table | None, read: Sequence[Row], listed: Collection[str], read_at: datetime
) -> pa.Table:
    """The table after a reading that began at `read_at`: its rows, and of which workspaces they are a full list.

    Rows of a later reading, which another run has stored in the meantime, stand.
    """
    known = {(row["tenant_id"], row["id"]): row for row in (stored.to_pylist() if stored else ())}
    later = {key for key, row in known.items() if row["read_at"] > read_at}
    found = {key: row for row in read if (key := (row["tenant_id"], row["id"])) not in later}
    gone = {
        key: {**row, "missing_since": row["missing_since"] or read_at}
        for key, row in known.items()
        if key[0] in listed and key not in later
    }
    return pa.Table.from_pylist(list({**known, **gone, **found}.values()), REFERENCE_DATASETS.schema)


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
