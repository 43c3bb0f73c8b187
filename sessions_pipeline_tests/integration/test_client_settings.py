"""Settings that the client refuses before it sends any request, and how it chooses a proxy and certificates."""

import ssl
import subprocess
from pathlib import Path

import pytest
import stamina

from sessions_pipeline.errors import RefusedError, SettingError, UnreachableError
from sessions_pipeline.langsmith import SessionsQuery
from sessions_pipeline.langsmith.auth import CERTIFICATES, Auth, add_certificates, proxy_for
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.transport import Transport
from sessions_pipeline.settings import DEMO, Settings
from sessions_pipeline_tests.integration.scripted_server import Handler, answer, scripted

KEY = "lsv2_pt_0123456789abcdef"
WORKSPACE = "6f1c1f2e-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = [name for kind in ("http", "https", "all", "no") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())]
    ours = ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY", "LANGSMITH_BEARER_TOKEN", "LANGSMITH_WORKSPACE_ID")
    for name in (*ours, *CERTIFICATES, *proxies):
        monkeypatch.delenv(name, raising=False)


def settings(**values: str) -> Settings:
    return Settings(_env_file=None, **values)


def refusal(**values: str) -> SettingError:
    with pytest.raises(SettingError) as caught:
        SessionsClient(settings(**values))
    return caught.value


def test_a_missing_key_is_named_with_a_way_out() -> None:
    error = refusal()
    assert str(error).startswith("LANGSMITH_API_KEY: ")
    assert f"set it, or use `{DEMO}`" in str(error)


def test_a_bearer_token_needs_a_workspace() -> None:
    assert str(refusal(LANGSMITH_BEARER_TOKEN="token")).startswith("LANGSMITH_WORKSPACE_ID: ")


@pytest.mark.parametrize("variable", ["LANGSMITH_API_KEY", "LANGSMITH_BEARER_TOKEN"])
@pytest.mark.parametrize(
    "value", ["key\n", "key\r\nX-Evil: 1", " key", "two words", "'key", 'k"ey', "k\\ey", "schlüssel", "key\x00", " "]
)
def test_a_secret_that_a_header_cannot_carry_is_named_and_not_shown(variable: str, value: str) -> None:
    error = refusal(**{variable: value, "LANGSMITH_WORKSPACE_ID": WORKSPACE})
    assert str(error).startswith(f"{variable}: ")
    assert value.strip() not in str(error) or not value.strip()


@pytest.mark.parametrize(
    "endpoint",
    [
        "api.smith.langchain.com",
        "localhost:8000",
        "ftp://host",
        "https://",
        "https://user:hunter2@host",
        "https://host?key=hunter2",
        "https://host#hunter2",
        "https://ho st",
        "https://host:99999",
        "https://host:0",
        "https://host:port",
        "https://[::1",
        "https://hóst",
        "https://host\n",
    ],
)
def test_an_endpoint_that_is_not_a_plain_address_is_refused(endpoint: str) -> None:
    error = refusal(LANGSMITH_API_KEY=KEY, LANGSMITH_ENDPOINT=endpoint)
    assert str(error).startswith("LANGSMITH_ENDPOINT: ")
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("endpoint", "base"),
    [
        ("https://eu.api.smith.langchain.com", "https://eu.api.smith.langchain.com"),
        ("https://host/api", "https://host"),
        ("https://host/api/v1/", "https://host"),
        ("https://host/api/v2", "https://host"),
        ("http://[::1]:80/langsmith/api/v1", "http://[::1]:80/langsmith"),
        ("https://host/apiary", "https://host/apiary"),
    ],
)
def test_the_base_address_is_the_part_before_the_api_path(endpoint: str, base: str) -> None:
    assert Auth(settings(LANGSMITH_API_KEY=KEY, LANGSMITH_ENDPOINT=endpoint)).base == base


@pytest.mark.parametrize(
    ("endpoint", "loopback"),
    [
        ("http://127.0.0.2:1", True),
        ("http://[::1]:1", True),
        ("http://localhost", True),
        ("http://10.0.0.1", False),
        ("https://localhost.example", False),
    ],
)
def test_loopback_addresses_are_recognized(endpoint: str, loopback: bool) -> None:
    auth = Auth(settings(LANGSMITH_API_KEY=KEY, LANGSMITH_ENDPOINT=endpoint))
    assert auth.is_loopback is loopback


def test_no_representation_shows_the_key() -> None:
    with SessionsClient(settings(LANGSMITH_API_KEY=KEY)) as client:
        shown = repr(client) + str(client) + repr(client._auth) + repr(client._transport)
    assert KEY not in shown


