"""Runs a command and measures wall seconds, CPU seconds and peak memory of its whole process tree.

    python -S benchmarks/measure.py RESULT.json COMMAND [ARGUMENT...]

This is a small process that uses only the standard library. CPU time includes processes that outlive the command: as
their subreaper, this process inherits them and waits for them. Memory is sampled twenty times a second, as the sum of
the tree's proportional set sizes, in which a shared page counts once.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

INTERVAL = 0.05
_PR_SET_CHILD_SUBREAPER = 36


def tree(root: int) -> list[int]:
    """The process and all its living descendants."""
    found, todo = [], [root]
    while todo:
        process = todo.pop()
        found.append(process)
        try:
            tasks = list(Path(f"/proc/{process}/task").iterdir())
            for task in tasks:
                todo.extend(map(int, (task / "children").read_text().split()))
        except OSError:
            continue
    return found


def memory(processes: list[int]) -> int:
    """Current proportional set size of these processes, in kilobytes."""
    kilobytes = 0
    for process in processes:
        with suppress(OSError, IndexError):  # it has just ended
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            kilobytes += int(rollup.partition("Pss:")[2].split(maxsplit=1)[0])
    return kilobytes


def main() -> None:
    result, command = Path(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started_at, start = time.time(), time.perf_counter()
    child = subprocess.Popen(command)
    peak, finished = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not finished.wait(INTERVAL):
            peak = max(peak, memory(tree(child.pid)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    _, status = os.waitpid(child.pid, 0)
    wall = time.perf_counter() - start
    finished.set()
    sampler.join()
    with suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "status": os.waitstatus_to_exitcode(status),
        "started_at": started_at,
        "wall_seconds": wall,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_megabytes": peak / 1024,
    }
    result.write_text(json.dumps(measured))
    os._exit(0)  # not `sys.exit`: `waitpid` above has already reaped the child of the Popen


if __name__ == "__main__":
    main()
