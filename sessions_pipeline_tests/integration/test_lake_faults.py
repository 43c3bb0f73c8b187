"""Whatever fails on the disk, a file is the former one or the new one, never a part."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake import Lake
from sessions_pipeline.lake.local import LocalStore
from sessions_pipeline.tables import RAW_SESSIONS
from sessions_pipeline_tests.lake_rows import DAY, raw

STEPS = ("open", "write", "fsync", "replace", "mkdir", "close")
ERRORS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EACCES: "permission denied: give this user access",
    errno.EIO: "the disk reports an I/O error: check it",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: "the file system is read-only: mount it for writing",
    errno.EBUSY: "Device or resource busy: fix this",
}


@contextmanager
def failing(step: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """Call `act` instead of the `step`-th file-system operation. Yields the names of the operations so far."""
    tried: list[str] = []
    originals = {name: getattr(os, name) for name in STEPS}

    def guarded(name: str) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            tried.append(name)
            if len(tried) - 1 == step:
                if name == "write":
                    originals[name](args[0], args[1][: len(args[1]) // 2])
                if name == "close":
                    originals[name](*args)
                act()
            return originals[name](*args, **kwargs)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, guarded(name))
        yield tried


def fail_with(number: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def files_of(root: Path) -> dict[str, bytes]:
    """The contents of all files except the empty lock files."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith("_locks/")}


def every_step(replace: Callable[[], object], reset: Callable[[], None], act: Callable[[], None]) -> Iterator[str]:
    """Make `replace` fail at its first operation, then at its second, and so on until it has no more operations."""
    for step in range(100):
        reset()
        with failing(step, act) as tried:
            try:
                replace()
            except (LakeError, KeyboardInterrupt) as error:
                caught = error
            else:
                assert len(tried) <= step, f"the failure of {tried[step]} was swallowed"
                return
        yield f"{tried[step]}: {caught}"


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("has_former", [True, False], ids=["replacing", "first"])
def test_whatever_fails_only_the_former_file_or_the_new_one_is_there(tmp_path: Path, number: int, has_former: bool):
    root = tmp_path / "lake"
    lake = Lake.open(str(root), query={})
    Path(lake.replace(RAW_SESSIONS, DAY, raw("new"), {}).uri).rename(tmp_path / "new")
    (root / "raw_sessions" / "start_date=2025-01-31").rmdir()
    (root / "raw_sessions").rmdir()
    if has_former:
        lake.replace(RAW_SESSIONS, DAY, raw("former"), {})
    shutil.copytree(root, tmp_path / "former")
    former = files_of(root)
    key = "raw_sessions/start_date=2025-01-31/raw_sessions.parquet"
    new = former | {key: (tmp_path / "new").read_bytes()}

    def reset() -> None:
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "former", root)

    failed = []
    # The day is locked already, so that the operations of the lock library are not tested.
    with lake.lock(DAY):
        for failure in every_step(lambda: lake.replace(RAW_SESSIONS, DAY, raw("new"), {}), reset, fail_with(number)):
            failed.append(failure.partition(":")[0])
            assert ERRORS[number] in failure
            assert str(root) in failure
            assert "\n" not in failure
            was_renamed = "replace" in failed[:-1]
            assert files_of(root) == (new if was_renamed else former), failure
            if not has_former and not was_renamed:
                assert not (root / "raw_sessions").exists()
            lake.replace(RAW_SESSIONS, DAY, raw("new"), {})
            assert files_of(root) == new
    folders = [] if has_former else ["mkdir", "mkdir"]
    assert failed[:5] == ["open", "write", "fsync", "close", (folders or ["replace"])[0]]
    assert failed.count("fsync") == (2 if has_former else 4)


