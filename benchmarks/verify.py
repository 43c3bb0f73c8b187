"""What a run left behind, read back after the clock has stopped: rows, the total cost, and whether it is exact."""

import json
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
from generate import digest


@dataclass(frozen=True, slots=True)
class Outcome:
    """`exact`: every sum per day and dataset equals the generator's to the last digit; None: sums are not its job."""

    rows: int | None
    total_cost: str | None
    daily_digest: str | None


def read_peer(folder: Path, output: str) -> Outcome:
    """A peer prints its rows as its last line and leaves `daily_cost.parquet`; the floor leaves nothing."""
    rows = json.loads(output.strip().splitlines()[-1])["rows"]
    file = folder / "daily_cost.parquet"
    if not file.exists():
        return Outcome(rows, None, None)
    found = duckdb.sql(f"SELECT day, reference_dataset_id, total_cost FROM '{file}'").fetchall()
    return _outcome(rows, found)


def read_lake(lake: Path) -> Outcome:
    """What our run left: rows of `sessions`, sums of `daily_cost_by_reference_dataset`."""
    [(rows,)] = duckdb.sql(f"SELECT count(*) FROM read_parquet('{lake}/sessions/*/*.parquet')").fetchall()
    daily = f"read_parquet('{lake}/daily_cost_by_reference_dataset/*/*.parquet', hive_partitioning = true)"
    found = duckdb.sql(f"SELECT start_date, reference_dataset_id, total_cost FROM {daily}").fetchall()
    return _outcome(rows, found)


def _outcome(rows: int, found: list[tuple[date, str, Decimal | float | None]]) -> Outcome:
    costs = {(str(day), dataset): Decimal(str(cost)) for day, dataset, cost in found if cost}
    plain = {group: _plain(cost) for group, cost in costs.items()}
    return Outcome(rows, _plain(sum(costs.values(), Decimal(0))), digest(plain))


def _plain(cost: Decimal) -> str:
    return format(cost.normalize(), "f")
