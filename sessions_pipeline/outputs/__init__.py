"""What people and programs get from the lake: the report, budgets, notifications, the FOCUS export, and `read`."""

import sys
from datetime import date
from pathlib import Path

from sessions_pipeline.errors import LakeError

# The path below the data root.
REPORT_FILE = "reports/cost.html"


def judges_command(day: date) -> str:
    """The command that measures judges. It requires a day, but measures the same experiments whatever the day is."""
    return f"sessions-pipeline materialize --from {day} --to {day} --select judge_cost_by_experiment"


def write_named(file: Path, content: bytes) -> str:
    """Write a file that the user named, and return its absolute path; `-` is standard output, whose path is empty.

    Raises:
        LakeError: the file can't be written. If that is so only in its middle, because the disk is full, it is removed.
    """
    if str(file) == "-":
        sys.stdout.buffer.write(content)
        return ""
    try:
        file.write_bytes(content)
    except OSError as error:
        # Only an error of opening the file has its name. A device such as /dev/stdout must never be removed.
        if not error.filename and file.is_file():
            file.unlink()
        raise LakeError(f"{file}: {error.strerror}; choose another file") from None
    return str(file.resolve())
