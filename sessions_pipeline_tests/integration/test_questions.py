"""The questions in docs/reading.md on the sandbox's data: each SQL answer equals one computed independently."""

import itertools
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sessions_pipeline
from sessions_pipeline.cli.runs import DEMO_ROOT, DEMO_SHOWN
from sessions_pipeline.lake import Lake
from sessions_pipeline.langsmith.records import read_page
from sessions_pipeline.process_day import process_day
from sessions_pipeline.sandbox import Api
from sessions_pipeline.sandbox.company import OTHER_WORKSPACE, WORKSPACE
from sessions_pipeline.sandbox.listing import CompanyData
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET,
    JUDGE_COST_BY_EXPERIMENT,
    REFERENCE_DATASETS,
)
from sessions_pipeline.tables.period_costs import PERIODS, sum_periods
from sessions_pipeline.tables.reference_datasets import dataset_rows, merge_datasets
from sessions_pipeline_tests.builders import table_of
from sessions_pipeline_tests.days import OPTIONS, fetched
from sessions_pipeline_tests.faulty_server import without_broken_records
from sessions_pipeline_tests.snippets import Snippet, each

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAYS = [NOW.date() - timedelta(days=back) for back in range(59, -1, -1)]
JUDGED = date(2026, 11, 20)
MOVED = date(2026, 11, 3)
OCTOBER = date(2026, 10, 1), date(2026, 10, 31)
PAGE = (Path(__file__).parents[2] / "docs" / "reading.md").read_text()
QUESTION = re.compile(r"^\*\*(\S[^*]*\?)\*\*.*?^```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUESTIONS = {statement: question for question, statement in QUESTION.findall(PAGE)}

Record = dict[str, Any]
Answer = list[tuple[Any, ...]]


def listed(answer: Callable[[list[tuple[str, str]], str], Any], workspace: str) -> Iterator[str]:
    """The texts of all records of a workspace, from all pages of the API."""
    for offset in itertools.count(step=100):
        pairs = [("include_stats", "true"), ("limit", "100"), ("offset", str(offset))]
        page = read_page(answer(pairs, workspace).body)
        yield from (record.payload for record in page)
        if not page:
            return


class Company:
    """The sandbox's records, and a lake made of them."""

    def __init__(self, root: Path) -> None:
        api = Api(without_broken_records(CompanyData(NOW)), NOW)
        self.records: list[Record] = []
        self.judged: dict[str, Decimal | None] = {}
        lake, texts = Lake.open(str(root), query={}), {}
        for workspace in (WORKSPACE, OTHER_WORKSPACE):
            texts[workspace] = defaultdict[date, list[str]](list)
            for text in listed(api.sessions, workspace):
                record = json.loads(text, parse_float=Decimal)
                self.records.append(record)
                texts[workspace][date.fromisoformat(record["start_time"][:10])].append(text)
        self._move(texts[WORKSPACE])
        for day in DAYS:
            readings = [fetched(*texts[one][day], at=NOW, workspace=one, day=day) for one in texts]
            process_day(lake, day, readings, options=OPTIONS)
        daily, read = lake.read_days(DAILY_COST_BY_REFERENCE_DATASET, DAYS), {day: day < NOW.date() for day in DAYS}
        for period in PERIODS:
            lake.replace(
                period.table, None, sum_periods(period, period.table.schema.empty_table(), daily, read, DAYS), {}
            )
        lake.replace(JUDGE_COST_BY_EXPERIMENT, JUDGED, self.judges(api), {})
        named = [text for one in texts for text in listed(api.datasets, one)]
        table = merge_datasets(REFERENCE_DATASETS.schema.empty_table(), dataset_rows(named, NOW), list(texts), NOW)
        lake.replace(REFERENCE_DATASETS, None, table, {})
        datasets: list[Record] = [json.loads(text) for text in named]
        self.baselines = {one["id"]: one["baseline_experiment_id"] for one in datasets}
        taken = Counter(one["name"] for one in datasets)
        self.names = {
            one["id"]: one["name"] if taken[one["name"]] == 1 else f"{one['name']} ({one['id'][:8]})"
            for one in datasets
        }

    def _move(self, texts: dict[date, list[str]]) -> None:
        """Give an experiment a second start time, as if it had moved between readings: it counts on both days."""
        moved = next(one for one in self.experiments(MOVED, MOVED) if one["cost"] and one["tenant_id"] == WORKSPACE)
        later = moved["start_time"].replace(str(MOVED), str(MOVED + timedelta(days=2)))
        (text,) = (text for text in texts[MOVED] if moved["id"] in text)
        texts[MOVED + timedelta(days=2)].append(text.replace(moved["start_time"], later))
        self.records.append({**moved, "start_time": later})

    def judges(self, api: Api) -> Any:
        """The cost of the sandbox's judges for each experiment of a day."""
        rows = []
        for one in self.experiments(JUDGED, JUDGED):
            only = f'and(eq(metadata_key, "experiment"), eq(metadata_value, {json.dumps(one["name"])}))'
            pairs = [("name", "evaluators"), ("include_stats", "true"), ("stats_filter", only)]
            (found,) = json.loads(api.sessions(pairs, one["tenant_id"]).body)
            self.judged[one["id"]] = found["total_cost"] and Decimal(found["total_cost"])
            measures = {name: one[name] for name in ("id", "tenant_id", "reference_dataset_id")}
            rows.append({**measures, "total_cost": found["total_cost"], "stats_as_of": NOW, "read_at": NOW})
        return table_of("judge_cost_by_experiment", rows)

    def experiments(self, first: date = DAYS[0], last: date = DAYS[-1]) -> list[Record]:
        """The experiments of some days, with typed costs."""
        return [
            {**one, "day": day, "cost": None if one["total_cost"] is None else Decimal(one["total_cost"])}
            for one in self.records
            if one["reference_dataset_id"] and first <= (day := date.fromisoformat(one["start_time"][:10])) <= last
        ]

    def name(self, record: Record) -> str:
        return str(self.names[record["reference_dataset_id"]])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Company, duckdb.DuckDBPyConnection]]:
    root = tmp_path_factory.mktemp("questions")
    company = Company(root)
    with duckdb.connect() as connection:
        connection.execute(f"SET VARIABLE data_root = '{root}'")
        connection.execute(files("sessions_pipeline.outputs").joinpath("lake.sql").read_text())
        yield company, connection


