"""Shared by all commands: types of options, and output that is safe for terminals and complete for other programs."""

import gc
import io
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click

from sessions_pipeline.errors import DeadlineExceededError, SessionsPipelineError, UsageError, WorkerLostError
from sessions_pipeline.outputs.formatting import visible
from sessions_pipeline.settings import Settings

# Columns of output that is not a terminal, such as a log, if COLUMNS is not set.
WIDTH = 120
# Of the days of options. Computing with days near the years 1 and 9999 fails.
YEARS = range(1970, 2200)
# Columns that are aligned right.
NUMBERS = {"Experiments", "No cost", "Traces", "Tokens", "Cost", "Used", "Limit", "Share", "Forecast"}
KEPT = "the days that were finished stay written"


def check_order(first: date, last: date) -> None:
    """Refuse a first day after the last.

    Raises:
        UsageError: the days are in the wrong order.
    """
    if first > last:
        raise UsageError(f"--from {first} is after --to {last}; swap them")


def _day(form: str, expected: str) -> Callable[[str], date]:
    """A parser for an option that is a day or a month; `form` makes its text an ISO date."""

    def read(text: str) -> date:
        with suppress(ValueError):
            day = date.fromisoformat(form.format(text))
            if day.year in YEARS:
                return day
        raise click.BadParameter(f"{text} is not a {expected}")

    return read


DAY, MONTH = _day("{}", "day YYYY-MM-DD such as 2026-01-31"), _day("{}-01", "month YYYY-MM such as 2026-01")
FILE = click.Path(dir_okay=False, path_type=Path)


def past_time(value: str) -> datetime:
    """Parse a past time in ISO 8601; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(value)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value} is not a time such as 2026-01-31 or 2026-01-31T12:00:00+01:00") from None
    if moment > datetime.now(UTC):
        raise click.BadParameter(f"{value} is in the future")
    return moment


def escape_what_cannot_be_encoded() -> None:
    """Escape characters that the encoding of standard output or error lacks; Python would raise an error.

    An output that was already closed, which is None, discards what is written.
    """
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def echo(line: str, *, indent: int = 0, err: bool = False) -> None:
    """Print a line. On a terminal it is wrapped between words, and all but its first line are indented.

    Commands that go on after a backslash are not wrapped, so that they can be copied.
    """
    if "\\\n" not in line and (sys.stderr if err else sys.stdout).isatty():
        width, margin = shutil.get_terminal_size().columns, " " * indent
        whole = line.replace("≥ ", "≥\u00a0")  # so that no line ends with a ≥ whose amount is on the next
        line = textwrap.fill(whole, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)
    click.echo(line, err=err)


def say(message: str, *, is_warning: bool = False) -> None:
    """Print one line on standard error; a warning begins with `warning:`."""
    kind = "warning: " if is_warning else ""
    echo(f"sessions-pipeline: {kind}{visible(' '.join(message.split()))}", indent=2, err=True)


def load_settings() -> Settings:
    """Load the settings, and print warnings about them.

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
) -> None:
    """Print rows; numbers are aligned at their decimal points.

    If the table is too wide, columns of `drop` are left out, in that order, and named below it. Cells are never
    wrapped. If the table is still too wide, texts are cut, those of the widest columns first, but never numbers.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # With a height, too, because without it rich takes a terminal whose TERM is dumb, as in Emacs, for 80 columns wide.
    console = Console(width=shutil.get_terminal_size((WIDTH, 0)).columns, height=1)
    shown = [[visible(cell) for cell in column] for column in zip(columns, footer or columns, *rows, strict=True)]
    shown = [_aligned_right(column) if column[0] in NUMBERS else column for column in shown]
    for name in (None, *drop):
        shown = [column for column in shown if column[0].strip() != name]
        # There are two spaces between columns, and one on either side of the table.
        if sum(max(map(cell_len, column)) + 2 for column in shown) <= console.width:
            break
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_footer=bool(footer))
    texts = [[Text(cell, no_wrap=True, overflow="ellipsis") for cell in column] for column in shown]
    for header, below, *_ in texts:
        # rich narrows only columns that may wrap; texts that are `no_wrap` are cut instead.
        table.add_column(header, below, no_wrap=header.plain.strip() in NUMBERS)
    for row in zip(*(column[2:] for column in texts), strict=True):
        table.add_row(*row)
    console.print(table)
    if lost := [name for name in columns if name not in {column[0].strip() for column in shown}]:
        echo(f"Too narrow for {', '.join(lost)}; widen the terminal, or set COLUMNS", indent=2)


def _aligned_right(cells: Sequence[str]) -> list[str]:
    """Cells padded to one width, with decimal points below each other."""
    places = max(len(cell.partition(".")[2]) for cell in cells)
    padded = [cell.ljust(cell.find(".") + 1 + places) if "." in cell else cell for cell in cells]
    width = max(map(len, padded))
    return [cell.rjust(width) for cell in padded]


def stop_signals() -> list[signal.Signals]:
    """The signals that stop the program: SIGTERM, Ctrl-C, and that its terminal was closed.

    Without those that are ignored: `nohup` wants a program to outlive its terminal, a shell its background jobs Ctrl-C.
    """
    of_terminal = (signal.SIGINT, signal.SIGHUP)
    return [signal.SIGTERM, *(number for number in of_terminal if signal.getsignal(number) is not signal.SIG_IGN)]


def stop(number: int, frame: FrameType | None) -> None:
    """A signal handler that does what Ctrl-C does now: Dagster defers that where it must not be interrupted."""
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(number, frame)


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import Dagster with garbage collection off, which saves a sixth of the time: its million objects stay anyway.

    Signals that stop the program take effect after the import. Interrupting it can leave a module locked, so that a
    reading thread that imports the same module would wait forever.

    Raises:
        KeyboardInterrupt: one of `stop_signals` arrived meanwhile.
    """
    if sys.stderr.isatty():
        click.echo("Loading Dagster ...", err=True)
    received = list[int]()
    before = {number: signal.signal(number, lambda *_: received.append(1)) for number in stop_signals()}
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


