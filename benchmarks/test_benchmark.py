"""Tests of the benchmark itself, with only the standard library and pytest: `pytest benchmarks`."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from generate import Manifest, digest, write
from server import Records

SESSIONS = 2_000


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("records")
    return folder, write(folder, SESSIONS, 10)


@pytest.fixture(scope="module")
def endpoint(records: tuple[Path, Manifest]) -> Iterator[str]:
    command = [sys.executable, Path(__file__).parent / "server.py", records[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


def ask(endpoint: str, query: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{endpoint}/api/v1/sessions?{query}") as answer:
        return list(json.load(answer))


def everything(folder: Path) -> list[dict[str, Any]]:
    records = Records(folder, "full")
    parts = (records.page(offset, 100, descending=False) for offset in range(0, records.count, 100))
    return [session for page in parts for session in json.loads(b"".join(page))]


def test_the_same_arguments_give_the_same_bytes(records: tuple[Path, Manifest], tmp_path: Path) -> None:
    assert write(tmp_path, SESSIONS, 10) == records[1]
    assert (tmp_path / "full.bin").read_bytes() == (records[0] / "full.bin").read_bytes()


def test_sessions_are_like_the_apis_in_size_and_have_unique_ascending_start_times(
    records: tuple[Path, Manifest],
) -> None:
    starts = [session["start_time"] for session in everything(records[0])]
    assert starts == sorted(set(starts))
    assert 1_400 < records[1].bytes_full / SESSIONS < 1_520
    assert len({start[:10] for start in starts}) == 10


def test_the_manifest_tells_the_sums_that_the_records_have(records: tuple[Path, Manifest]) -> None:
    costs: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for session in everything(records[0]):
        if session["reference_dataset_id"] and session["total_cost"]:
            assert Decimal(session["prompt_cost"]) + Decimal(session["completion_cost"]) == Decimal(
                session["total_cost"]
            )
            costs[session["start_time"][:10], session["reference_dataset_id"]] += Decimal(session["total_cost"])
    texts = {group: format(cost.normalize(), "f") for group, cost in costs.items() if cost}
    assert digest(texts) == records[1].daily_digest
    assert sum(costs.values()) == Decimal(records[1].total_cost)


def test_pages_join_to_everything_in_both_orders(endpoint: str, records: tuple[Path, Manifest]) -> None:
    ascending = everything(records[0])
    for descending, expected in ((True, ascending[::-1]), (False, ascending)):
        query = f"include_stats=true&sort_by=start_time&sort_by_desc={str(descending).lower()}&limit=97"
        pages = [ask(endpoint, f"{query}&offset={offset}") for offset in range(0, SESSIONS + 97, 97)]
        assert [session for page in pages for session in page] == expected


def test_without_stats_every_stat_is_null(endpoint: str) -> None:
    [bare], [full] = ask(endpoint, "limit=1&offset=5"), ask(endpoint, "limit=1&offset=5&include_stats=true")
    assert bare["id"] == full["id"]
    assert bare.keys() == full.keys()
    assert bare["total_cost"] is bare["feedback_stats"] is bare["run_count"] is None


def test_the_datasets_are_those_of_the_records(endpoint: str, records: tuple[Path, Manifest]) -> None:
    with urllib.request.urlopen(f"{endpoint}/api/v1/datasets?limit=100&offset=0") as answer:
        served = {(one["tenant_id"], one["id"]) for one in json.load(answer)}
        assert int(answer.headers["X-Pagination-Total"]) == len(served)
    sessions = everything(records[0])
    assert served == {
        (one["tenant_id"], one["reference_dataset_id"]) for one in sessions if one["reference_dataset_id"]
    }


@pytest.mark.parametrize("query", ["limit=101", "limit=0", "offset=-1", "sort_by=name", "name=x"])
def test_what_is_not_served_is_refused(endpoint: str, query: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="422"):
        ask(endpoint, query)


def test_requests_are_counted(endpoint: str) -> None:
    def count() -> dict[str, float]:
        with urllib.request.urlopen(f"{endpoint}/counters") as answer:
            return dict(json.load(answer))

    count()
    ask(endpoint, "limit=7&include_stats=true")
    counted = count()
    assert (counted["requests"], counted["records_with_stats"]) == (1, 7)
    assert count()["requests"] == 0
