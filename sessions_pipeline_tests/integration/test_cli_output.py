"""The output of the command line: complete for programs, safe and readable for people."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pytest

from sessions_pipeline import cli
from sessions_pipeline.cli.runs import run_days
from sessions_pipeline.cli.summary import print_summary
from sessions_pipeline.cli.terminal import echo, past_time, print_table, progress_bar
from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED
from sessions_pipeline.outputs import judges_command
from sessions_pipeline.outputs.report import latest_days, read_report_data, write_report
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    JUDGE_COST_BY_EXPERIMENT,
    REFERENCE_DATASETS,
    REJECTED_SESSIONS,
    SESSIONS,
)
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline.workers import BACKFILL_DAYS
from sessions_pipeline_tests.builders import NOON, OTHER_TENANT, TENANT, experiment, payload, record, table_of
from sessions_pipeline_tests.builders_report import daily
from sessions_pipeline_tests.faulty_server import Sandbox, running_sandbox
from sessions_pipeline_tests.lake_rows import rows
from sessions_pipeline_tests.scripts import COMMAND

JUDGES = JUDGE_COST_BY_EXPERIMENT.name
LABEL = '{"metadata": {"dataset_name": "golden"}}'
A, B = "da000000-0000-4000-8000-000000000001", "db000000-0000-4000-8000-000000000001"
ODD = [
    json.dumps(record(1, name="two\u2028lines\x85 and \x9b31m", reference_dataset_id=A), ensure_ascii=False),
    json.dumps(record(2, name="\x1b[31mred\x1b]0;title\x07", **{"\x1b[32mkey": 1})),
    '{"id": "x", "name": "\\ud800"}',
    '{"id": "x", "run_count": ' + "9" * 5000 + "}",
    json.dumps(record(5, name="Prüfung 🎉 契約"), ensure_ascii=False),
    json.dumps(record(6, reference_dataset_id="no id")),
    "1",
]


@pytest.fixture(scope="module")
def odd() -> Iterator[Sandbox]:
    with running_sandbox(texts=ODD) as running:
        yield running


def command(*arguments: str, folder: Path, url: str = "http://127.0.0.1:9", **more: str) -> Any:
    """Run the command in a separate process, which also reports whether it imported Dagster."""
    script = (
        "import sys, sessions_pipeline.cli as c\n"
        "try: c.main()\n"
        "finally: print('imported dagster' if 'dagster' in sys.modules else '', file=sys.stderr)"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "LANGSMITH_API_KEY": "sandbox-key",
        "LANGSMITH_ENDPOINT": url,
        **more,
    }
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        cwd=folder,
        env=environment,
        timeout=60,
        check=False,
    )


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Runs `list` in this process, on a sandbox that serves these records. Returns what it prints."""

    def run(*arguments: str, records: Sequence[dict[str, Any]], **more: str) -> str:
        with running_sandbox(texts=[json.dumps(one) for one in records]) as sandbox:
            reached = {"LANGSMITH_API_KEY": sandbox.key, "LANGSMITH_ENDPOINT": sandbox.url}
            for name, value in (reached | more).items():
                monkeypatch.setenv(name, value)
            monkeypatch.chdir(tmp_path)
            monkeypatch.setattr(sys, "argv", ["sessions-pipeline", "list", *arguments])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("shape", "encoding"),
    [
        ("table", "cp1252"),
        ("json", "ascii"),
        ("ndjson", "utf-8"),
        *(
            pytest.param(shape, encoding, marks=pytest.mark.long)
            for shape, encoding in (
                ("table", "utf-8"),
                ("table", "ascii"),
                ("json", "utf-8"),
                ("json", "cp1252"),
                ("ndjson", "cp1252"),
                ("ndjson", "ascii"),
            )
        ),
    ],
)
def test_list_prints_every_record_whatever_the_output_can_encode(
    odd: Sandbox, tmp_path: Path, shape: str, encoding: str
) -> None:
    result = command(
        "list", "--format", shape, "--include-stats", folder=tmp_path, url=odd.url, PYTHONIOENCODING=encoding
    )
    assert (result.returncode, result.stderr.strip()) == (0, b"")
    text = result.stdout.decode(encoding)
    assert not {"\x1b", "\x07", "\x9b", "\x85", "\u2028"} & set(text)
    if shape == "table":
        assert "red" in text
        assert "no id" in text
        assert text.rstrip().endswith("7 sessions")
        return
    lines = text.split("\n")[:-1] if shape == "ndjson" else [text]
    records = [json.loads(line, parse_int=str) for line in lines]
    found = records if shape == "ndjson" else records[0]
    assert found == [json.loads(text, parse_int=str) for text in ODD]


