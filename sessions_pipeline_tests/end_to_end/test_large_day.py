"""A run's memory follows the parts in which it reads, validates and writes a day, and not the day."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from sessions_pipeline.sandbox.company import WORKSPACE
from sessions_pipeline_tests.builders import dataset
from sessions_pipeline_tests.faulty_server import running_sandbox
from sessions_pipeline_tests.scripts import COMMAND

SMALL, LARGE = 10_000, 40_000
DAY = datetime(2026, 3, 3, tzinfo=UTC)
SCORES = ("correctness", "helpfulness", "conciseness", "toxicity", "format_ok")
# Costs are summed by each of these. All but `models` have another value for each session.
ATTRIBUTES = "models,git.branch,git.commit,revision_id"
RUN = (COMMAND, "materialize", "--from", str(DAY.date()), "--to", str(DAY.date()))
# Prints the peak of a command's memory in kilobytes. In a process of its own, because a command's peak begins with what
# the process that starts it has in memory.
MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


def sessions(count: int) -> Iterator[str]:
    """The JSON texts of a day's sessions of 2.4 kB, newest first, in no order of their ids."""
    random, apart = Random(7), timedelta(days=1) / count
    phrases = [f"{random.getrandbits(240):060x}" for _ in range(1000)]
    for number in range(count):
        commit, runs = f"{random.getrandbits(160):040x}", random.randrange(1, 400)
        metadata = {
            "git": {"commit": commit, "branch": f"feature/{commit[:7]}", "dirty": False},
            "models": [random.choice(("small", "large"))],
            "revision_id": commit[:10],
            "prompt": " ".join(random.choices(phrases, k=24)),
        }
        scores = random.sample(SCORES, 3)
        session = {
            "id": f"{commit[:8]}-0000-4000-8000-{number:012d}",
            "tenant_id": WORKSPACE,
            "reference_dataset_id": dataset(random.randrange(20)),
            "name": f"experiment-{number}",
            "start_time": (DAY + timedelta(days=1) - apart * (number + 1)).isoformat(),
            "extra": {"metadata": metadata},
            "run_count": runs,
            "total_tokens": random.randrange(10**6),
            "total_cost": f"{random.randrange(10**6) / 10**7:.7f}",
            "latency_p50": random.random(),
            "error_rate": random.random() / 10,
            "feedback_stats": {key: {"n": runs, "avg": random.random(), "stdev": random.random()} for key in scores},
        }
        yield json.dumps(session)


def peak(texts: list[str], folder: Path) -> int:
    """The most bytes that a process has in memory which reads a day of these sessions and writes all its tables."""
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LANG", "SESSIONS_", "DAGSTER"))}
    with running_sandbox(texts=texts, now=DAY + timedelta(days=2)) as sandbox:
        settings = {
            "LANGSMITH_API_KEY": sandbox.key,
            "LANGSMITH_ENDPOINT": sandbox.url,
            "SESSIONS_PIPELINE_ATTRIBUTES": ATTRIBUTES,
        }
        command = (sys.executable, "-c", MEASURE, *RUN)
        run = subprocess.run(command, env=kept | settings, cwd=folder, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return 1024 * int(run.stderr.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is tuned for Linux, which counts it in kilobytes")
def test_a_further_session_on_a_large_day_adds_less_than_twice_its_own_text_to_the_peak(tmp_path: Path) -> None:
    """It adds 0.8 to 1.7 times its text: compressed parts, columns that are needed whole, and memory not yet returned.

    It adds 2.2 to 5.5 times its text if the day is validated, derived, summed or written all at once. How much memory
    the allocator has not yet returned differs from run to run, so the lower of two peaks counts.
    """
    large, small = list(sessions(LARGE)), list(sessions(SMALL))
    text = sum(map(len, large)) - sum(map(len, small))
    added = min(peak(large, tmp_path / name) for name in ("large", "again")) - peak(small, tmp_path / "small")
    assert 0.1 < added / text < 2
