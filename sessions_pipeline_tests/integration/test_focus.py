"""`export focus` exports a month of experiments by the rules of FOCUS 1.2, as Parquet and CSV, with exact amounts."""

import csv
import io
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from sessions_pipeline.cli import main
from sessions_pipeline.days import midnight
from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake import Lake
from sessions_pipeline.outputs.focus import SCHEMA, focus_costs, write_focus
from sessions_pipeline.outputs.formatting import day_ranges
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, DERIVED, EXPERIMENT_SUMMARY, SESSIONS, Table
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline_tests.builders import NOON, OTHER_TENANT, TENANT, dataset, experiment, sessions_table, uuid
from sessions_pipeline_tests.days import derive
from sessions_pipeline_tests.full_disk import files_up_to
from sessions_pipeline_tests.integration.test_reading import DAYS, NUMBERS, fill, sessions_of

# The columns with the feature level "mandatory" in the specification, by data type, and those that may be null.
COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
TIMES = ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart")
TEXTS = (
    *("BillingAccountId", "BillingAccountName", "BillingCurrency", "ChargeCategory", "ChargeClass", "PricingUnit"),
    *("ChargeDescription", "InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName"),
)
MANDATORY = {*COSTS, *TIMES, *TEXTS, "PricingQuantity"}
MAY_BE_NULL = {"BillingAccountName", "ChargeClass", "InvoiceId", "ResourceName", "x_DatasetName", "x_RunCount"}
ALLOWED = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "ServiceCategory": {"AI and Machine Learning"},
    "ServiceSubcategory": {"Generative AI"},
    "BillingCurrency": {"USD"},
}
MARCH = date(2025, 3, 1)
LATER = date(2025, 6, 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("focus")
    fill(root)
    return root


def lake_of(root: Path, *rows: dict[str, Any], **more: Any) -> Lake:
    """A lake with these experiments on its first day. `more` are options for that day."""
    lake = Lake.open(str(root), query={})
    tables = {SESSIONS: sessions_table(*rows)}
    for table in DERIVED:
        tables[table] = derive(table, tables, **more)
        lake.replace(table, NOON.date(), tables[table], {})
    return lake


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_the_rows_conform_to_the_specification(root: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"march.{kind}"
    write_focus(focus_costs(Lake.open(str(root), query={}), MARCH, LATER).rows, file)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.sql(f"FROM '{file}'")
        types = dict(zip(rows.columns, map(str, rows.types), strict=True))
        found = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
    assert types.keys() >= MANDATORY
    assert {field.name for field in SCHEMA if field.nullable} == MAY_BE_NULL
    ours = [name for name in types if name.startswith("x_")]
    assert list(types)[-len(ours) :] == ours, "custom columns come after all others"
    assert all(name[0].isupper() for name in types if name not in ours)
    for name in (*COSTS, "PricingQuantity", "ConsumedQuantity"):
        assert types[name].startswith("DECIMAL" if kind == "parquet" else "DOUBLE"), name
    for name in TIMES:
        assert types[name] in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP"), name
    for row in found:
        assert {name for name, value in row.items() if value is None} <= MAY_BE_NULL
        assert all(row[name] in values for name, values in ALLOWED.items())
        assert row["ChargeClass"] is None  # null unless a row corrects an earlier period
        assert row["BilledCost"] == row["ContractedCost"] == row["EffectiveCost"] == row["ListCost"] >= 0
        assert row["ChargePeriodEnd"] - row["ChargePeriodStart"] == timedelta(days=1)
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert (row["BillingPeriodStart"].day, row["BillingPeriodEnd"].day) == (1, 1)
        assert not {value for value in row.values() if isinstance(value, str) and not value.strip()}
    assert len({row["ResourceId"] for row in found}) == len(found) > 0


def test_every_known_cost_is_exported_exactly_and_unknown_ones_are_counted(root: Path) -> None:
    found = focus_costs(Lake.open(str(root), query={}), MARCH, LATER)
    experiments = [row for number in NUMBERS for row in sessions_of(number) if row["reference_dataset_id"]]
    known = {row["id"]: Decimal(str(row["total_cost"])) for row in experiments if row["total_cost"] is not None}
    rows = found.rows.to_pylist()
    assert {row["ResourceId"]: row["BilledCost"] for row in rows} == known
    assert found.unknown == len(experiments) - len(known) > 0
    assert {row["x_DatasetName"] for row in rows} == {"support-answers", "query-rewrite"}
    assert all(row["x_DatasetName"] in row["ChargeDescription"] for row in rows)
    starts = {row["id"]: row["start_time"].date() for row in experiments}
    assert all(row["ChargePeriodStart"].date() == starts[row["ResourceId"]] for row in rows)


def test_every_row_says_that_it_is_an_estimate_of_one_workspace(tmp_path: Path) -> None:
    rows = [experiment(1, total_cost="1.5"), experiment(2, total_cost="0.5", tenant_id=OTHER_TENANT, total_tokens=7)]
    found = focus_costs(lake_of(tmp_path, *rows), MARCH, LATER).rows.to_pylist()
    assert {row["BillingAccountId"] for row in found} == {TENANT, OTHER_TENANT}
    for row in found:
        assert row["ProviderName"] == row["InvoiceIssuerName"] == "LangSmith (estimate)"
        assert row["ChargeDescription"].startswith("Estimate: ")
        assert row["x_IsEstimate"] is True


def test_unknown_tokens_are_one_experiment_and_no_name_is_null(tmp_path: Path) -> None:
    rows = [
        experiment(1, name=" ", total_cost="1e-18"),
        experiment(2, name="=1+1", total_cost="12345678901234567890.123456789012345678", total_tokens=7),
    ]
    none = experiment(3, name="none", total_cost="2", total_tokens=0)
    found = focus_costs(lake_of(tmp_path, *rows, none), MARCH, LATER).rows
    quantities = found.select(["PricingQuantity", "PricingUnit", "ResourceName"]).to_pylist()
    of_unknown, *others = [tuple(row.values()) for row in quantities]
    assert (of_unknown, others) == ((1, "Experiments", None), [(7, "Tokens", "=1+1"), (0, "Tokens", "none")])
    write_focus(found, tmp_path / "out.csv")
    text = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
    costs = [Decimal("1e-18"), Decimal(str(rows[1]["total_cost"])), Decimal(2)]
    assert [Decimal(cost) for cost in text["BilledCost"]] == costs
    assert text["ChargePeriodStart"].to_list() == ["2025-03-03T00:00:00Z"] * 3
    assert text["x_DatasetName"].to_list() == [None] * 3
    assert dataset(1) in text["ChargeDescription"][0]
    assert uuid(1) in text["ChargeDescription"][0]


def test_csv_says_every_digit_without_an_exponent_texts_in_quotes_and_nothing_for_null(tmp_path: Path) -> None:
    costs = ("0", "1e-18", "12345678901234567890.123456789012345678")
    rows = [
        experiment(number, name='a "b",\nc' if number else " ", total_cost=cost, total_tokens=3 * 10**18)
        for number, cost in enumerate(costs)
    ]
    write_focus(focus_costs(lake_of(tmp_path, *rows), MARCH, LATER).rows, tmp_path / "out.csv")
    text = (tmp_path / "out.csv").read_bytes().decode()
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    plain = ["0.000000000000000000", "0.000000000000000001", costs[2]]
    assert [[row[name] for name in COSTS] for row in found] == [[cost] * 4 for cost in plain]
    assert [row["ResourceName"] for row in found] == ["", 'a "b",\nc', 'a "b",\nc']
    assert {row["PricingQuantity"] for row in found} == {"3000000000000000000.0"}
    assert {row["ChargePeriodStart"] for row in found} == {"2025-03-03T00:00:00Z"}
    assert text.count(',"a ""b"",\nc",') == text.count(',"Usage",') - 1 == 2
    assert text.count(",true\n") == len(found)
    assert ',"",' not in text, "which is no null"


@pytest.mark.parametrize("name", ['=HYPERLINK("https://example.com/?"&A1)', "+1", "@SUM(A1)", "-2"])
def test_no_name_becomes_a_formula_in_csv_and_parquet_has_it_as_it_is(tmp_path: Path, name: str) -> None:
    named = experiment(1, name=name, total_cost="1", extra={"metadata": {"dataset_name": name}})
    lake = lake_of(tmp_path, named)
    lake.replace(SESSIONS, NOON.date(), sessions_table(named), {})
    rows = focus_costs(lake, MARCH, LATER).rows
    for kind in ("csv", "parquet"):
        write_focus(rows, tmp_path / f"out.{kind}")
    (in_csv,) = csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(), newline=""))
    (in_parquet,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for column in ("ResourceName", "x_DatasetName"):
        assert (in_csv[column], in_parquet[column]) == (f"'{name}", name)


def test_a_parquet_file_says_by_which_version_of_the_specification_it_was_made(root: Path, tmp_path: Path) -> None:
    write_focus(focus_costs(Lake.open(str(root), query={}), MARCH, LATER).rows, tmp_path / "out.parquet")
    said = pq.read_schema(tmp_path / "out.parquet").metadata
    assert (said[b"FocusVersion"], said[b"DataGenerator"]) == (b"1.2", b"sessions-pipeline")


@pytest.mark.parametrize(("today", "open_day"), [(LATER, None), (DAYS[5], DAYS[5])])
def test_days_count_as_unread_until_they_were_read_when_over(root: Path, today: date, open_day: date | None) -> None:
    found = focus_costs(Lake.open(str(root), query={}), MARCH, today).missing
    march = {MARCH + timedelta(days=number) for number in range(31)}
    to_come = {day for day in march if open_day and day >= open_day}
    unread = day_ranges(march - to_come - {*DAYS})
    assert found.startswith(f"{unread}: not read after their end; materialize them")
    assert found.endswith(f", and {day_ranges(to_come)}: not over yet; export the month when it is over") == bool(
        to_come
    )


def test_days_that_are_not_over_do_not_count_as_unread(root: Path) -> None:
    lake, dash = Lake.open(str(root), query={}), "\N{EN DASH}"
    unread = "not read after their end; materialize them"
    of_march = f"1 Mar {dash} 2 Mar 2025: {unread}"
    rest = f"8 Mar {dash} 31 Mar 2025: not over yet; export the month when it is over"
    assert focus_costs(lake, MARCH, DAYS[5]).missing == f"{of_march}, and {rest}"
    assert focus_costs(lake, MARCH, LATER).missing.endswith(f" 31 Mar 2025: {unread}")
    to_come = focus_costs(lake, date(2025, 4, 1), DAYS[5]).missing
    assert to_come == f"1 Apr {dash} 30 Apr 2025: not over yet; export the month when it is over"


def test_a_day_that_a_workspace_was_last_read_on_before_its_end_counts_as_unread(tmp_path: Path) -> None:
    rows = [experiment(1, total_cost="1.5"), experiment(2, total_cost="0.5", tenant_id=OTHER_TENANT)]
    lake = lake_of(tmp_path, *rows, open_workspaces=frozenset({OTHER_TENANT}))
    assert focus_costs(lake, MARCH, LATER).missing.startswith(
        "1 Mar \N{EN DASH} 31 Mar 2025: not read after their end;"
    )


def test_a_day_on_which_a_workspace_was_not_read_counts_as_unread(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "lake")
    lake = Lake.open(str(tmp_path / "lake"), query={})
    for day, workspaces in ((DAYS[0], (TENANT,)), (DAYS[1], ()), (DAYS[2], (TENANT, OTHER_TENANT))):
        note = Reading(1, midnight(LATER), None, workspaces, 1, 0, 1)
        lake.write_file(f"_readings/start_date={day}.json", dump_readings([note]).encode())
    assert focus_costs(lake, MARCH, LATER).missing.startswith(
        "1 Mar \N{EN DASH} 3 Mar 2025, 16 Mar 2025, 18 Mar \N{EN DASH} 31 Mar 2025: not read in every workspace after "
    )
    alone = dump_readings([Reading(1, midnight(LATER), None, (TENANT,), 1, 0, 1)]).encode()
    for day in DAYS[:3]:
        lake.write_file(f"_readings/start_date={day}.json", alone)
    assert "31 Mar 2025: not read after " in focus_costs(lake, MARCH, LATER).missing, "there is only one workspace"


@pytest.mark.parametrize("table", [DAILY_COST_BY_REFERENCE_DATASET, EXPERIMENT_SUMMARY])
def test_days_rebuilt_as_of_an_earlier_time_are_named_with_what_to_do(root: Path, tmp_path: Path, table: Table) -> None:
    shutil.copytree(root, tmp_path / "lake")
    lake = Lake.open(str(tmp_path / "lake"), query={})
    lake.replace(table, DAYS[1], lake.read(table, DAYS[1]), {"as_of": "2025-03-04T12:00:00+00:00"})
    unread = day_ranges({MARCH + timedelta(days=number) for number in range(31)} - {*DAYS})
    rebuilt = f"{day_ranges([DAYS[1]])}: rebuilt by --as-of; materialize them without it"
    text = f"{unread}: not read after their end; materialize them, and {rebuilt}"
    assert focus_costs(lake, MARCH, LATER).missing == text


@pytest.mark.parametrize("table", [DAILY_COST_BY_REFERENCE_DATASET, EXPERIMENT_SUMMARY])
def test_a_day_of_which_a_table_is_missing_counts_as_unread(root: Path, tmp_path: Path, table: Table) -> None:
    shutil.copytree(root, tmp_path / "lake")
    shutil.rmtree(tmp_path / "lake" / table.name / f"start_date={DAYS[0]}")
    missing = focus_costs(Lake.open(str(tmp_path / "lake"), query={}), MARCH, LATER).missing
    assert missing.startswith("1 Mar \N{EN DASH} 3 Mar 2025, 16 Mar 2025"), "the third, too"


def test_a_day_without_experiments_that_was_read_before_its_end_counts_as_unread(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path), query={})
    for table in (DAILY_COST_BY_REFERENCE_DATASET, EXPERIMENT_SUMMARY):
        lake.replace(table, NOON.date(), table.schema.empty_table(), {"is_day_over": "false"})
    assert focus_costs(lake, MARCH, LATER).missing.startswith(
        "1 Mar \N{EN DASH} 31 Mar 2025: not read after their end;"
    )