@pytest.mark.parametrize(
    ("closed", "arguments"),
    [
        (1, "list"),
        (1, "report"),
        (2, "doctor"),
        *(pytest.param(*case, marks=pytest.mark.long) for case in ((1, "doctor"), (2, "list"), (2, "report"))),
    ],
)
def test_a_closed_output_causes_no_traceback(odd: Sandbox, tmp_path: Path, closed: int, arguments: str) -> None:
    program = shlex.join([COMMAND, arguments])
    environment = {"LANGSMITH_API_KEY": "k", "LANGSMITH_ENDPOINT": odd.url, "PATH": os.environ["PATH"]}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{program} {closed}>&-"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": root},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"unexpected" not in done.stderr


@pytest.mark.parametrize("arguments", [("list", "--format", "ndjson"), ("sandbox", "--port", "0")])
def test_a_reader_that_stops_early_causes_no_complaint(
    odd: Sandbox, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {"LANGSMITH_API_KEY": odd.key, "LANGSMITH_ENDPOINT": odd.url, "PATH": os.environ["PATH"]}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    with os.fdopen(writing) as output:
        done = subprocess.run(
            [COMMAND, *arguments], cwd=tmp_path, env=environment, stdout=output, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("arguments", [("--help",), ("list",), ("report",), ("doctor",)])
def test_only_commands_that_run_assets_import_dagster(odd: Sandbox, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    Lake.open(str(tmp_path / "data"), query={}).write_file("note", b"")
    result = command(*arguments, folder=tmp_path, url=odd.url)
    assert result.returncode == 0, result.stderr
    assert b"imported dagster" not in result.stderr


def test_a_wrong_dagster_home_is_an_error_before_any_request(odd: Sandbox, tmp_path: Path) -> None:
    # In a process of its own, where importing Dagster takes longer than the first request.
    today, before = str(datetime.now(UTC).date()), len(odd.requests)
    days = ("--from", today, "--to", today)
    result = command("materialize", *days, folder=tmp_path, url=odd.url, DAGSTER_HOME="nowhere")
    assert result.returncode == 2
    assert b"DAGSTER_HOME: nowhere must be the absolute path of a folder that exists" in result.stderr
    assert len(odd.requests) == before


def test_notifications_without_apprise_are_an_error_before_any_request(odd: Sandbox, tmp_path: Path) -> None:
    tmp_path.joinpath("sitecustomize.py").write_text("import sys\nsys.modules['apprise'] = None\n")
    today, before = str(datetime.now(UTC).date()), len(odd.requests)
    variables = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "SESSIONS_PIPELINE_NOTIFY": "slack://a/b/c",
    }
    result = command("materialize", "--from", today, "--to", today, folder=tmp_path, url=odd.url, **variables)
    assert result.returncode == 2
    assert b"SESSIONS_PIPELINE_NOTIFY: needs Apprise" in result.stderr
    assert len(odd.requests) == before


def lake_of(root: Path, *rows: dict[str, Any]) -> Settings:
    """A lake of daily costs, whose experiments call every dataset `golden`."""
    lake = Lake.open(str(root), query={})
    for day in {row["start_date"] for row in rows}:
        of_day = [
            {name: value for name, value in row.items() if name != "start_date"}
            for row in rows
            if row["start_date"] == day
        ]
        named = [
            experiment(number, **{name: row[name] for name in ("tenant_id", "reference_dataset_id")}, extra=LABEL)
            for number, row in enumerate(of_day)
        ]
        lake.replace(SESSIONS, day, table_of("sessions", named), {})
        lake.replace(REJECTED_SESSIONS, day, table_of("rejected_sessions", []), {})
        lake.replace(DAILY_COST_BY_REFERENCE_DATASET, day, table_of("daily_cost_by_reference_dataset", of_day), {})
    return Settings(SESSIONS_PIPELINE_DATA_ROOT=str(root))


DAY = date(2026, 3, 2)
MADE = {"sessions": [DAY], "rejected_sessions": [DAY], "daily_cost_by_reference_dataset": [DAY]}


def test_days_that_a_run_wrote_and_that_are_gone_are_no_success(tmp_path: Path) -> None:
    settings, later = lake_of(tmp_path, daily(DAY, 1, "1", reference_dataset_id=A)), DAY + timedelta(1)
    with pytest.raises(LakeError, match=rf"^{tmp_path}: lost 1 day that this run wrote, {later} among them; see"):
        print_summary(settings, {"sessions": [DAY, later]}, DAY, later)


@pytest.mark.parametrize(
    ("undated", "mentioned"), [(0, []), (2, ["Not counted here: 2 records without a day; see the report"])]
)
def test_records_without_a_day_are_not_counted_but_mentioned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], undated: int, mentioned: list[str]
) -> None:
    settings = lake_of(tmp_path, daily(DAY, 1, "1", reference_dataset_id=A))
    for table in (SESSIONS, REJECTED_SESSIONS)[:undated]:
        Lake.open(str(tmp_path), query={}).replace(table, UNDATED, rows(table, 1), {})
    print_summary(settings, MADE, DAY, DAY)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("Not counted")] == mentioned
    print_summary(settings, MADE, DAY, DAY, as_json=True)
    summed = json.loads(capsys.readouterr().out)
    assert (summed["undated"], summed["sessions"], summed["rejected"]) == (undated, 1, 0)


