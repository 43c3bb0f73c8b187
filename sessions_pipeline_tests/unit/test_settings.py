"""Settings from the environment and `.env`: wrong values are errors, and misspelt names are warnings."""

import os
from pathlib import Path

import pytest

from sessions_pipeline.errors import SettingError
from sessions_pipeline.lake import Lake
from sessions_pipeline.settings import Settings, without_secrets
from sessions_pipeline_tests.snippets import Snippet, each

OURS = ("LANGSMITH_", "LANGCHAIN_", "SESSIONS_PIPELINE_", "DAGSTER_", "AWS_")
KEY = "lsv2_pt_0123456789abcdef"
WORKSPACE = "6f1c1f2e-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current folder, and an environment without variables that settings read. Both are restored later."""
    monkeypatch.chdir(tmp_path)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OURS) and not name.upper().endswith("_PROXY") and name != "SSL_CERT_FILE"
    }
    monkeypatch.setattr("os.environ", kept)
    return tmp_path


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_dotenv_is_utf_8_with_or_without_a_byte_order_mark(folder: Path, mark: bytes) -> None:
    (folder / ".env").write_bytes(mark + "LANGSMITH_ENDPOINT=https://a.example # Schlüssel\n".encode())
    assert Settings.load().endpoint == "https://a.example"


@pytest.mark.parametrize(
    "content",
    [*("KEY=k\n".encode(name) for name in ("utf-16", "utf-16-le", "utf-32")), "# Schlüssel\n".encode("cp1252")],
)
def test_any_other_encoding_is_an_error_of_one_line(folder: Path, content: bytes) -> None:
    (folder / ".env").write_bytes(content)
    with pytest.raises(SettingError, match=r"^\.env: is not UTF-8; save it as UTF-8$"):
        Settings.load()


@pytest.mark.parametrize("line", ["LANGSMITH_API_KEY: k", 'LANGSMITH_API_KEY="k'])
def test_a_line_of_dotenv_that_sets_nothing_is_an_error_that_tells_where_it_is(folder: Path, line: str) -> None:
    (folder / ".env").write_text(f"LANGSMITH_ENDPOINT=https://a.example\n\n{line}\n")
    with pytest.raises(SettingError, match=r"^\.env: line 3 is not NAME=value, or lacks a quote; correct it$"):
        Settings.load()


def test_a_tilde_in_the_data_root_is_the_home_folder_everywhere(folder: Path) -> None:
    os.environ |= {"HOME": str(folder), "SESSIONS_PIPELINE_DATA_ROOT": "~/lake"}
    settings = Settings.load()
    Lake.open(settings.data_root, query={}).write_file("reports/cost.html", b"")
    assert settings.absolute_data_root == str(folder / "lake")
    assert (folder / "lake" / "reports" / "cost.html").exists()


def test_the_environment_overrides_dotenv_and_empty_values_count_as_unset(folder: Path) -> None:
    (folder / ".env").write_text("SESSIONS_PIPELINE_PAGE_SIZE=10\nSESSIONS_PIPELINE_CONCURRENCY=2\n")
    os.environ |= {"SESSIONS_PIPELINE_PAGE_SIZE": "20", "SESSIONS_PIPELINE_CONCURRENCY": ""}
    settings = Settings.load()
    assert (settings.page_size, settings.concurrency) == (20, 2)


@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_around_a_value_are_stripped(quote: str) -> None:
    os.environ |= {
        "LANGSMITH_API_KEY": f"{quote}{KEY}{quote}",
        "LANGSMITH_ENDPOINT": f"{quote}https://a.example{quote}",
        "LANGSMITH_WORKSPACE_ID": f"{quote}{WORKSPACE}{quote}, {quote}{WORKSPACE}{quote}",
        "SSL_CERT_FILE": f"{quote}/ca.pem{quote}",
    }
    settings = Settings.load()
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == KEY
    assert (settings.endpoint, settings.workspace_ids) == ("https://a.example", (WORKSPACE,))
    assert os.environ["SSL_CERT_FILE"] == "/ca.pem"


def test_dotenv_may_hold_variables_of_other_libraries_and_the_environment_overrides_it(folder: Path) -> None:
    names = ("DAGSTER_HOME", "SSL_CERT_FILE", "HTTPS_PROXY", "no_proxy", "AWS_PROFILE", "AWS_SECRET_ACCESS_KEY")
    (folder / ".env").write_text("".join(f"{name}=from-file\n" for name in (*names, "PATH")))
    os.environ |= {"AWS_PROFILE": "from-environment"}
    path = os.environ["PATH"]
    assert Settings.load().dagster_home == "from-file"
    assert [os.environ[name] for name in names] == [
        "from-environment" if name == "AWS_PROFILE" else "from-file" for name in names
    ]
    assert os.environ["PATH"] == path


