"""What all commands share: kinds of options, and what is written, safe for a terminal and whole for other programs."""

import gc
import io
import itertools
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sessions_pipeline.errors import UsageError
from sessions_pipeline.outputs.formatting import visible
from sessions_pipeline.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

# Where the output is no terminal, such as a log, and COLUMNS does not say it.
WIDTH = 120
NUMBERS = {"Experiments", "No cost", "Traces", "Tokens", "Cost", "Used", "Limit", "Share", "Forecast"}


def check_order(first: date, last: date) -> None:
    """Refuse days in the wrong order."""
    if first > last:
        raise UsageError(f"--from {first} is after --to {last}; swap them")


def _day(form: str, expected: str) -> Callable[[str], date]:
    """What reads a day or a month that is given as an option."""

    def read(text: str) -> date:
        try:
            return date.fromisoformat(form.format(text))
        except ValueError:
            raise click.BadParameter(f"{text} is no {expected}") from None

    return read


DAY, MONTH = _day("{}", "day YYYY-MM-DD such as 2026-01-31"), _day("{}-01", "month YYYY-MM such as 2026-01")
FILE = click.Path(dir_okay=False, path_type=Path)


def escape_what_cannot_be_encoded() -> None:
    """Make both outputs write an escape for a character that their encoding lacks, where Python would fail.

    An output that was closed before the start, which is None, swallows what is written.
    """
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def echo(line: str, *, indent: int = 0, err: bool = False) -> None:
    """Print a line, on a terminal broken between words; what follows on is indented.

    Lines of a command, of which each but the last ends with a backslash, stay as they are, so that it can be copied.
    """
    if "\\\n" not in line and (sys.stderr if err else sys.stdout).isatty():
        width, margin = shutil.get_terminal_size().columns, " " * indent
        line = textwrap.fill(line, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)
    click.echo(line, err=err)


def say(message: str, *, is_warning: bool = False) -> None:
    """One line on standard error; a warning is called so."""
    kind = "warning: " if is_warning else ""
    echo(f"sessions-pipeline: {kind}{visible(' '.join(message.split()))}", indent=2, err=True)


def load_settings() -> Settings:
    """The settings; warnings about them are said.

    Raises:
        SettingError: a variable is wrong.
    """
    settings = Settings.load()
    for warning in settings.warnings:
        say(warning, is_warning=True)
    return settings


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    footer: Sequence[str] = (),
    drop: Sequence[str] = (),
    width: int | None = None,
) -> None:
    """Print rows; counts and money to the right, by their points. `width`: the terminal's own without it.

    Where a terminal is too narrow, the columns of `drop` are left out, the first one first; a cell is never broken over
    lines, and cut only if nothing else helps, in the widest column alone.
    """
    from rich.cells import cell_len
    from rich.console import Console

    console = Console(width=width or shutil.get_terminal_size((WIDTH, 0)).columns)
    shown = [[visible(cell) for cell in column] for column in zip(columns, footer or columns, *rows, strict=True)]
    shown = [_to_the_right(column) if column[0] in NUMBERS else column for column in shown]
    for name in (None, *drop):
        shown = [column for column in shown if column[0].strip() != name]
        # By the widest cells alone: to measure all takes half as long as to print them.
        widest = _table([[max(column, key=cell_len)] * 2 for column in shown])
        if console.measure(widest, options=console.options.update(max_width=10_000)).maximum <= console.width:
            break
    table = _table(shown)
    table.show_footer = bool(footer)
    console.print(table)


def _table(columns: Sequence[Sequence[str]]) -> "Table":
    """Of columns, each of which begins with its header and its footer."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    texts = [[Text(cell, no_wrap=True, overflow="ellipsis") for cell in column] for column in columns]
    widths = [max(cell.cell_len for cell in column) for column in texts]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for (header, footer, *_), width in zip(texts, widths, strict=True):
        # A column that may wrap is the one that is made narrower; its texts are cut instead.
        table.add_column(header, footer, no_wrap=width < max(widths))
    for row in zip(*(column[2:] for column in texts), strict=True):
        table.add_row(*row)
    return table


def _to_the_right(cells: Sequence[str]) -> list[str]:
    """Cells of one width, with the points of numbers one below the other."""
    places = max(len(cell.partition(".")[2]) for cell in cells)
    padded = [cell.ljust(cell.find(".") + 1 + places) if "." in cell else cell for cell in cells]
    width = max(map(len, padded))
    return [cell.rjust(width) for cell in padded]


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import Dagster without looking for garbage among a million objects that stay: a sixth of its time.

    Ctrl-C and SIGTERM wait for its end: amid an import they can leave the module locked, so that a thread which reads
    meanwhile, and comes to need it, never ends.

    Raises:
        KeyboardInterrupt: one of them came.
    """
    if sys.stderr.isatty():
        click.echo("Loading Dagster ...", err=True)
    heard = list[int]()
    before = {number: signal.signal(number, lambda *_: heard.append(1)) for number in (signal.SIGINT, signal.SIGTERM)}
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


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
        bar = Progress(*columns, console=console, refresh_per_second=4, **options)
        with bar, Path(os.devnull).open("w") as silent:
            # One more than the days, since what is made of all of them comes after the last.
            task = bar.add_task("days", total=days + 1, said=f"0/{days} reading")
            numbers = itertools.count(1)

            def on_day(day: date) -> None:
                number = next(numbers)
                said = f"{number}/{days} {day if number < days else 'and what is made of them'}"
                bar.update(task, completed=number, said=said, refresh=True)

            # Ctrl-C is heard by all that Dagster has started, too, which prints where it was interrupted.
            os.dup2(silent.fileno(), sys.stderr.fileno())
            try:
                yield on_day
            finally:
                os.dup2(terminal.fileno(), sys.stderr.fileno())