def total(records: Iterable[Record]) -> Decimal | None:
    known = [one["cost"] for one in records if one["cost"] is not None]
    return sum(known, Decimal(0)) if known else None


def unknown(records: Iterable[Record]) -> int:
    return sum(one["cost"] is None for one in records)


def grouped(records: Iterable[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    groups = defaultdict[Any, list[Record]](list)
    for one in records:
        groups[key(one)].append(one)
    return groups


def metadata(record: Record) -> Record:
    return dict(record["extra"]["metadata"])


def branch(company: Company) -> Answer:
    found = company.experiments(date(2026, 11, 1), date(2026, 11, 25))
    found = [one for one in found if metadata(one)["git"]["branch"] == "fix-42"]
    return [(total(found), unknown(found))]


def model(company: Company) -> Answer:
    groups = grouped(company.experiments(), lambda one: metadata(one)["models"][0])
    return [(name, len(found), total(found)) for name, found in groups.items()]


def datasets(company: Company) -> Answer:
    groups = grouped(company.experiments(*OCTOBER), company.name)
    return [(name, total(found), unknown(found), True) for name, found in groups.items()]


def workspaces(company: Company) -> Answer:
    groups = grouped(company.experiments(*OCTOBER), lambda one: one["tenant_id"])
    return [(name, total(found), unknown(found), True) for name, found in groups.items()]


def more_expensive(company: Company) -> Answer:
    split, answer = date(2026, 11, 12), []
    found = [one for one in company.experiments(date(2026, 10, 29), date(2026, 11, 25)) if one["cost"]]
    for name, group in grouped(found, company.name).items():
        old, new = (
            (
                float(total(part) or 0),
                len(part),
                *(sum(one[key] for one in part) for key in ("run_count", "total_tokens")),
            )
            for part in ([one for one in group if (one["day"] >= split) is late] for late in (False, True))
        )
        each = [(half[0], half[1], half[2] / half[1], half[3] / half[2], half[0] / half[3]) for half in (old, new)]
        factors = [after / before for before, after in zip(*each, strict=True)]
        assert factors[0] == pytest.approx(factors[1] * factors[2] * factors[3] * factors[4])
        answer.append((name, new[0] - old[0], *factors))
    return answer


def with_judges(company: Company) -> Answer:
    (one,) = [one for one in company.experiments(JUDGED, JUDGED) if one["name"].startswith("refund-policy-nightly-")]
    judges = company.judged[one["id"]]
    assert judges
    return [(one["name"], one["cost"], judges, one["cost"] + judges, True)]


def point(company: Company) -> Answer:
    scored = [one for one in company.experiments() if one["cost"] and "correctness" in one["feedback_stats"]]
    return [
        (
            name,
            float(total(found) or 0)
            / float(
                sum(score["avg"] * score["n"] for one in found for score in [one["feedback_stats"]["correctness"]])
            ),
        )
        for name, found in grouped(scored, lambda one: metadata(one)["models"][0]).items()
    ]


def without_cost(company: Company) -> Answer:
    found = [one for one in company.experiments() if not one["cost"]]
    return [(one["day"], company.name(one), one["name"], one["cost"], one["total_tokens"], None) for one in found]


def author(company: Company) -> Answer:
    groups = grouped(company.experiments(), lambda one: metadata(one)["git"]["author_name"])
    return [(name, len(found), total(found)) for name, found in groups.items()]


def most_expensive(company: Company) -> Answer:
    found = sorted(company.experiments(), key=lambda one: (-(one["cost"] or 0), one["id"]))[:10]
    return [
        (
            one["day"],
            company.name(one),
            one["name"],
            one["cost"],
            (one["cost"] / one["run_count"]).quantize(Decimal("1e-18")),
        )
        for one in found
    ]


def better(company: Company) -> Answer:
    answer = []
    for found in grouped(company.experiments(), lambda one: one["reference_dataset_id"]).values():
        newest, former, *_ = sorted(found, key=lambda one: one["start_time"], reverse=True)
        baseline = company.baselines[newest["reference_dataset_id"]]
        old = next((one for one in found if one["id"] == baseline != newest["id"]), former)
        halves = [(one["cost"], per_run(one), score(one), one["total_tokens"], seconds(one)) for one in (newest, old)]
        changes = [None if None in pair else pair[0] - pair[1] for pair in zip(*halves, strict=True)]
        answer.append((company.name(newest), newest["name"], old["name"], *changes))
    return answer


def per_run(one: Record) -> Decimal | None:
    return one["cost"] and (one["cost"] / one["run_count"]).quantize(Decimal("1e-18"))


def score(one: Record) -> float | None:
    return float(one["feedback_stats"]["correctness"]["avg"]) if one["feedback_stats"] else None


def seconds(one: Record) -> float:
    end = one["end_time"] or one["last_run_start_time"]
    return (datetime.fromisoformat(end) - datetime.fromisoformat(one["start_time"])).total_seconds()


ANSWERS: dict[str, Callable[[Company], Answer]] = {
    "What did a branch cost?": branch,
    "Which model costs the most?": model,
    "What did each dataset cost last month?": datasets,
    "What did each workspace spend last month?": workspaces,
    "Which dataset got more expensive, and why?": more_expensive,
    "What did an experiment cost, with its judges?": with_judges,
    "What does a point of a score cost, by model?": point,
    "Which experiments have an unknown cost?": without_cost,
    "Who spent the most?": author,
    "Which experiments were the most expensive?": most_expensive,
    "Is the newest experiment better than its baseline?": better,
}


@each
def test_the_answer_equals_one_computed_independently(
    snippet: Snippet, made: tuple[Company, duckdb.DuckDBPyConnection]
) -> None:
    company, connection = made
    assert snippet.text.count(";") == 1
    found = connection.sql(snippet.text).fetchall()
    expected = ANSWERS[QUESTIONS[snippet.text]](company)
    assert len(found) == len(expected) > 0
    key = [index for index, value in enumerate(expected[0]) if isinstance(value, str)]
    found, expected = (sorted(rows, key=lambda row: [row[place] for place in key]) for rows in (found, expected))
    for mine, theirs in zip(found, expected, strict=True):
        for value, other in zip(mine, theirs, strict=True):
            assert value == (pytest.approx(other) if isinstance(other, float) else other)


def test_every_question_has_an_answer() -> None:
    assert list(QUESTIONS.values()) == list(ANSWERS)


@each
def test_read_takes_two_days_and_its_table_converts_to_pandas(
    snippet: Snippet, made: tuple[Company, duckdb.DuckDBPyConnection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    company, connection = made
    ((root,),) = connection.sql("SELECT getvariable('data_root')").fetchall()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSIONS_PIPELINE_DATA_ROOT", root)
    asked = 'read("sessions", "2026-11-01", "2026-11-25")'
    found = eval(snippet.text if snippet.text == asked else asked + snippet.text, {"read": sessions_pipeline.read})
    assert len(found) == sum("2026-11-01" <= one["start_time"][:10] <= "2026-11-25" for one in company.records)


@each
def test_the_readmes_lines_give_the_right_sum_on_the_demos_data(
    snippet: Snippet,
    made: tuple[Company, duckdb.DuckDBPyConnection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    company, connection = made
    (root,) = connection.sql("SELECT getvariable('data_root')").fetchall()[0]
    (tmp_path / DEMO_ROOT).parent.mkdir()
    (tmp_path / DEMO_ROOT).symlink_to(root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)  # `make demo` does not install it
    assert "datetime.now(UTC)" in snippet.text
    exec(snippet.text.replace("datetime.now(UTC)", f"datetime.fromisoformat('{NOW}')"), {})
    shown = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    # The demo's summary shows these days.
    found = grouped(company.experiments(NOW.date() - timedelta(days=DEMO_SHOWN - 1)), company.name)
    assert {name: Decimal(cost) for name, cost in shown.items()} == {name: total(rows) for name, rows in found.items()}
