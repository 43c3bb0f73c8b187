"""Commands that are imported when they are run: `--help` does not wait a second for Dagster."""

import difflib
import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands are named as `module:attribute`."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        """`lazy` maps command names to `module:attribute`."""
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order that a newcomer needs them."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command.

        Raises:
            click.UsageError: there is no such command, but one of a similar name.
        """
        if cmd_name not in self._lazy:
            if close := difflib.get_close_matches(cmd_name, self._lazy, n=1):
                raise click.UsageError(f"No such command '{cmd_name}'; did you mean '{close[0]}'?", ctx)
            return None
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import Dagster without looking for garbage among a million objects that stay: a sixth of its time."""
    if sys.stderr.isatty():
        click.echo("Loading Dagster ...", err=True)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
