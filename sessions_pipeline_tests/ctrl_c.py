"""Make a test's child programs react to Ctrl-C, even if the tests run as a background job, whose children ignore it."""

import sys

_RESTORE_SIGINT = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
)


def accepting_ctrl_c(*command: str) -> list[str]:
    """The command, started by a program that restores the default handling of SIGINT."""
    return [sys.executable, "-c", _RESTORE_SIGINT, *command]