def test_datasets_with_one_name_stay_separate_groups_also_in_two_workspaces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = lake_of(
        tmp_path,
        daily(DAY, 1, "1", reference_dataset_id=A, run_count=12, total_tokens=345),
        daily(DAY, 1, "2", reference_dataset_id=B),
        daily(DAY, 1, "4", reference_dataset_id=B, tenant_id=OTHER_TENANT),
    )
    print_summary(settings, MADE, DAY, DAY)
    table = capsys.readouterr().out
    assert sorted(re.findall(r"golden .*(\$\d\.00)", table)) == ["$1.00", "$2.00", "$4.00"]
    assert re.search(r"golden \(da000000\) +7e000000 +1 +0 +345 +\$1\.00", table)
    assert "golden (db000000)" in table
    assert TENANT[:8] in table
    assert "1 day, 3 sessions (3 experiments, 0 without a cost), 0 rejected records" in table
    assert f"Parquet  {tmp_path}" in table
    print_summary(settings, MADE, DAY, DAY, as_json=True)
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert {(line["tenant_id"], line["reference_dataset_id"], line["dataset"], line["cost"]) for line in lines} == {
        (TENANT, A, "golden", "1"),
        (TENANT, B, "golden", "2"),
        (OTHER_TENANT, B, "golden", "4"),
    }


