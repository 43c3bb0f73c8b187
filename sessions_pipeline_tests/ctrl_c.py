"""Make a test's child programs react to Ctrl-C and to a closed terminal, even if the tests themselves ignore them.

The children of a background job ignore SIGINT and SIGQUIT, those of `nohup` SIGHUP. Where SIGINT is ignored, a run of
Dagster in the tests' process makes that ignore SIGTERM, too.
"""

import sys

_RESTORE = (
    "import os, signal, sys; [signal.signal(number, signal.SIG_DFL) for number in "
    "(signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT)]; os.execvp(sys.argv[1], sys.argv[1:])"
)


def accepting_ctrl_c(*command: str) -> list[str]:
    """The command, started by a program that restores the default handling of these signals."""
    return [sys.executable, "-c", _RESTORE, *command]
