"""What worker processes do in tests. Here, because they import the module of their task, and then load no Dagster."""

import os
import signal
from datetime import date

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake import Lake
from sessions_pipeline.tables import RAW_SESSIONS


def double(_lake: Lake, number: int) -> int:
    if number < 0:
        raise LakeError(f"{number} is too small")
    return 2 * number


def die(_lake: Lake, number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def metadata(lake: Lake, day: date) -> dict[str, str]:
    return lake.metadata(RAW_SESSIONS, day)


def who(_lake: Lake, _number: int) -> int:
    return os.getpid()
