"""Compares our command line with other tools: whole processes, each in a new folder, in interleaved rounds.

    python benchmarks/bench.py                      # small sizes, minutes
    python benchmarks/bench.py --full --write       # the sizes of docs/performance.md, hours
    python benchmarks/bench.py --full --only backfill --rounds 5

Runs with Python 3.11 or newer. It creates two environments: one for the peers from `benchmarks/requirements.lock`, and
one for the product from `requirements.lock` and this checkout, as a user would install it. It prints a table for each
scenario, stores the trials in `benchmarks/results/`, and with `--write` puts the tables between the marks of
`docs/performance.md`. The exit status is 1 if a contender failed, lost a session or computed a wrong sum.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PEERS, PRODUCT = HERE / ".venv" / "peers", HERE / ".venv" / "product"


def make_environments() -> None:
    """Create both environments, or update those whose lock has changed; always reinstall the checkout."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        sys.exit("bench: no uv found; run `make setup` first")

    def pip(folder: Path, *words: str | Path) -> None:
        command, *others = words
        general = ["--quiet", "--compile-bytecode", "--python", folder / "bin" / "python"]
        subprocess.run([uv, "pip", command, *general, *others], check=True)

    for folder, lock in ((PEERS, HERE / "requirements.lock"), (PRODUCT, HERE.parent / "requirements.lock")):
        stamp = folder / "installed.lock"
        if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
            pip(folder, "sync", "--require-hashes", lock)
            stamp.write_bytes(lock.read_bytes())
    pip(PRODUCT, "install", "--no-deps", "--no-build-isolation", "--reinstall", HERE.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the sizes and rounds of docs/performance.md")
    parser.add_argument("--only", action="append", help="run only this scenario; repeatable")
    parser.add_argument("--without", action="append", default=[], help="leave out this contender; repeatable")
    parser.add_argument("--rounds", type=int, help="number of rounds; default: the scenario's own")
    parser.add_argument("--write", action="store_true", help="fill docs/performance.md from all results of this size")
    given = parser.parse_args()
    if Path(sys.prefix) != PEERS:
        make_environments()
        os.execv(PEERS / "bin" / "python", [str(PEERS / "bin" / "python"), __file__, *sys.argv[1:]])
    import report  # noqa: PLC0415 - needs the packages just installed
    import scenarios  # noqa: PLC0415
    import trial  # noqa: PLC0415

    size = "full" if given.full else "small"
    RESULTS.mkdir(exist_ok=True)
    failures = 0
    for scenario in scenarios.scenarios(full=given.full):
        if given.only and scenario.name not in given.only:
            continue
        print(f"{scenario.title}, {given.rounds or scenario.rounds} rounds", file=sys.stderr)
        result, failed = trial.run(scenario, given.rounds or scenario.rounds, given.without)
        failures += failed
        (RESULTS / f"{size}-{scenario.name}.json").write_text(json.dumps(result, indent=1))
        print(f"\n{report.table(result)}\n", flush=True)
    if given.write:
        report.write(size)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
