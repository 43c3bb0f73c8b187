"""`sessions-pipeline`: the command line. Options, progress and one-line errors; no logic."""

import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from typing import NoReturn

import click

from sessions_pipeline import __version__
from sessions_pipeline.cli.doctor import doctor
from sessions_pipeline.cli.runs import demo, materialize, sandbox, ui
from sessions_pipeline.cli.show import budget, export, list_sessions, report
from sessions_pipeline.cli.terminal import escape_what_cannot_be_encoded, say, stop, stop_signals
from sessions_pipeline.errors import SessionsPipelineError
from sessions_pipeline.settings import without_secrets


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="sessions-pipeline")
def cli() -> None:
    """What your LLM experiments cost: LangSmith sessions as Parquet and daily cost per dataset.

    Settings come from the environment or a .env file; see the README. Begin with:

    \b
      sessions-pipeline doctor
      sessions-pipeline materialize --from 2026-01-01 --to 2026-01-31
    """  # noqa: D301 - \b tells click not to rewrap the lines below


for command in (materialize, list_sessions, report, budget, export, doctor, ui, demo, sandbox):
    cli.add_command(command)


def main() -> None:
    """Run the command and exit. A failure prints one line on standard error; its status is 1, for wrong usage 2."""
    escape_what_cannot_be_encoded()
    # Python programs that this one starts must not import a user's `queue.py` from the current folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    for number in {*stop_signals()} - {signal.SIGINT}:
        signal.signal(number, stop)
    try:
        width = shutil.get_terminal_size().columns
        status = cli.main(prog_name="sessions-pipeline", standalone_mode=False, max_content_width=width)
        sys.exit(status if isinstance(status, int) else 0)
    except SessionsPipelineError as error:
        _fail(without_secrets(str(error)), error.exit_status)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if isinstance(error, click.UsageError) and error.ctx else ""
        message = re.sub(r"\. \((.*\?)\)$", r". \1", error.format_message().rstrip("."))
        _fail(f"{message}{hint}", error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped")
    except OSError as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        prints = ("click.", "rich.", "sessions_pipeline.outputs")
        place = "the output" if frame.f_globals["__name__"].startswith(prints) else ""
        # Only the current folder, if it was removed, is not found without a name.
        place = error.filename or ("the current folder" if isinstance(error, FileNotFoundError) else place)
        _fail(": ".join(filter(None, (place, error.strerror or str(error)))))
    except MemoryError:
        _fail("memory ran out; what was written stays; ask for fewer days, or provide more memory")
    except Exception as error:  # noqa: BLE001 - users get one line, never a traceback
        _fail(_unexpected(error))


def _fail(message: str, status: int = 1) -> NoReturn:
    say(message)
    # If Ctrl-C interrupts `exec` or `eval`, which libraries call while they are loaded, Python ends with the signal's
    # status although the exception was caught, unless another `exec` follows.
    exec("")  # noqa: S102
    sys.exit(status)


def _unexpected(error: Exception) -> str:
    """One line for an error without a message of its own; writes its traceback to a file and names it."""
    lines = without_secrets("".join(traceback.format_exception(error)))
    summary = without_secrets(f"{type(error).__name__}: {error}".partition("\n")[0])[:200]
    try:
        with tempfile.NamedTemporaryFile(prefix="sessions-pipeline-", suffix=".txt", delete=False) as file:
            file.write(lines.encode(errors="backslashreplace"))
    except OSError:
        return f"unexpected {summary}"
    return f"unexpected {summary}; please report it with {file.name}"