@contextmanager
def progress_bar(days: int, finished: list[date]) -> Iterator[Callable[[date], None]]:
    """Show a progress bar if standard error is a terminal; yields a function to call with each finished day.

    The function adds the day to `finished`, of which there will be as many as `days`.

    The bar is drawn on a copy of standard error, because Dagster redirects the descriptor itself while a step runs.
    """
    if not sys.stderr.isatty():
        yield finished.append
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("Days"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace") as terminal:
        console = Console(file=terminal, force_terminal=True, width=shutil.get_terminal_size().columns)
        options: dict[str, Any] = {"transient": True, "redirect_stdout": False, "redirect_stderr": False}
        bar = Progress(*columns, console=console, refresh_per_second=4, **options)
        with bar, Path(os.devnull).open("w") as silent:
            # One more than the days, because tables of all days are written after the last one.
            task = bar.add_task("days", total=days + 1, text=f"0/{days} reading")

            def on_day(day: date) -> None:
                finished.append(day)
                text = f"{len(finished)}/{days} {day if len(finished) < days else 'other tables and checks'}"
                with suppress(OSError):  # the terminal was closed: further days are to be recorded all the same
                    bar.update(task, completed=len(finished), text=text, refresh=True)

            # Dagster's child processes get Ctrl-C, too, and would print tracebacks.
            os.dup2(silent.fileno(), sys.stderr.fileno())
            try:
                yield on_day
            finally:
                os.dup2(terminal.fileno(), sys.stderr.fileno())


@contextmanager
def reported(finished: Collection[date], warnings: Iterable[str]) -> Iterator[None]:
    """Print the warnings at the end of the block, and let an error say that the finished days stay written."""
    try:
        yield
    except KeyboardInterrupt:
        raise SessionsPipelineError(f"stopped; {KEPT if finished else 'no day was finished'}") from None
    except SessionsPipelineError as error:
        # A missed deadline or a lost worker says so itself.
        if finished and not isinstance(error, DeadlineExceededError | WorkerLostError):
            error.args = (f"{error}; {KEPT}",)
        raise
    finally:
        # After the progress bar has ended, and each only once.
        for warning in dict.fromkeys(warnings):
            say(warning, is_warning=True)
