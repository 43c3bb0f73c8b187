"""Runs one command and says what it took: wall and CPU seconds, and the peak memory of its whole process tree.

    python -S benchmarks/measure.py RESULT.json COMMAND [ARGUMENT...]

A small process of its own, with the standard library alone: a child's peak as the kernel counts it includes what its
parent held when it forked, so the parent has to be smaller than anything measured. CPU time is that of all processes,
also of those that outlive the command: as their subreaper, this process inherits them and waits for them too. Memory is
sampled: the resident set of a single process (with the kernel's own high-water mark), the sum of proportional set sizes
(shared pages counted once) as soon as there are several.
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


def _kilobytes(path: str, field: str) -> int:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return 0


def memory(processes: list[int]) -> int:
    """Kilobytes that these processes hold now."""
    if len(processes) == 1:
        return _kilobytes(f"/proc/{processes[0]}/status", "VmHWM:")
    return sum(_kilobytes(f"/proc/{process}/smaps_rollup", "Pss:") for process in processes)


def main() -> None:
    result, command = Path(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    start = time.perf_counter()
    child = subprocess.Popen(command)
    peak, finished = 0, threading.Event()

    def sample() -> None:
        nonlocal peak
        while not finished.wait(INTERVAL):
            peak = max(peak, memory(tree(child.pid)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    finished.set()
    sampler.join()
    with suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "status": os.waitstatus_to_exitcode(status),
        "wall_seconds": wall,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_megabytes": max(peak, usage.ru_maxrss) / 1024,
    }
    result.write_text(json.dumps(measured))
    os._exit(0)  # the child was waited for here, which its Popen need not know


if __name__ == "__main__":
    main()