@pytest.mark.parametrize(
    ("made", "unknown", "says"),
    [
        (["sessions", "rejected_sessions"], {"experiments", "unpriced", "total_cost"}, "sessions: 1 day\n"),
        (["daily_cost_by_reference_dataset"], {"sessions", "rejected"}, "Known cost, exactly: 1 US dollars; judge"),
        (["sessions", "daily_cost_by_reference_dataset"], {"rejected"}, "sessions: 1 day\n"),
        (
            ["raw_sessions"],
            {"sessions", "rejected", "experiments", "unpriced", "total_cost"},
            "raw_sessions: 1 day\n",
        ),
    ],
)
def test_the_summary_leaves_out_tables_that_the_run_did_not_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: list[str], unknown: set[str], says: str
) -> None:
    settings = lake_of(tmp_path, daily(DAY, 1, "1", reference_dataset_id=A))
    print_summary(settings, {name: [DAY] for name in made}, DAY, DAY)
    table = capsys.readouterr().out
    assert says in table
    assert not any(claim in table for claim in ("0 sessions", "0 experiments", "0 rejected", "none US dollars"))
    print_summary(settings, {name: [DAY] for name in made}, DAY, DAY, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    sums = ("sessions", "rejected", "experiments", "unpriced", "total_cost")
    assert {name for name in sums if printed[name] is None} == unknown
    assert printed["days"] == 1


def test_a_day_that_was_not_over_is_marked_and_a_single_workspace_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "95")
    settings = lake_of(tmp_path, *(daily(DAY, number, "1", is_day_over=False) for number in (1, 2)))
    print_summary(settings, MADE, DAY, DAY)
    table = capsys.readouterr().out
    assert table.count(f"{DAY}* ") == 1, "the day of both datasets"
    assert "\n* not over, rebuilt by --as-of, or unread in a workspace\n" in table
    assert "\nToo narrow for Tokens; widen the terminal" in table
    assert not any(word in table for word in ("Workspace", "All days", "Report "))
    print_summary(settings, MADE, DAY, DAY, as_json=True)
    assert [line["is_part"] for line in json.loads(capsys.readouterr().out)["lines"]] == [True, True]


