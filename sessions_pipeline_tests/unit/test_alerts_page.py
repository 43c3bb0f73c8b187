"""docs/alerts.md is right: its budgets are valid, its commands run, its addresses and its extra exist."""

import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apprise
import pytest

from sessions_pipeline.cli import cli
from sessions_pipeline.lake import Lake
from sessions_pipeline.outputs.budget_file import load_budgets
from sessions_pipeline.settings import Settings
from sessions_pipeline.tables import DAILY_COST_BY_REFERENCE_DATASET, REFERENCE_DATASETS
from sessions_pipeline.tables.readings import Reading, dump_readings
from sessions_pipeline_tests.builders import TENANT, dataset, table_of
from sessions_pipeline_tests.receiver import receiving
from sessions_pipeline_tests.snippets import Snippet, together

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "alerts.md").read_text()
[BUDGETS] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@together
def test_the_pages_budgets_are_valid_and_its_commands_run(
    snippets: list[Snippet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [line for one in snippets if one.language == "sh" for line in one.text.splitlines()]
    now, lake = datetime.now(UTC), Lake.open(str(tmp_path / "data"), query={})
    for day in (now.date() - timedelta(days=back) for back in range(31)):
        lake.replace(DAILY_COST_BY_REFERENCE_DATASET, day, DAILY_COST_BY_REFERENCE_DATASET.schema.empty_table(), {})
        reading = dump_readings([Reading(1, now, None, (), 0, 0, 1)]).encode()
        lake.write_file(f"_readings/start_date={day}.json", reading)
    name = {"id": dataset(1), "tenant_id": TENANT, "name": "support-answers", "read_at": now}
    lake.replace(REFERENCE_DATASETS, None, table_of("reference_datasets", [name]), {})
    (tmp_path / "budgets.toml").write_text(BUDGETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSIONS_PIPELINE_BUDGETS", "budgets.toml")
    monkeypatch.setenv("SESSIONS_PIPELINE_DATA_ROOT", "data")
    monkeypatch.setenv("COLUMNS", "80")
    with receiving() as receiver:
        monkeypatch.setenv("SESSIONS_PIPELINE_NOTIFY", receiver.address)
        for command in commands:
            program, *arguments = command.split()
            assert program == "sessions-pipeline"
            cli.main(arguments, standalone_mode=False)
        assert len(receiver.messages) == sum("--notify" in command for command in commands)
    assert "Share" in capsys.readouterr().out.splitlines()[1]
    assert [budget.dataset for budget in load_budgets(Settings.load())] == [None, "support-answers"]


@together
def test_a_budget_for_an_attribute_is_written_as_the_page_says(snippets: list[Snippet], tmp_path: Path) -> None:
    lines = ["[[budget]]", 'name = "main"', "limit = 1.0", 'period = "day"', *(one.text for one in snippets)]
    (tmp_path / "budgets.toml").write_text("\n".join(lines))
    settings = {
        "SESSIONS_PIPELINE_BUDGETS": str(tmp_path / "budgets.toml"),
        "SESSIONS_PIPELINE_ATTRIBUTES": "git.branch",
    }
    [budget] = load_budgets(Settings.model_validate(settings))
    assert (budget.attribute, budget.value) == ("git.branch", "main")


def test_the_pages_addresses_are_valid_for_apprise_and_its_extra_exists() -> None:
    schemes = {scheme for plugin in apprise.Apprise().details()["schemas"] for scheme in _schemes(plugin)}
    assert set(re.findall(r"`(\w+)://", PAGE)) <= schemes
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"sessions-pipeline\[(\w+)\]", PAGE)) <= set(extras)


def _schemes(plugin: dict[str, list[str]]) -> list[str]:
    return [*(plugin["protocols"] or ()), *(plugin["secure_protocols"] or ())]
