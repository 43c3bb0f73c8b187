"""The settings that set-up passes on from pip's configuration to uv."""

from sessions_pipeline_tests.scripts import load

install = load("tools/install.py")


def test_a_mirror_in_pips_configuration_is_passed_to_uv() -> None:
    listed = "global.index-url='https://mirror.example/simple'\nglobal.cert='/etc/ca.pem'\n"
    environment = install.uv_environment(listed, {})
    assert environment["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert environment["SSL_CERT_FILE"] == "/etc/ca.pem"


def test_pips_variables_override_its_file_and_uvs_variables_override_both() -> None:
    listed = ":env:.index-url='https://variable.example'\nglobal.index-url='https://file.example'\n"
    assert install.uv_environment(listed, {})["UV_DEFAULT_INDEX"] == "https://variable.example"
    assert install.uv_environment(listed, {"UV_DEFAULT_INDEX": "https://own.example"})["UV_DEFAULT_INDEX"] == (
        "https://own.example"
    )


def test_several_addresses_are_passed_to_uv_with_its_separator() -> None:
    listed = "global.extra-index-url='https://a.example\\nhttps://b.example'\nglobal.find-links='/wheels /more'\n"
    environment = install.uv_environment(listed, {})
    assert environment["UV_INDEX"] == "https://a.example https://b.example"
    assert environment["UV_FIND_LINKS"] == "/wheels,/more"


def test_uv_uses_the_systems_certificates_without_any_configuration() -> None:
    assert install.uv_environment("", {"PATH": "/bin"})["UV_SYSTEM_CERTS"] == "1"


def test_requests_ca_bundle_is_passed_to_uv_unless_pip_or_uv_has_another_certificate_file() -> None:
    bundle = {"REQUESTS_CA_BUNDLE": "/etc/bundle.pem"}
    assert install.uv_environment("", bundle)["SSL_CERT_FILE"] == "/etc/bundle.pem"
    assert install.uv_environment("global.cert='/etc/ca.pem'\n", bundle)["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert install.uv_environment("", {**bundle, "SSL_CERT_FILE": "/own.pem"})["SSL_CERT_FILE"] == "/own.pem"