@pytest.mark.parametrize("name", ["LANGSMITH_WORKSPACE_ID", "LANGCHAIN_WORKSPACE_ID", "LANGSMITH_TENANT_ID"])
def test_the_workspace_has_the_names_that_official_clients_read(name: str) -> None:
    os.environ[name] = WORKSPACE
    settings = Settings.load()
    assert settings.workspace_ids == (WORKSPACE,)
    assert not settings.warnings


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("SESSIONS_PIPELINE_PAGESIZE", "did you mean SESSIONS_PIPELINE_PAGE_SIZE?"),
        ("SESSIONS_PIPELINE_WHATEVER", "SESSIONS_PIPELINE_WHATEVER is not a setting and has no effect"),
        ("SESSION_PIPELINE_PAGE_SIZE", "did you mean SESSIONS_PIPELINE_PAGE_SIZE?"),
        ("SESSIONS_PIPLINE_DATA_ROOT", "did you mean SESSIONS_PIPELINE_DATA_ROOT?"),
        ("SESSIONS_PIPELINE_DATA", "did you mean SESSIONS_PIPELINE_DATA_ROOT?"),
        ("LANGSMITH_WORKSPACE", "did you mean LANGSMITH_WORKSPACE_ID?"),
        ("LANGSMITH_APIKEY", "did you mean LANGSMITH_API_KEY?"),
        ("langsmith_api_key", "did you mean LANGSMITH_API_KEY?"),
        ("LANSMITH_ENDPOINT", "did you mean LANGSMITH_ENDPOINT?"),
        ("LONGSMITH_WORKSPACE_ID", "did you mean LANGSMITH_WORKSPACE_ID?"),
        ("LANGCHIAN_API_KEY", "did you mean LANGCHAIN_API_KEY?"),
        ("SESSIONSPIPELINE_PAGE_SIZE", "did you mean SESSIONS_PIPELINE_PAGE_SIZE?"),
        ("LANGFUSE_API_KEY", None),
        ("LANGGRAPH_API_KEY", None),
        ("SESSION_MANAGER", None),
        ("LANGSMITH_TRACING", None),
        ("LANGSMITH_PROJECT", None),
        ("LANGCHAIN_TRACING_V2", None),
    ],
)
def test_a_misspelt_variable_is_a_warning_that_suggests_the_right_name(name: str, warning: str | None) -> None:
    os.environ[name] = "x"
    warnings = Settings.load().warnings
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]


@pytest.mark.parametrize(("most", "warnings"), [("", 1), ("60", 0)])
def test_a_store_of_request_rates_without_a_rate_is_a_warning_that_names_what_is_missing(
    most: str, warnings: int
) -> None:
    os.environ |= {"SESSIONS_PIPELINE_RATE_STORE": "redis://host", "SESSIONS_PIPELINE_REQUESTS_PER_MINUTE": most}
    needs = "SESSIONS_PIPELINE_RATE_STORE has no effect without SESSIONS_PIPELINE_REQUESTS_PER_MINUTE"
    assert Settings.load().warnings == (needs,) * warnings


def test_a_page_of_less_than_10_sessions_counts_as_one_of_10() -> None:
    os.environ["SESSIONS_PIPELINE_PAGE_SIZE"] = "1"
    assert Settings.load().page_size == 10


def test_settings_made_in_code_ignore_the_environment() -> None:
    os.environ |= {"LANGSMITH_API_KEY": KEY, "SESSIONS_PIPELINE_PAGE_SIZE": "0"}
    assert (Settings().api_key, Settings().page_size) == (None, 100)


def test_attributes_and_days_per_run_have_their_defaults_and_take_lists_and_numbers() -> None:
    assert (Settings().attributes, Settings().days_per_run) == (("models", "git.branch"), None)
    os.environ |= {"SESSIONS_PIPELINE_ATTRIBUTES": "models, prompt.version", "SESSIONS_PIPELINE_DAYS_PER_RUN": "7"}
    settings = Settings.load()
    assert (settings.attributes, settings.days_per_run) == (("models", "prompt.version"), 7)


@pytest.mark.parametrize("text", [",", " , ", "','"])
@pytest.mark.parametrize("name", ["LANGSMITH_WORKSPACE_ID", "SESSIONS_PIPELINE_ATTRIBUTES", "SESSIONS_PIPELINE_REDACT"])
def test_a_list_of_nothing_but_commas_is_wrong_and_not_as_if_it_were_not_set(name: str, text: str) -> None:
    os.environ[name] = text
    with pytest.raises(SettingError, match=f"^{name}: has only commas; "):
        Settings.load()


