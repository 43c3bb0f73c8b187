"""Programs that a test interrupts hear Ctrl-C, also where the tests are a background job, whose children ignore it."""

import sys

_HEAR = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"


def hearing_ctrl_c(*command: str) -> list[str]:
    """The command, begun by a program that lets SIGINT through."""
    return [sys.executable, "-c", _HEAR, *command]
