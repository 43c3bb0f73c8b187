"""The way to a bucket: AWS's own variables, which the library reads itself, checked and completed."""

import os
import re
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore.store

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake.s3 import S3Store

# Waits between them double from 0.1 s on.
RETRIES = 6


def open_bucket(root: str, *, retries: int = RETRIES) -> S3Store:
    """The store at `s3://bucket/prefix`; a failed request is sent again so many times.

    Raises:
        LakeError: the address names no bucket, or one of AWS's variables is wrong; what may be secret is not repeated.
    """
    address = re.fullmatch(r"s3://([\w.-]+)(?:/([^?]*))?", root)
    if address is None:
        raise LakeError(
            "SESSIONS_PIPELINE_DATA_ROOT: write s3://bucket/prefix, without credentials or options in the address; for"
            " those there are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL"
        )
    bucket, prefix = address[1], (address[2] or "").strip("/")
    return S3Store(f"s3://{bucket}/{prefix}", _connect(bucket, prefix, retries))


def _connect(bucket: str, prefix: str, retries: int) -> obstore.store.S3Store:
    # These stand beside the package's settings. Compose hands unset ones on as empty, and the library would take those
    # at their word.
    for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
        del os.environ[name]
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        address = urlsplit(os.environ.get(name, ""))
        if name in os.environ and not (address.scheme in {"http", "https"} and address.hostname):
            raise LakeError(f"{name}: write an address such as https://minio.example.com:9000")
    client: Any = {"allow_http": True, "connect_timeout": "5s", "read_timeout": "60s", "timeout": timedelta(minutes=10)}
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        client["root_certificate"] = _certificates(bundle)
    backoff: Any = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    credentials, endpoint = _profile() if os.environ.get("AWS_PROFILE") else (None, {})
    config: Any = {"disable_bulk_delete": True} | endpoint
    return obstore.store.S3Store(
        bucket,
        prefix=prefix or None,
        client_options=client,
        retry_config={"max_retries": retries, "backoff": backoff, "retry_timeout": timedelta(minutes=3)},
        credential_provider=credentials,
        config=config,
    )


def _certificates(bundle: str) -> bytes:
    try:
        return Path(bundle).read_bytes()
    except OSError as error:
        raise LakeError(f"AWS_CA_BUNDLE: {error.strerror}; name a file of certificates") from None


def _profile() -> tuple[Any, dict[str, str]]:
    """What reads `~/.aws` for AWS_PROFILE, and the endpoint if the profile names one; roles and variables need none."""
    try:
        boto3 = import_module("boto3")
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415
    except ImportError:
        raise LakeError("AWS_PROFILE: needs boto3; install it, or set AWS_ACCESS_KEY_ID instead") from None
    try:
        endpoint = boto3.Session().client("s3").meta.endpoint_url
        named = {} if str(urlsplit(endpoint).hostname).endswith(".amazonaws.com") else {"endpoint": endpoint}
        return Boto3CredentialProvider(), named
    except Exception as error:  # noqa: BLE001
        raise LakeError(f"AWS_PROFILE: {' '.join(str(error).split())[:200]}") from None