def test_an_interrupt_at_any_moment_leaves_nothing_half_written(tmp_path: Path):
    def interrupt() -> None:
        raise KeyboardInterrupt

    lake = Lake.open(str(tmp_path), query={})
    lake.replace(RAW_SESSIONS, DAY, raw("former"), {})
    former = files_of(tmp_path)

    def reset() -> None:
        lake.replace(RAW_SESSIONS, DAY, raw("former"), {})

    count = 0
    for _ in every_step(lambda: lake.replace(RAW_SESSIONS, DAY, raw("new"), {}), reset, interrupt):
        files = files_of(tmp_path)
        assert files.keys() == former.keys()
        assert lake.read(RAW_SESSIONS, DAY, ["payload"])["payload"][0].as_py() in {"former", "new"}
        count += 1
    assert count >= 6


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_run_that_cannot_lock_says_so_in_one_line(tmp_path: Path, number: int):
    for operation in ("open", "mkdir"):
        lake = Lake.open(str(tmp_path / operation), query={})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, operation, lambda *_args, **_kwargs: fail_with(number)())
            with pytest.raises(LakeError, match=ERRORS[number]) as caught, lake.lock(DAY):
                pass
        assert "\n" not in str(caught.value)


def test_a_table_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path):
    lake = Lake.open(str(tmp_path), query={})
    lake.replace(RAW_SESSIONS, DAY, raw("{}"), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", lambda *_args: fail_with(errno.EACCES)())
        with pytest.raises(LakeError, match="permission denied"):
            lake.days(RAW_SESSIONS)


def test_a_folder_that_cannot_be_synced_is_ignored_but_a_broken_disk_is_an_error(tmp_path: Path):
    original = os.fsync

    def refuse(number: int) -> Callable[[int], None]:
        def fsync(fd: int) -> None:
            if Path(f"/proc/self/fd/{fd}").resolve().is_dir():
                fail_with(number)()
            original(fd)

        return fsync

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refuse(errno.EINVAL))
        LocalStore(tmp_path).put("a/b", b"1")
        patch.setattr(os, "fsync", refuse(errno.EIO))
        with pytest.raises(LakeError, match="I/O error"):
            LocalStore(tmp_path).put("a/b", b"2")


PREAMBLE = """
import os, resource, signal, subprocess, sys
from pathlib import Path
from sessions_pipeline.errors import LakeError
from sessions_pipeline.lake import Lake
from sessions_pipeline.tables import RAW_SESSIONS
from sessions_pipeline_tests.lake_rows import DAY as day, raw

root = Path(sys.argv[1])
lake = Lake.open(str(root), query={})
path = Path(lake.replace(RAW_SESSIONS, day, raw("former"), {}).uri)
former = path.read_bytes()
big = raw(os.urandom(2_000_000).hex())

def refused():
    try:
        lake.replace(RAW_SESSIONS, day, big, {})
    except LakeError as error:
        print(error)
    else:
        sys.exit("it was written")
    assert path.read_bytes() == former
    assert list((root / "_tmp").iterdir()) == []
"""


def run(program: str, root: Path, *prefix: str) -> str:
    command = [*prefix, sys.executable, "-c", PREAMBLE + textwrap.dedent(program), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_size_limit_is_one_line_and_the_former_file_stays(tmp_path: Path):
    program = """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        refused()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        lake.replace(RAW_SESSIONS, day, big, {})
        assert lake.read(RAW_SESSIONS, day).equals(big)
    """
    (line,) = run(program, tmp_path).splitlines()
    assert line.startswith(str(tmp_path))
    assert "the file is larger than this system allows: raise the limit, or point" in line


# Run a command in a mount namespace, so that only it sees its mounts, and they end with it.
OWN_MOUNTS = ("unshare", "--mount", "--map-root-user")


def can_mount() -> bool:
    if shutil.which(OWN_MOUNTS[0]) is None:
        return False
    tried = subprocess.run([*OWN_MOUNTS, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not can_mount(), reason="this machine allows no mounts in a namespace of one's own")
def test_a_full_disk_and_a_read_only_one_are_one_line_each_and_the_former_file_stays(tmp_path: Path):
    program = """
        refused()
        subprocess.run(["mount", "-o", "remount,ro", root.parent], check=True)
        refused()
        subprocess.run(["mount", "-o", "remount,rw,size=20m", root.parent], check=True)
        lake.replace(RAW_SESSIONS, day, big, {})
        assert lake.read(RAW_SESSIONS, day).equals(big)
    """
    mount = f'mount -t tmpfs -o size=1m none "{tmp_path}" && exec "$@"'
    full, read_only = run(program, tmp_path / "lake", *OWN_MOUNTS, "sh", "-c", mount, "sh").splitlines()
    assert "the disk is full: free some space, or point SESSIONS_PIPELINE_DATA_ROOT elsewhere" in full
    assert "the file system is read-only: mount it for writing" in read_only
