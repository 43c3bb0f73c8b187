"""After `kill -9` of a real writer, all files are whole, and a rerun leaves no temporary files."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sessions_pipeline.lake import Lake
from sessions_pipeline.tables import RAW_SESSIONS
from sessions_pipeline_tests.integration import lake_writers
from sessions_pipeline_tests.integration.lake_writers import (
    check_nothing_is_stray,
    check_only_whole_files,
    write_generation,
)
from sessions_pipeline_tests.integration.pipeline_runs import files


def running(function: str, *arguments: object) -> subprocess.Popen[str]:
    program = f"import sys; from pathlib import Path; from {lake_writers.__name__} import {function} as f;"
    program += " f(Path(sys.argv[1]), *map(int, sys.argv[2:]))"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.long)])
def test_after_kill_9_at_a_random_moment_files_are_whole_and_a_rerun_leaves_no_temporary_files(
    tmp_path: Path, kills: int
):
    root = tmp_path / "lake"
    moments = random.Random(20250131)
    generations: set[str] = set()
    with running("start_writers", root) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(kills):
            process.stdin.write("\n")
            process.stdin.flush()
            writer = int(process.stdout.readline())
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=moments.uniform(0.001, 0.15))
            os.kill(writer, signal.SIGKILL)
            assert int(process.stdout.readline()) == signal.SIGKILL
            check_only_whole_files(root)
            lake = Lake.open(str(root), query={})
            generations |= {lake.metadata(RAW_SESSIONS, day)["generation"] for day in lake.days(RAW_SESSIONS)}
    assert len(generations) >= 3
    check_that_a_rerun_equals_an_undisturbed_run(tmp_path)


def check_that_a_rerun_equals_an_undisturbed_run(tmp_path: Path) -> None:
    for root in (tmp_path / "lake", tmp_path / "undisturbed"):
        write_generation(root, 7)
        check_nothing_is_stray(root)
    mended, undisturbed = files(tmp_path / "lake"), files(tmp_path / "undisturbed")
    assert mended == undisturbed


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("is_first_write", [0, 1], ids=["replacing", "first"])
def test_after_kill_9_at_every_single_step_files_are_whole_and_a_rerun_leaves_no_temporary_files(
    tmp_path: Path, is_first_write: int, every: int
):
    with running("die_at_every_step", tmp_path / "lake", is_first_write, every) as process:
        steps, _ = process.communicate()
    assert process.returncode == 0
    assert int(steps) > 15
    check_that_a_rerun_equals_an_undisturbed_run(tmp_path)