def test_the_key_is_recognized_in_a_servers_text_in_capitals_or_small_letters() -> None:
    auth = Auth(settings(LANGSMITH_API_KEY="lsv2_Pt_AbCdEf"))
    assert auth.clean("to LSV2_PT_ABCDEF and lsv2_pt_abcdef.example") == "to *** and ***.example"


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("ALL_PROXY", "gopher://user:hunter2@host", "ALL_PROXY"),
        ("HTTPS_PROXY", "http://user:hunter2@ho st:x", "HTTPS_PROXY"),
        ("all_proxy", "socks://user:hunter2@127.0.0.1:7890", "all_proxy"),
        ("SSL_CERT_FILE", "no-such-file.pem", "SSL_CERT_FILE"),
        ("REQUESTS_CA_BUNDLE", "no-such-file.pem", "REQUESTS_CA_BUNDLE"),
    ],
)
def test_an_environment_that_httpx_cannot_use_is_named(
    variable: str, value: str, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    error = refusal(LANGSMITH_API_KEY=KEY)
    assert str(error).startswith(f"{named}: ")
    assert "hunter2" not in str(error)


PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("endpoint", "environment", "expected"),
    [
        ("https://api.example", {"HTTPS_PROXY": PROXY}, ("HTTPS_PROXY", PROXY)),
        ("https://api.example", {"https_proxy": "proxy:3128"}, ("https_proxy", PROXY)),
        ("https://api.example", {"ALL_PROXY": "socks://proxy:1"}, ("ALL_PROXY", "socks5://proxy:1")),
        ("https://api.example", {"HTTP_PROXY": PROXY}, None),
        ("http://127.0.0.1:8", {"ALL_PROXY": PROXY}, None),
        ("http://localhost:8", {"HTTP_PROXY": PROXY}, None),
        ("http://[::1]:8", {"HTTP_PROXY": PROXY, "NO_PROXY": "::1/128"}, None),
        ("https://api.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, None),
        ("https://api.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "x, api.example"}, None),
        ("https://api.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": ".example"}, None),
        ("https://api.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "*.example:443"}, None),
        ("https://api.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "https://api.example:443"}, None),
        ("http://10.1.2.3", {"HTTP_PROXY": PROXY, "NO_PROXY": "http://10.1.2.3"}, None),
        ("https://api.example", {"HTTPS_PROXY": PROXY, "NO_PROXY": "https://,"}, ("HTTPS_PROXY", PROXY)),
        (
            "https://api.example",
            {"HTTPS_PROXY": PROXY, "NO_PROXY": "pi.example,fd07::/64,[::1],%"},
            ("HTTPS_PROXY", PROXY),
        ),
        ("https://10.1.2.3", {"HTTPS_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, None),
        ("https://[fd07::5]", {"HTTPS_PROXY": PROXY, "NO_PROXY": "[fd07::]/64"}, None),
        ("https://[fd08::5]", {"HTTPS_PROXY": PROXY, "NO_PROXY": "fd07::/64"}, ("HTTPS_PROXY", PROXY)),
    ],
)
def test_a_proxy_is_used_only_if_the_environment_says_so(
    endpoint: str,
    environment: dict[str, str],
    expected: tuple[str, str] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    auth = Auth(settings(LANGSMITH_API_KEY=KEY, LANGSMITH_ENDPOINT=endpoint))
    assert proxy_for(auth) == expected
    if "socks" not in str(expected):
        Transport(auth, most_connections=1).close()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_reached_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://user:hunter2@127.0.0.1:9")
    given = settings(LANGSMITH_API_KEY=KEY, LANGSMITH_ENDPOINT="http://api.test")
    with (
        stamina.set_testing(testing=True, attempts=2),
        SessionsClient(given) as client,
        pytest.raises(UnreachableError) as caught,
    ):
        client.fetch(SessionsQuery())
    assert str(caught.value).endswith(f"check LANGSMITH_ENDPOINT, network and {variable}")
    assert "hunter2" not in str(caught.value)


def test_a_proxy_that_requires_a_password_is_named() -> None:
    def refuse(handler: Handler) -> None:
        handler.reply(407, b"")

    with scripted(refuse) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTP_PROXY", proxy.url)
        with (
            SessionsClient(settings(LANGSMITH_API_KEY=KEY, LANGSMITH_ENDPOINT="http://api.test")) as client,
            pytest.raises(RefusedError, match=r"proxy .*407.*HTTP_PROXY"),
        ):
            client.fetch(SessionsQuery())
    assert proxy.paths[0].startswith("http://api.test/api/v1/sessions?")


@pytest.mark.parametrize("variable", [None, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_companys_certificate_is_trusted_where_the_environment_names_it(
    variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*made, *named, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    if variable:
        monkeypatch.setenv(variable, str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with scripted(answer(body=b"[]"), tls=context) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        with SessionsClient(settings(LANGSMITH_API_KEY=KEY, LANGSMITH_ENDPOINT=url)) as client:
            if variable:
                assert client.fetch(SessionsQuery()).records == []
                return
            with pytest.raises(RefusedError, match="SSL_CERT_FILE"):
                client.fetch(SessionsQuery())
    assert server.paths == []


def test_an_authority_without_every_extension_is_trusted_on_every_python() -> None:
    context = ssl.create_default_context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does
    assert not add_certificates(context).verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
