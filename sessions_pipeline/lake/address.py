"""Which place an address leads to."""

import re

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake.local import LocalStore
from sessions_pipeline.lake.store import Store


def store_at(root: str) -> Store:
    """The place that an address leads to.

    Raises:
        LakeError: it is of another kind, which is not repeated, since it may hold credentials.
    """
    if root.startswith("s3://"):
        # Imported here because a folder needs none of it.
        from sessions_pipeline.lake.s3_client import open_bucket  # noqa: PLC0415

        return open_bucket(root)
    if re.match(r"\w[\w+.-]+:/", root):
        raise LakeError("SESSIONS_PIPELINE_DATA_ROOT: takes a folder or an s3://bucket/prefix address")
    return LocalStore(root)
