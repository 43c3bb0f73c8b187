"""`reference_datasets`: rows from the API's records, and how a new reading changes stored rows."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sessions_pipeline.tables import REFERENCE_DATASETS
from sessions_pipeline.tables.reference_datasets import dataset_rows, merge_datasets
from sessions_pipeline_tests.builders import NOON, OTHER_TENANT, TENANT, dataset, table_of, uuid

LATER = NOON + timedelta(hours=1)
# As `GET /api/v1/datasets` is documented.
OFFICIAL = {
    "name": "support-answers",
    "description": "Questions of last year",
    "created_at": "2025-06-02T09:30:00.123456+00:00",
    "data_type": "kv",
    "inputs_schema_definition": None,
    "outputs_schema_definition": None,
    "externally_managed": False,
    "transformations": None,
    "id": dataset(1),
    "tenant_id": TENANT,
    "example_count": 120,
    "session_count": 33,
    "modified_at": "2025-08-31T14:05:00Z",
    "last_session_start_time": "2026-01-02T03:04:05.678901",
    "baseline_experiment_id": uuid(7),
    "metadata": {"runtime": {"sdk": "langsmith-py"}, "n": 1.50},
}


def stored(*rows: Mapping[str, Any]) -> Any:
    return table_of("reference_datasets", rows)


def row(number: int, name: str = "golden", *, read_at: datetime = NOON, **columns: Any) -> dict[str, Any]:
    empty = dict.fromkeys(REFERENCE_DATASETS.schema.names)
    return {**empty, "id": dataset(number), "tenant_id": TENANT, "name": name, "read_at": read_at, **columns}


def merged(
    before: Sequence[Mapping[str, Any]], read: Sequence[Mapping[str, Any]], listed: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """The rows after a reading at `LATER`, by the dataset's id."""
    rows = merge_datasets(stored(*before), read, listed, LATER).to_pylist()
    assert len({(one["tenant_id"], one["id"]) for one in rows}) == len(rows)
    return {one["id"]: one for one in rows}


def test_a_record_of_the_official_shape_becomes_a_row() -> None:
    assert dataset_rows([json.dumps(OFFICIAL)], NOON) == [
        {
            "id": dataset(1),
            "tenant_id": TENANT,
            "name": "support-answers",
            "description": "Questions of last year",
            "data_type": "kv",
            "created_at": datetime(2025, 6, 2, 9, 30, 0, 123456, UTC),
            "modified_at": datetime(2025, 8, 31, 14, 5, tzinfo=UTC),
            "example_count": 120,
            "baseline_experiment_id": uuid(7),
            "metadata": '{"runtime": {"sdk": "langsmith-py"}, "n": 1.5}',
            "read_at": NOON,
            "missing_since": None,
        }
    ]


@pytest.mark.parametrize("name", ["", " ", "two\nlines\x1b[31m", "a\x00b", "契約 🎉", "x" * 5000])
def test_any_text_is_a_name_and_kept_as_sent(name: str) -> None:
    (found,) = dataset_rows([json.dumps({**OFFICIAL, "name": name, "id": dataset(1).upper()})], NOON)
    assert (found["name"], found["id"]) == (name, dataset(1))
    assert merge_datasets(REFERENCE_DATASETS.schema.empty_table(), [found], (), NOON).to_pylist() == [found]


@pytest.mark.parametrize(
    "payload",
    [
        *("1", "{", '{"id": "x"}', "NaN"),
        *(json.dumps({**OFFICIAL, name: value}) for name in ("id", "tenant_id", "name") for value in (None, 7)),
        json.dumps({**OFFICIAL, "name": "\ud800"}),
    ],
)
def test_a_dataset_that_can_not_be_stored_is_left_out_and_all_others_are_kept(payload: str) -> None:
    assert [one["name"] for one in dataset_rows([payload, json.dumps(OFFICIAL)], NOON)] == ["support-answers"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("created_at", "yesterday"), ("modified_at", 5), ("description", ["x"]), ("data_type", {})),
        *(("example_count", "many"), ("example_count", 2**63), ("baseline_experiment_id", "x"), ("metadata", "x")),
    ],
)
def test_a_value_that_can_not_be_read_is_unknown(name: str, value: object) -> None:
    (found,) = dataset_rows([json.dumps({**OFFICIAL, name: value})], NOON)
    assert found[name] is None
    assert found["name"] == "support-answers"


def test_a_renamed_dataset_has_its_new_name_and_all_others_stay() -> None:
    after = merged([row(1, "old"), row(2, "other")], [row(1, "new", read_at=LATER)])
    assert after == {dataset(1): row(1, "new", read_at=LATER), dataset(2): row(2, "other")}


def test_only_a_full_list_marks_a_dataset_as_missing_and_since_when() -> None:
    assert merged([row(1), row(2)], [row(2, read_at=LATER)])[dataset(1)]["missing_since"] is None
    after = merged([row(1), row(2), row(3, missing_since=NOON)], [row(2, read_at=LATER)], {TENANT})
    assert after == {
        dataset(1): row(1, missing_since=LATER),
        dataset(2): row(2, read_at=LATER),
        dataset(3): row(3, missing_since=NOON),
    }


@pytest.mark.parametrize("listed", [(), {TENANT}])
def test_a_dataset_that_returns_is_no_longer_missing(listed: Collection[str]) -> None:
    after = merged([row(1, missing_since=NOON)], [row(1, read_at=LATER)], listed)
    assert after == {dataset(1): row(1, read_at=LATER)}


def test_workspaces_that_were_not_read_keep_their_rows() -> None:
    other = row(1, tenant_id=OTHER_TENANT)
    assert merged([other], [], {TENANT}) == {dataset(1): other}


def test_two_datasets_of_one_name_are_two_rows() -> None:
    rows = [row(1, read_at=LATER), row(2, read_at=LATER)]
    assert list(merged([], rows, {TENANT}).values()) == rows


def test_an_earlier_reading_that_is_stored_late_changes_nothing() -> None:
    newest = LATER + timedelta(minutes=1)
    before = [row(1, "newest", read_at=newest), row(2, read_at=newest), row(3, missing_since=newest)]
    read = [row(1, "late", read_at=LATER), row(3, read_at=LATER)]
    assert list(merged(before, read, {TENANT}).values()) == before
