"""Run the Python blocks of a recipe in docs/reading.md.

This module imports nothing of ours, so that it is also a program for other environments: `python recipes.py <
blocks.json` reads a JSON list of Python blocks, and prints a JSON list of their outputs.
"""

import contextlib
import io
import json
import sys
from collections.abc import Iterable, Iterator


def outputs(blocks: Iterable[str]) -> Iterator[str]:
    """What each block prints, without trailing spaces. The blocks share their variables, as in a notebook."""
    names: dict[str, object] = {}
    for number, code in enumerate(blocks):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"block {number}", "exec"), names)
        yield "".join(f"{line.rstrip()}\n" for line in printed.getvalue().strip("\n").splitlines())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(list(outputs(json.load(sys.stdin)))))
