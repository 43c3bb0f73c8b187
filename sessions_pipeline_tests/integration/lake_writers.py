"""Writers of a lake that are killed. Here, because the processes that fork them then need not load Dagster."""

import itertools
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.layout import UNDATED, Day
from sessions_pipeline.tables import RAW_SESSIONS, REJECTED_SESSIONS, Table
from sessions_pipeline_tests.lake_rows import DAY, rows

DAYS: tuple[Day, ...] = (DAY, UNDATED)
TABLES = (RAW_SESSIONS, REJECTED_SESSIONS)


def content(table: Table, generation: int) -> pa.Table:
    count = 1 + generation * 37 % 400
    text = random.Random(generation).randbytes(200 * count).hex()
    payloads = [text[start : start + 400] for start in range(0, len(text), 400)]
    return rows(table, count, session_id=[f"{i:04}" for i in range(count)], payload=payloads)


def write_generation(root: Path, generation: int, tables: tuple[Table, ...] = TABLES) -> None:
    lake = Lake.open(str(root), query={})
    for table, day in itertools.product(tables, DAYS):
        lake.replace(table, day, content(table, generation), {"generation": str(generation)})


def start_writers(root: Path) -> None:
    """For every line of input, start a process that writes generations until it is killed, and print its id."""
    write_generation(root, 0)
    for kill, _line in enumerate(sys.stdin):
        child = os.fork()
        if child == 0:
            for generation in itertools.count(kill * 1000):
                write_generation(root, generation)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        sys.stdout.write(f"{os.WTERMSIG(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def die_at_every_step(root: Path, is_first_write: int, every: int) -> None:
    """Fork writers in turn, each of which kills itself `every` file-system operations later than the one before."""
    write_generation(root, 0, TABLES[:1])
    for step in itertools.count(step=every):
        if is_first_write:
            shutil.rmtree(root)
        child = os.fork()
        if child == 0:
            steps = itertools.count()
            for name in ("open", "write", "fsync", "replace", "mkdir", "close", "unlink", "rmdir"):
                setattr(os, name, dying(getattr(os, name), steps, step))
            write_generation(root, step, TABLES[:1])
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        check_only_whole_files(root)
        write_generation(root, step, TABLES[:1])
        check_nothing_is_stray(root)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    sys.stdout.write(f"{step}\n")


def dying(operation: Any, steps: Any, last: int) -> Any:
    def operate(*args: Any, **kwargs: Any) -> Any:
        if next(steps) == last:
            if operation.__name__ == "write":
                operation(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return operation(*args, **kwargs)

    return operate


def check_only_whole_files(root: Path) -> None:
    lake = Lake.open(str(root), query={})
    for table, day in itertools.product(TABLES, DAYS):
        if lake.has(table, day):
            generation = int(lake.metadata(table, day)["generation"])
            assert lake.read(table, day).equals(content(table, generation))


def check_nothing_is_stray(root: Path) -> None:
    assert list(root.glob("_tmp/*")) == []
    empty = [path for path in root.rglob("*") if path.is_dir() and path.name != "_tmp" and not list(path.iterdir())]
    assert empty == []