def command(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: str) -> int:
    monkeypatch.setenv("SESSIONS_PIPELINE_DATA_ROOT", str(root))
    monkeypatch.setattr(sys, "argv", ["sessions-pipeline", "export", "focus", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_unread_days_export_nothing_without_partial(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "march.parquet"
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, root, "--month", "2025-03", "--output", str(file)) == 1
    said = capsys.readouterr()
    assert (
        "1 Mar \N{EN DASH} 2 Mar 2025, 16 Mar 2025, 18 Mar \N{EN DASH} 31 Mar 2025: not read after their end; "
        in said.err
    )
    assert said.out == ""
    assert not file.exists()
    assert command(monkeypatch, root, "--month", "2025-03", "--output", str(file), "--partial") == 0
    said = capsys.readouterr()
    assert "not read after their end; materialize them" in said.err
    assert "6 experiments left out: the cost is unknown" in said.err
    assert said.out == f"{file}: 22 experiments\n"
    assert pl.read_parquet(file)["BilledCost"].sum() == Decimal("8.925")


@pytest.mark.parametrize("name", ["march.csv", "march.parquet"])
def test_no_part_of_a_month_is_left_behind_by_a_full_disk(root: Path, tmp_path: Path, name: str) -> None:
    file, rows = tmp_path / name, focus_costs(Lake.open(str(root), query={}), MARCH, DAYS[-1]).rows
    with files_up_to(2_000), pytest.raises(LakeError, match=f"{name}: File too large; choose another file"):
        write_focus(rows, file)
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--month", "2025-03", "--output", "march.xlsx"), 2, "march.xlsx: end its name in .parquet or .csv"),
        (("--month", "2025-13", "--output", "march.csv"), 2, "2025-13 is not a month YYYY-MM such as 2026-01"),
        (
            ("--month", "2025-03", "--output", "no/march.csv", "--partial"),
            1,
            "march.csv: No such file or directory; choose another file",
        ),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, root, *arguments) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert datetime.now(UTC).date() > LATER


def test_a_full_device_is_never_removed(tmp_path: Path) -> None:
    device = tmp_path / "device.csv"
    device.symlink_to("/dev/full")
    with pytest.raises(LakeError, match="No space left on device; choose another file"):
        write_focus(SCHEMA.empty_table(), device)
    assert device.is_symlink()


def test_a_file_that_cannot_be_opened_is_never_removed(tmp_path: Path) -> None:
    """A program that runs can't be opened for writing, not even by root."""
    file = tmp_path / "sleep.parquet"
    shutil.copy2(str(shutil.which("sleep")), file)
    with subprocess.Popen([file, "60"]) as running:
        try:
            with pytest.raises(LakeError, match="Text file busy; choose another file"):
                write_focus(SCHEMA.empty_table(), file)
        finally:
            running.kill()
    assert file.is_file()
