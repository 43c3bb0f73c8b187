"""Make a test's child programs react to Ctrl-C and to a closed terminal, even if the tests themselves ignore them.

The children of a background job ignore SIGINT, those of `nohup` SIGHUP.
"""

import sys

_RESTORE = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)


def accepting_ctrl_c(*command: str) -> list[str]:
    """The command, started by a program that restores the default handling of both signals."""
    return [sys.executable, "-c", _RESTORE, *command]