def test_a_dataset_without_experiments_has_no_line_although_judges_were_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = lake_of(tmp_path, daily(DAY, 1, "1", reference_dataset_id=A))
    given = {"tenant_id": TENANT, "reference_dataset_id": B, "read_at": NOON, "stats_as_of": NOON}
    rows = table_of(JUDGES, [{"id": "5e", "total_cost": "2", **given}])
    Lake.open(str(tmp_path), query={}).replace(JUDGE_COST_BY_EXPERIMENT, DAY, rows, {})
    print_summary(settings, MADE, DAY, DAY, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert [one["reference_dataset_id"] for one in printed["lines"]] == [A]
    assert printed["judge_cost"] == "2", "which is in the sum all the same"


def test_the_summary_shows_no_cost_if_none_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = lake_of(tmp_path, daily(DAY, 1, None, reference_dataset_id=A))
    print_summary(settings, MADE, DAY, DAY)
    assert "\nKnown cost: none; judge calls not counted\n" in capsys.readouterr().out


def test_datasets_are_shown_by_their_current_names_else_by_those_in_experiments_and_json_has_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = lake_of(tmp_path, daily(DAY, 1, "1", reference_dataset_id=A), daily(DAY, 1, "2", reference_dataset_id=B))
    given = {"tenant_id": TENANT, "name": "renamed\x1b[31m since", "read_at": NOON}
    rows = [{"id": A, **given}, {"id": B, **given, "name": ""}, {"id": B, **given, "tenant_id": OTHER_TENANT}]
    lake = Lake.open(str(tmp_path), query={})
    lake.replace(REFERENCE_DATASETS, None, table_of("reference_datasets", rows), {})
    print_summary(settings, MADE, DAY, DAY)
    table = capsys.readouterr().out
    assert "renamed␛[31m since " in table
    assert "golden " in table
    print_summary(settings, MADE, DAY, DAY, as_json=True)
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert {line["reference_dataset_id"]: line["dataset"] for line in lines} == {A: given["name"], B: "golden"}


def test_a_dataset_without_a_name_is_shown_by_its_id_also_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = lake_of(tmp_path, daily(DAY, 1, "1", reference_dataset_id=A))
    nameless = table_of("sessions", [experiment(1, reference_dataset_id=A)])
    Lake.open(str(tmp_path), query={}).replace(SESSIONS, DAY, nameless, {})
    print_summary(settings, MADE, DAY, DAY)
    assert re.search(rf"^ {DAY} +{A[:8]} ", capsys.readouterr().out, re.MULTILINE)
    print_summary(settings, MADE, DAY, DAY, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert [line["dataset"] for line in (*printed["lines"], *printed["datasets"])] == [A, A]


def test_the_summary_covers_only_what_the_run_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = lake_of(tmp_path, daily(DAY, 1, "1"))
    print_summary(settings, {"daily_cost_by_project": [DAY, date(2026, 3, 3)], "cost_report": []}, DAY, DAY)
    assert capsys.readouterr().out.splitlines() == [
        "cost_report: made",
        "daily_cost_by_project: 2 days",
        f"Parquet  {tmp_path}",
        f"Report   {tmp_path}/reports/cost.html",
    ]


def test_the_report_reads_its_days_as_many_before_them_and_the_months(tmp_path: Path) -> None:
    days = [date(2026, 3, day) for day in range(1, BACKFILL_DAYS)]
    more = {"reference_dataset_id": A, "total_cost": "1", "extra": {"metadata": {"dataset_name": "golden"}}}
    texts = [payload(day.day, start_time=f"{day}T12:00:00", **more) for day in reversed(days)]
    with running_sandbox(texts=texts) as sandbox:
        settings = Settings(
            LANGSMITH_API_KEY=sandbox.key,
            LANGSMITH_ENDPOINT=sandbox.url,
            SESSIONS_PIPELINE_DATA_ROOT=str(tmp_path / "lake"),
        )
        made = run_days(settings, days[0], days[-1])
    assert made["daily_cost_by_reference_dataset"] == days
    lake = Lake.open(settings.data_root, query={})
    data = read_report_data(lake, days[3], days[5])
    assert sorted(data.daily["start_date"].to_pylist()) == days[:6]
    assert len(data.experiments) == 3
    assert (data.days_read, data.names, data.measured_days) == (frozenset(days[:6]), {A: "golden"}, 0)
    address = write_report(lake, days[3], days[5], tmp_path / "march.html")
    assert "$3.00" in Path(address).read_text()
    assert latest_days(lake) == (days[0], days[-1])


def test_weeks_that_the_days_do_not_fill_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    days = [date(2026, 3, day) for day in range(2, 12)]
    settings = lake_of(tmp_path, *(daily(day, 1, "1") for day in days))
    print_summary(settings, dict.fromkeys(MADE, days), days[0], days[-1])
    table = capsys.readouterr().out
    assert "2026-03-02 " in table
    assert "2026-03-09* " in table
    assert "* has days not asked for, not over, rebuilt by --as-of, or unread in a workspace" in table


def test_a_week_is_marked_while_a_day_without_experiments_is_not_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    days = [date(2026, 3, day) for day in range(2, 16)]
    settings = lake_of(tmp_path, *(daily(day, 1, "1") for day in days))
    lake, daily_costs = Lake.open(str(tmp_path), query={}), DAILY_COST_BY_REFERENCE_DATASET
    lake.replace(daily_costs, days[-1], daily_costs.schema.empty_table(), {"is_day_over": "false"})
    print_summary(settings, dict.fromkeys(MADE, days), days[0], days[-1])
    table = capsys.readouterr().out
    assert "2026-03-02 " in table
    assert "2026-03-09* " in table


def test_days_rebuilt_as_of_an_earlier_time_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    days = [DAY - timedelta(days=1), DAY]
    settings = lake_of(tmp_path, *(daily(day, 1, "1") for day in days))
    table = DAILY_COST_BY_REFERENCE_DATASET
    lake = Lake.open(str(tmp_path), query={})
    lake.replace(table, days[0], lake.read(table, days[0]), {"as_of": "2026-03-04T12:00:00+00:00"})
    print_summary(settings, dict.fromkeys(MADE, days), days[0], days[-1])
    printed = capsys.readouterr().out
    assert (f"{days[0]}* " in printed, f"{days[1]}* " in printed) == (True, False)
    assert "\n* not over, rebuilt by --as-of, or unread in a workspace\n" in printed


def test_a_week_is_marked_if_a_workspace_was_not_read_on_all_its_days(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    days = [date(2026, 3, day) for day in range(2, 16)]
    settings, lake = lake_of(tmp_path, *(daily(day, 1, "1") for day in days)), Lake.open(str(tmp_path), query={})
    for day in days:
        read = [TENANT, OTHER_TENANT] if day > days[1] else [TENANT]
        notes = [Reading(1, NOON, one, (one,)) for one in read]
        lake.write_file(f"_readings/start_date={day}.json", dump_readings(notes).encode())
    print_summary(settings, dict.fromkeys(MADE, days), days[0], days[-1], as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert [(line["period"], line["is_part"]) for line in printed["lines"]] == [
        ("2026-03-02", True),
        ("2026-03-09", False),
    ]
    assert [line["is_part"] for line in printed["datasets"]] == [True]


@pytest.mark.parametrize("count", [3, 7, 8])
def test_each_dataset_is_summed_over_all_days_and_the_most_expensive_is_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    days = [date(2026, 3, 2) + timedelta(days=number) for number in range(count)]
    costs = {"cheap": ("9", "1"), "costly": ("3", "4"), "unpriced": (None, None)}
    rows = [
        daily(day, number, each[day > days[0]], reference_dataset_id=f"d{number}000000-0000-4000-8000-000000000001")
        for day in days
        for number, each in enumerate(costs.values())
    ]
    settings = lake_of(tmp_path, *rows)
    print_summary(settings, dict.fromkeys(MADE, days), days[0], days[-1])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.startswith("Week from") for line in lines) == (count > 7)
    start = next(number for number, line in enumerate(lines) if line.startswith("All days"))
    sums = [9 + (count - 1), 3 + 4 * (count - 1)]
    order = ["(d0000000)", "(d1000000)"] if sums[0] >= sums[1] else ["(d1000000)", "(d0000000)"]
    shown = [(re.search(r"\(\w+\)", line), line.split()[-1]) for line in lines[start : start + 3]]
    assert [(found and found[0], cost) for found, cost in shown] == [
        (order[0], f"${max(sums)}.00"),
        (order[1], f"${min(sums)}.00"),
        ("(d2000000)", "unknown"),
    ]
    # The datasets have the same order in each period.
    places = re.findall(r"\(d\d000000\)", "\n".join(lines[:start]))
    assert places == [*order, "(d2000000)"] * (len(places) // 3)
    assert next(line for line in lines if line.startswith("Total")).split()[-1] == f"${sum(sums)}.00"
    print_summary(settings, dict.fromkeys(MADE, days), days[0], days[-1], as_json=True)
    printed = json.loads(capsys.readouterr().out)["datasets"]
    assert [(f"({one['reference_dataset_id'][:8]})", one["cost"], one["days"]) for one in printed] == [
        (order[0], str(max(sums)), count),
        (order[1], str(min(sums)), count),
        ("(d2000000)", None, count),
    ]


@pytest.mark.parametrize(
    ("count", "datasets"), [(3, 40), (3, 21), (10, 40), (110, 7), pytest.param(707, 1, marks=pytest.mark.long)]
)
def test_lines_for_people_stay_few_and_add_up_and_json_has_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, datasets: int
) -> None:
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range(count)]
    ids = [f"d{number:07d}-0000-4000-8000-000000000001" for number in range(datasets)]
    rows = [
        daily(day, number, None if number % 9 == 5 else f"{number}.25", reference_dataset_id=id_)
        for day in days
        for number, id_ in enumerate(ids)
    ]
    settings = lake_of(tmp_path, *rows)
    print_summary(settings, dict.fromkeys(MADE, days), days[0], days[-1])
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    start = next(number for number, line in enumerate(printed) if line.startswith("All days"))
    end = next(number for number, line in enumerate(printed) if line.startswith("Total"))
    by_period, in_all, total = (
        sum(Decimal(cost.replace(",", "")) for cost in re.findall(r"\$([\d,.]+)$", "\n".join(part), re.MULTILINE))
        for part in (printed[:start], printed[start:end], printed[end : end + 1])
    )
    assert 0 < by_period == in_all == total
    assert end - start <= 22
    assert start <= 104
    folded = "Some datasets are summed together; with --json, each has its own lines"
    assert (folded in printed) == (datasets > 21 or count == 110)
    assert any("other datasets" in line for line in printed) == (datasets > 21)
    assert any("all datasets" in line for line in printed) == (count == 110)
    print_summary(settings, dict.fromkeys(MADE, days), days[0], days[-1], as_json=True)
    assert len(json.loads(capsys.readouterr().out)["datasets"]) == datasets


@pytest.mark.parametrize(
    ("name", "kept", "lost"),
    [
        ("a name of thirty-eight characters, all", {"Tokens", "No cost"}, ""),
        ("a name of thirty-nine characters, which", {"No cost"}, "Tokens"),
        ("契約" * 10, {"No cost"}, "Tokens"),
        ("a name of fifty-six characters, which is a really long one", {"12.50"}, "No cost, Tokens"),
    ],
)
def test_at_80_columns_counts_are_dropped_first_and_names_are_never_broken(
    name: str, kept: set[str], lost: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    columns = ("Day", "Dataset", "No cost", "Tokens", "Cost")
    print_table(columns, [("2026-03-02", name, "0", "1,234,567", "$12.50")], drop=("Tokens", "No cost"))
    out = capsys.readouterr().out
    assert name in out
    assert all(word in out for word in kept)
    table, _, note = out.partition("Too narrow for ")
    assert not any(word in table for word in lost.split(", ") if word)
    assert note.removesuffix("; widen the terminal, or set COLUMNS\n") == lost
    assert max(map(len, out.splitlines())) <= 80


def test_a_name_that_is_too_long_is_cut_and_the_other_columns_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    columns, row = ("Name", "Start (UTC)", "Dataset", "Cost"), ("2026-03-02 12:00", "da7a5e70", "$12.50")
    print_table(columns, [("x" * 300, *row), ("short", *row)])
    out = capsys.readouterr().out
    assert all(out.count(cell) == 2 for cell in row)
    assert "\N{HORIZONTAL ELLIPSIS}  2026" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(("width", "shown"), [(80, 20), (24, 3)])
def test_two_names_that_are_too_long_are_both_cut_and_costs_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, shown: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(("Name", "Dataset", "Cost"), [("n" * 90, "d" * 80, "$1,234.50")])
    out = capsys.readouterr().out
    assert "$1,234.50" in out
    assert all(name * shown in out for name in "nd")
    assert max(map(len, out.splitlines())) <= width


def test_a_dumb_terminal_has_its_own_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "dumb", "FORCE_COLOR": "1", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)  # FORCE_COLOR makes rich take the output for a terminal
    print_table(("Dataset", "No cost", "Cost"), [("d" * 70, "0", "$12.50")], drop=("No cost",))
    assert "Too narrow" not in capsys.readouterr().out


def test_dollar_amounts_are_aligned_at_their_decimal_points(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", "$1,234.56", "12"), ("b", "$0.023", "1,200"), ("c", "unknown", "7")]
    print_table(("Dataset", "Cost", "Traces"), rows, footer=("Total", "$1,234.58", "1,219"))
    lines = [line for line in capsys.readouterr().out.splitlines() if "." in line]
    assert len(lines) == 3
    assert len({line.index(".") for line in lines}) == 1
    assert {len(line.rstrip()) for line in lines} == {len(lines[0].rstrip())}, "counts end together"


def test_list_formats_stats_for_people_and_shows_non_numbers_as_sent(listed: Callable[..., str]) -> None:
    records = [
        record(1, run_count=39, total_tokens=1156123, total_cost="0.03261345"),
        record(2, run_count=9, total_tokens=2000, total_cost="12.5"),
        record(3, run_count="many", total_tokens=None, total_cost="1e999999999"),
    ]
    printed = listed("--include-stats", records=records)
    shown = ("2025-03-03 12:00  ", "1,156,123", "$0.033", "$12.50", "many", "1e999999999")
    assert all(f" {cell}" in printed for cell in shown)


def test_list_shows_unknown_values_as_unknown(listed: Callable[..., str]) -> None:
    undated = {name: value for name, value in record(1, name="undated").items() if name != "start_time"}
    printed = listed("--include-stats", records=[undated | {"total_cost": None}])
    (line,) = [line for line in printed.splitlines() if "undated" in line]
    assert line.split()[1] == "unknown"
    assert line.split()[-1] == "unknown"


def test_list_names_the_columns_that_80_columns_have_no_room_for(listed: Callable[..., str]) -> None:
    for stats, left_out in (((), ""), (("--include-stats",), "Start (UTC), Traces, Tokens")):
        printed = listed(*stats, records=[record(1, name="x" * 45)], COLUMNS="80")
        assert printed.count(f"Too narrow for {left_out};") == bool(left_out)


def test_a_table_that_is_no_terminals_is_as_wide_as_columns_says(listed: Callable[..., str]) -> None:
    for columns in (80, 100):
        printed = listed(records=[record(1, name="x" * 200)], COLUMNS=str(columns))
        assert max(map(len, printed.splitlines())) == columns


def test_the_command_in_the_note_on_unmeasured_judges_measures_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = lake_of(tmp_path, daily(DAY, 1, "1", reference_dataset_id=A))
    print_summary(settings, MADE, DAY, DAY)
    first, second, *_ = capsys.readouterr().out.partition("Judges   to count them: ")[2].splitlines()
    assert first.endswith(" \\")
    assert len(f"Judges   to count them: {first}") <= 80
    words = f"{first[:-1]}{second}".split()
    assert words == judges_command(datetime.now(UTC).date()).split()
    assert words[-1] == JUDGES
    print_summary(settings, {JUDGES: []}, DAY, DAY)
    assert "Judges of 0 experiments so far (0 unknown), exactly: unknown US dollars\n" in capsys.readouterr().out
    given = {"tenant_id": TENANT, "reference_dataset_id": A, "read_at": NOON, "stats_as_of": NOON}
    costs = [{"id": str(number), "total_cost": cost, **given} for number, cost in enumerate(("0.25", "1.5", None))]
    Lake.open(str(tmp_path), query={}).replace(JUDGE_COST_BY_EXPERIMENT, DAY, table_of(JUDGES, costs), {})
    print_summary(settings, {JUDGES: []}, DAY, DAY)
    said = "Judges of 3 experiments so far (1 unknown), exactly: 1.75 US dollars\n"
    assert said in capsys.readouterr().out
    Lake.open(str(tmp_path), query={}).replace(JUDGE_COST_BY_EXPERIMENT, DAY, table_of(JUDGES, costs[2:]), {})
    print_summary(settings, MADE, DAY, DAY)
    said = "Judges, exactly: unknown US dollars; those of 1 experiment not counted\n"
    assert said in capsys.readouterr().out


def test_processes_started_beside_the_progress_bar_print_nothing_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C also reaches the processes that Dagster starts to watch a run, and they end with a traceback."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress_bar(2, []) as on_day:
            on_day(DAY)
            os.write(theirs, b"Traceback")
        os.write(theirs, b"heard again")
        seen = b""
        while b"heard again" not in seen:
            seen += screen.read(65_536)
    assert (b"1/2" in seen, b"Traceback" in seen) == (True, False)


def test_days_are_finished_although_the_terminal_of_the_progress_bar_was_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The days that are being written when it is closed must still be recorded in Dagster."""
    ours, theirs = pty.openpty()
    finished = list[date]()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with suppress(OSError), progress_bar(2, finished) as on_day:
            os.close(ours)
            on_day(DAY)
            on_day(DAY)
    assert finished == [DAY, DAY]


def test_a_wrapped_line_never_parts_an_amount_from_the_mark_that_it_is_a_minimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", "20")
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        echo("it is heading for ≥ $271.93")
        assert screen.read(65_536).decode().split() == ["it", "is", "heading", "for", "≥", "$271.93"]
        echo("it is heading for ≥ $271.93")
        assert screen.read(65_536).decode().splitlines()[0] == "it is heading for"
        # Words stay whole, so that options and paths can be copied.
        words = ["the word", "  cost-by-dataset", "  and", f"  {'x' * 30}"]
        echo(" ".join(map(str.strip, words)), indent=2)
        assert screen.read(65_536).decode().splitlines() == words


def test_as_of_takes_iso_8601_with_an_offset_and_is_utc_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert past_time("2026-01-31T12:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    time.tzset()
    command = click.Command("x", params=[click.Option(["--as-of"], type=past_time)])
    context = command.make_context("x", ["--as-of", "2026-01-31T12:00:00+01:00"])
    assert context.params["as_of"] == datetime(2026, 1, 31, 11, tzinfo=UTC)
