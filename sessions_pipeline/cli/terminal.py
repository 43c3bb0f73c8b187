"""What the command line writes: safe for a terminal, whole for other programs, within what the output can encode."""

import io
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sessions_pipeline.outputs.formatting import visible
from sessions_pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

# Where the output is no terminal, such as a log.
WIDTH = 120
NUMBERS = {"Experiments", "No cost", "Runs", "Tokens", "Cost"}


def escape_what_cannot_be_encoded() -> None:
    """Make both outputs write an escape for a character that their encoding lacks, where Python would fail.

    An output that was closed before the start, which is None, swallows what is written.
    """
    sys.stdout = sys.stdout or Path(os.devnull).open("w")
    sys.stderr = sys.stderr or Path(os.devnull).open("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(message: str) -> None:
    """One line on standard error."""
    click.echo(f"sessions-pipeline: {visible(' '.join(message.split()))}", err=True)


def load_settings() -> Settings:
    """The settings; warnings about them are said.

    Raises:
        SettingError: a variable is wrong.
    """
    settings = Settings.load()
    for warning in settings.warnings:
        say(warning)
    return settings


def is_utf8() -> bool:
    """Whether standard output takes every character."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    footer: Sequence[str] = (),
    drop: Sequence[str] = (),
    hide: str | None = None,
    width: int | None = None,
) -> None:
    """Print rows without the column `hide`; counts and money to the right. `width`: the terminal's own without it.

    Where a terminal is too narrow, the columns of `drop` are left out, the first one first; a cell is never broken over
    lines, and cut only if nothing else helps.
    """
    from rich.console import Console

    console = Console(width=width or (None if sys.stdout.isatty() else WIDTH))
    for dropped in range(len(drop) + 1):
        table = _table(columns, rows, footer, set(columns) - {hide, *drop[:dropped]})
        if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
            break
    console.print(table)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str], kept: set[str]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    encoding = sys.stdout.encoding or "ascii"

    def text(cell: str) -> Text:
        return Text(visible(cell).encode(encoding, "backslashreplace").decode(encoding))

    table = Table(
        box=box.SIMPLE_HEAD if is_utf8() else None,
        show_footer=bool(footer),
        pad_edge=False,
        padding=(0, 1 if is_utf8() else 2, 0, 0),
    )
    places = [place for place, name in enumerate(columns) if name in kept]
    for place in places:
        justify: Any = "right" if columns[place] in NUMBERS else "left"
        table.add_column(
            columns[place].replace("Bar", ""), footer[place] if footer else "", justify=justify, no_wrap=True
        )
    for row in rows:
        table.add_row(*(text(row[place]) for place in places))
    return table


@contextmanager
def progress_bar(days: int) -> Iterator["Callable[[date], None]"]:
    """A bar on a terminal; yields what is told of each finished day.

    It draws on a copy of standard error, because Dagster redirects the descriptor itself while a step runs.
    """
    if not sys.stderr.isatty():
        yield lambda _day: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (TextColumn("Days"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[day]}"))
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace") as terminal:
        console = Console(file=terminal, force_terminal=True, width=shutil.get_terminal_size().columns)
        options: dict[str, Any] = {"transient": True, "redirect_stdout": False, "redirect_stderr": False}
        with Progress(*columns, TimeElapsedColumn(), console=console, refresh_per_second=4, **options) as bar:
            task = bar.add_task("days", total=days, day="reading")
            yield lambda day: bar.update(task, advance=1, day=day.isoformat())