def test_every_secret_is_removed_from_a_text_wherever_it_was_set(folder: Path) -> None:
    (folder / ".env").write_text(f"LANGSMITH_API_KEY={KEY}\n")
    os.environ["SESSIONS_PIPELINE_RATE_STORE"] = "redis://:hunter2@host"
    text = without_secrets(f"{KEY} redis://:hunter2@host http://user:swordfish@proxy:80/x")
    assert text == "*** *** http://***@proxy:80/x"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MY_KEYBOARD", "data/lake"),
        ("TOKENIZERS_PARALLELISM", "disabled"),
        ("KEYSTONE_NOTIFYING", "data/lake"),
        ("SORT_KEY", "name"),
        ("HAS_TOKEN", "false"),
        ("SESSIONS_PIPELINE_NOTIFY", "slack"),
        ("AWS_PROFILE", "production"),
    ],
)
def test_a_value_that_is_not_a_secret_stays_readable(name: str, value: str) -> None:
    os.environ[name] = value
    assert without_secrets(f"write {value}://...") == f"write {value}://..."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, "abcd")
            for name in ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY", "langsmith_apikey", "AWS_SESSION_TOKEN")
        ),
        *(
            (name, "hunter2hunter2")
            for name in ("OPENAI_API_KEYS", "API_KEY2", "GITHUBTOKEN", "PGPASSWORD", "MY_SECRETS")
        ),
        ("AWS_SECRET_ACCESS_KEY", "a b,c/d=="),
        ("SESSIONS_PIPELINE_RATE_STORE", "redis://host"),
        *(
            ("SESSIONS_PIPELINE_NOTIFY", text)
            for text in ("slack://a/b/c", "json://x, slack://a/b/c", "slack://a/b/c\tjson://x")
        ),
    ],
)
def test_a_secret_is_hidden_whatever_surrounds_it(name: str, value: str) -> None:
    os.environ[name] = value
    parts = [value, *(part.strip() for part in value.replace("\t", ",").split(",") if "://" in part)]
    for part in parts:
        assert without_secrets(f"bad:{part}!") == "bad:***!"


@pytest.mark.parametrize("password", ["hunter2", "hunter2@b", "@hunter2"])
def test_a_password_in_an_address_is_hidden_completely(password: str) -> None:
    assert without_secrets(f"no proxy at http://me:{password}@proxy:80") == "no proxy at http://***@proxy:80"


@pytest.mark.parametrize("name", ["~/lake", "~nobody-of-this-name/lake"])
def test_a_home_folder_in_the_data_root_is_the_one_that_is_written_and_shown(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("SESSIONS_PIPELINE_DATA_ROOT", name)
    settings = Settings.load()
    written = Lake.open(settings.data_root, query={}).write_file("reports/a.txt", b"a")
    assert written == f"{settings.absolute_data_root}/reports/a.txt"
    assert Lake.open(name, query=None).is_there


def test_a_query_whose_text_is_no_text_is_one_readable_line() -> None:
    os.environ["SESSIONS_PIPELINE_QUERY"] = r'{"name": "\ud800"}'
    with pytest.raises(SettingError, match=r"^SESSIONS_PIPELINE_QUERY: write a JSON object"):
        Settings.load()


def test_a_first_day_before_the_year_2000_is_refused_before_dagster_lists_its_partitions() -> None:
    os.environ["SESSIONS_PIPELINE_START_DATE"] = "0001-01-01"
    with pytest.raises(
        SettingError, match=r"^SESSIONS_PIPELINE_START_DATE: should be greater than or equal to 2000-01-01"
    ):
        Settings.load()


@pytest.mark.parametrize("text", ["1735689600", "20250101", "2025-01-01T00:00:00", "2025-1-1", "2025-13-01", "today"])
def test_a_first_day_in_another_form_than_the_documented_one_is_refused(text: str) -> None:
    os.environ["SESSIONS_PIPELINE_START_DATE"] = text
    with pytest.raises(SettingError, match=r"^SESSIONS_PIPELINE_START_DATE: write YYYY-MM-DD, such as 2026-11-01$"):
        Settings.load()


@pytest.mark.parametrize(
    "name",
    [
        *("LANGSMITH_API_KEY", "LANGSMITH_ENDPOINT", "DAGSTER_HOME"),
        *(f"SESSIONS_PIPELINE_{name}" for name in ("ATTRIBUTES", "BUDGETS", "DATA_ROOT", "JUDGE_PROJECT", "QUERY")),
    ],
)
def test_bytes_that_are_not_utf_8_are_refused_in_every_setting(name: str) -> None:
    os.environ[name] = os.fsdecode(b"caf\xe9")
    with pytest.raises(SettingError, match=f"^{name}: write a text in UTF-8$"):
        Settings.load()


def test_a_time_to_keep_readings_that_no_calendar_reaches_is_refused_before_a_request() -> None:
    os.environ["SESSIONS_PIPELINE_KEEP_READINGS_DAYS"] = "99999999"
    with pytest.raises(SettingError, match=r"^SESSIONS_PIPELINE_KEEP_READINGS_DAYS: should be less than or equal to"):
        Settings.load()


@each
def test_a_query_is_written_as_the_docs_say(snippet: Snippet, folder: Path) -> None:
    (folder / ".env").write_text(f"SESSIONS_PIPELINE_QUERY={snippet.text}\n")
    assert Settings.load().query == {"name_contains": "nightly"}
