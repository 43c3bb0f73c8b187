"""What the command line writes: safe for a terminal, whole for other programs, within what the output can encode."""

import gc
import io
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import click

from sessions_pipeline.outputs.formatting import visible
from sessions_pipeline.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

# Where the output is no terminal, such as a log.
WIDTH = 120
NUMBERS = {"Experiments", "No cost", "Runs", "Tokens", "Cost", "Used", "Limit", "Share", "Forecast"}


def escape_what_cannot_be_encoded() -> None:
    """Make both outputs write an escape for a character that their encoding lacks, where Python would fail.

    An output that was closed before the start, which is None, swallows what is written.
    """
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
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


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    footer: Sequence[str] = (),
    drop: Sequence[str] = (),
    width: int | None = None,
) -> None:
    """Print rows; counts and money to the right. `width`: the terminal's own without it.

    Where a terminal is too narrow, the columns of `drop` are left out, the first one first; a cell is never broken over
    lines, and cut only if nothing else helps, in the widest column alone.
    """
    from rich.console import Console

    console = Console(width=width or (None if sys.stdout.isatty() else WIDTH))
    for dropped in range(len(drop) + 1):
        places = [place for place, name in enumerate(columns) if name not in drop[:dropped]]
        table = _table([[line[place] for place in places] for line in (columns, footer or columns, *rows)])
        if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
            break
    table.show_footer = bool(footer)
    console.print(table)


def _table(lines: Sequence[Sequence[str]]) -> "Table":
    """Of the headers, the footers, and the rows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headers, footers, *rows = [
        [Text(visible(cell), no_wrap=True, overflow="ellipsis") for cell in line] for line in lines
    ]
    widths = [max(cell.cell_len for cell in column) for column in zip(headers, footers, *rows, strict=True)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for header, footer, width in zip(headers, footers, widths, strict=True):
        side: Literal["left", "right"] = "right" if header.plain in NUMBERS else "left"
        # A column that may wrap is the one that is made narrower; its texts are cut instead.
        table.add_column(header, footer, justify=side, no_wrap=width < max(widths))
    for row in rows:
        table.add_row(*row)
    return table


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


@contextmanager
def progress_bar(days: int) -> Iterator[Callable[[date], None]]:
    """A bar on a terminal; yields what is told of each finished day.

    It draws on a copy of standard error, because Dagster redirects the descriptor itself while a step runs.
    """
    if not sys.stderr.isatty():
        yield lambda _day: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("Days"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace") as terminal:
        console = Console(file=terminal, force_terminal=True, width=shutil.get_terminal_size().columns)
        options: dict[str, Any] = {"transient": True, "redirect_stdout": False, "redirect_stderr": False}
        with Progress(*columns, console=console, refresh_per_second=4, **options) as bar:
            # One more than the days, since what is made of all of them comes after the last.
            task = bar.add_task("days", total=days + 1, said=f"0/{days} reading")
            numbers = itertools.count(1)

            def on_day(day: date) -> None:
                number = next(numbers)
                said = f"{number}/{days} {day if number < days else 'and what is made of them'}"
                bar.update(task, completed=number, said=said, refresh=True)

            yield on_day
