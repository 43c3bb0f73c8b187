"""The installed command, and the repository's scripts, which belong to no package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

# The command as users run it, for tests that start it as a program.
COMMAND = str(Path(sys.executable).with_name("sessions-pipeline"))


def load(path: str) -> ModuleType:
    """The script at this path, which is relative to the repository's root, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(__file__).parents[1] / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
