"""The places that a lake can be in: a folder, and a bucket of moto's server, one server for each test process."""

from collections.abc import Iterator
from hashlib import sha256

import pytest

from sessions_pipeline.lake import s3
from sessions_pipeline_tests.integration.s3_server import S3Server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture
def server(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, free of faults, and an environment that leads to it."""
    s3_server.fail()
    monkeypatch.setattr(s3, "RETRIES", 2)
    monkeypatch.setattr(s3, "_CONDITIONAL", {})
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-that-is-never-shown",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{s3_server.port}",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return s3_server


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest) -> str:  # noqa: ARG001
    """An address under which nothing is yet."""
    return f"s3://bucket/{sha256(request.node.nodeid.encode()).hexdigest()[:16]}"
