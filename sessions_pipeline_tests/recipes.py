"""Runs a recipe of docs/reading.md. By itself, in an environment that has none of ours, it is a program.

`python recipes.py < blocks.json` takes a list of Python blocks, and prints a list of what each prints.
"""

import contextlib
import io
import json
import sys
from collections.abc import Iterable, Iterator


def outputs(blocks: Iterable[str]) -> Iterator[str]:
    """What each block prints, without spaces at the lines' ends; blocks share their names, as in a notebook."""
    names: dict[str, object] = {}
    for number, code in enumerate(blocks):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"block {number}", "exec"), names)
        yield "".join(f"{line.rstrip()}\n" for line in printed.getvalue().strip("\n").splitlines())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(list(outputs(json.load(sys.stdin)))))
