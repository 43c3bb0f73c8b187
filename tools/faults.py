"""Mutation test: puts one-line faults into a copy of the code, one at a time, and checks that tests fail.

`.venv/bin/python tools/faults.py` tries all faults, `tools/faults.py 3 17` those two; the exit status is 1 if the tests
pass despite a fault. For each fault only the tests that should notice it are run. Not part of `make test`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("sessions_pipeline", "sessions_pipeline_tests", "docs", "README.md", "CONTRIBUTING.md", "pyproject.toml")
UNIT, INTEGRATION = "sessions_pipeline_tests/unit/test_", "sessions_pipeline_tests/integration/test_"


class Fault(NamedTuple):
    """Text that occurs once in a module, its replacement, and the test file that should fail, with words for `-k`."""

    file: str
    text: str
    replacement: str
    tests: str
    words: str = ""


FAULTS = (
    Fault("langsmith/page", "> (last_active(later)", "< (last_active(later)", f"{INTEGRATION}source", "newest"),
    Fault(
        "tables/derived_day",
        "(numbers[row], row)",
        "(-numbers[row], row)",
        f"{UNIT}retention",
    ),
    Fault("tables/retention", ">= retention", "> retention", f"{UNIT}retention", "retention"),
    Fault("tables/retention", "days=400", "days=401", f"{UNIT}retention", "retention"),
    Fault("tables/sessions", "not in _KNOWN_DRIFT", "in _KNOWN_DRIFT", f"{UNIT}checks", "drift"),
    Fault("tables/retention", "days=14", "days=15", f"{UNIT}retention", "retention"),
    Fault("langsmith/lists", "days=31", "days=30", f"{UNIT}days"),
    Fault("measurements", "<= REACH", "< REACH", f"{UNIT}days"),
    Fault("days", "days=start_us // DAY_US", "days=(start_us - 1) // DAY_US", f"{UNIT}days"),
    Fault("days", "return at >= midnight", "return at > midnight", f"{UNIT}days"),
    Fault(
        "measurements",
        "*rows, before.filter(pc.invert(is_read))",
        "*rows",
        f"{INTEGRATION}pipeline_usage",
        "kept",
    ),
    Fault(
        "orchestration/automation",
        "DefaultScheduleStatus.RUNNING",
        "DefaultScheduleStatus.STOPPED",
        f"{INTEGRATION}pipeline_schedules",
        "default",
    ),
    Fault(
        "orchestration/automation",
        "DefaultSensorStatus.RUNNING",
        "DefaultSensorStatus.STOPPED",
        f"{INTEGRATION}pipeline_schedules",
        "default",
    ),
    Fault(
        "activity",
        "lookback_days + 1)",
        "lookback_days + 2)",
        f"{INTEGRATION}pipeline_schedules",
        "every_day",
    ),
    Fault(
        "activity",
        "latest = self.stopped.since if self.stopped else max(",
        "latest = max(",
        f"{UNIT}sensor",
        "several_ticks",
    ),
    Fault("process_day", "rejected < LEAST_REJECTED", "rejected <= LEAST_REJECTED", f"{UNIT}process_day", "rejected"),
    Fault(
        "process_day",
        "rejected <= derived.options.max",
        "rejected < derived.options.max",
        f"{UNIT}process_day",
        "rejected",
    ),
    Fault("tables/raw_sessions", " if workspace in covered", "", f"{UNIT}process_day", "workspace"),
    Fault("tables/readings", "gone.pop(key, None)", "pass", f"{UNIT}process_day", "gone"),
    Fault(
        "langsmith/client",
        "> CLOCK_TOLERANCE else",
        "> 2 * CLOCK_TOLERANCE else",
        f"{INTEGRATION}cli_errors",
        "clock",
    ),
    Fault("langsmith/window", "or not set(last.identities) <= set(ids)", "and False", f"{UNIT}window", "shrinks"),
    Fault(
        "langsmith/page",
        "max(before_last, default=-1)",
        "max(before_last, default=-1) + 1",
        f"{UNIT}window",
        "not twenty",
    ),
    Fault("langsmith/window", "idle += 1", "idle += 0", f"{UNIT}window", "misbehaving"),
    Fault(
        "validation/types",
        "precision + 1, rounding=ROUND_HALF_EVEN",
        "precision + 1, rounding='ROUND_DOWN'",
        f"{UNIT}validate",
    ),
    Fault("validation/types", 'raise ValueError("is negative")', "return exact", f"{UNIT}validate"),
    Fault("langsmith/redaction", '"\\\\" in payload or ', "", f"{UNIT}redaction"),
    Fault(
        "langsmith/api_versions", '[] if items == "null" else read_page', "read_page", f"{UNIT}second_version", "null"
    ),
    Fault("langsmith/throttle", "self._slots / 2", "self._slots / 1", f"{UNIT}throttle"),
    Fault("langsmith/throttle", "max(self._paused_until, until)", "until", f"{UNIT}throttle"),
    Fault(
        "langsmith/status_errors",
        "case 401 | 403 if not is_json",
        "case 401 if not is_json",
        f"{INTEGRATION}client",
        "transient",
    ),
    Fault(
        "langsmith/transport",
        "response.is_success and len(body) > most:",
        "response.is_success and len(body) > 9**20:",
        f"{INTEGRATION}client",
        "decompresses",
    ),
    Fault(
        "langsmith/transport",
        "left: float = self._current.end - self._clock()",
        "left: float = timeout",
        f"{INTEGRATION}client",
        "slow_answer",
    ),
    Fault("langsmith/auth", 'return entry == "*"', 'return entry == ""', f"{INTEGRATION}client_settings", "proxy"),
    Fault(
        "lake/layout",
        "return day if day.isoformat() == value else None",
        "return day",
        f"{INTEGRATION}lake_foreign",
        "spelling",
    ),
    Fault(
        "lake/commits",
        "if commit < _commit_of(stored) <=",
        "if 2**62 < _commit_of(stored) <=",
        f"{INTEGRATION}lake_commits",
        "earlier",
    ),
    Fault(
        "process_day",
        "raw.rows, metadata, expected=raw.version)",
        "raw.rows, metadata)",
        f"{UNIT}process_day",
        "overtaken or late",
    ),
    Fault("outputs/formatting", "[=+\\-@\\uff1d\\uff0b\\uff0d\\uff20\\t\\r]", "[=+\\-@\\t\\r]", f"{UNIT}formatting"),
    Fault("outputs/formatting", "\\x7f-\\x9f", "\\x7f", f"{UNIT}formatting"),
    Fault(
        "tables/daily_cost_by_reference_dataset", "pc.greater(tokens, 0)", "pc.greater_equal(tokens, 0)", f"{UNIT}costs"
    ),
    Fault(
        "tables/daily_cost_by_project", "is_steady and all(value >= 0 for value in known)", "is_steady", f"{UNIT}usage"
    ),
    Fault("settings", "if len(part) >= least}", "if len(part) > 300}", f"{UNIT}settings"),
)


def main() -> int:
    """Try the faults with the given numbers, or all, and print a table; returns 1 if one went unnoticed."""
    chosen = [int(number) for number in sys.argv[1:]] or range(1, len(FAULTS) + 1)
    unnoticed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(folder) / name)
        for number in chosen:
            fault, began = FAULTS[number - 1], time.monotonic()
            outcome = _try(fault, Path(folder))
            unnoticed += [number] if outcome != "noticed" else []
            took = time.monotonic() - began
            print(f"{number:3}  {outcome:<9}  {took:4.0f} s  {fault.file:<40}  {fault.replacement[:60]!r}", flush=True)  # noqa: T201
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} noticed{f'; not: {unnoticed}' if unnoticed else ''}")  # noqa: T201
    return 1 if unnoticed else 0


def _try(fault: Fault, root: Path) -> str:
    file = root / "sessions_pipeline" / f"{fault.file}.py"
    original = file.read_text()
    if original.count(fault.text) != 1:
        return "moved"
    file.write_text(original.replace(fault.text, fault.replacement))
    try:
        options = ["-k", fault.words] if fault.words else []
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-qx", "-n0", "-p", "no:cacheprovider", f"{fault.tests}.py", *options],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "noticed"  # it would hang in `make test`, too
    finally:
        file.write_text(original)
    return {0: "UNNOTICED", 1: "noticed"}.get(done.returncode, "no tests")


if __name__ == "__main__":
    sys.exit(main())
