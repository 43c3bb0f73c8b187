"""Fixtures for the places where a lake can be: a folder, or a bucket on moto's server."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from sessions_pipeline_tests.integration.pipeline_runs import Bucket, DataRoot
from sessions_pipeline_tests.integration.s3_server import S3Server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture
def server(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The S3 server without faults, and the environment variables that lead to it. It is tried again after 10 ms."""
    s3_server.fail()
    monkeypatch.setattr("sessions_pipeline.lake.s3.FIRST_WAIT", 0.01)
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
    """An empty prefix in the bucket, which belongs to this test alone."""
    return f"s3://bucket/{sha256(request.node.nodeid.encode()).hexdigest()[:16]}"


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.long)])
def data_root(request: pytest.FixtureRequest, tmp_path: Path) -> DataRoot:
    """A data root in a folder, and in the long suite also in a bucket. `also_in_a_bucket` tries both always."""
    return tmp_path / "lake" if request.param == "folder" else Bucket(request.getfixturevalue("bucket"))
