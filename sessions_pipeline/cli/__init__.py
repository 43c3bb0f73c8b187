"""`sessions-pipeline`: the command line. Options, progress and one-line errors; no logic."""

import sys

import click

from sessions_pipeline import __version__
from sessions_pipeline.cli.lazy import LazyGroup
from sessions_pipeline.errors import SessionsPipelineError


@click.group(
    cls=LazyGroup,
    lazy={
        "materialize": "sessions_pipeline.cli.materialize:materialize",
        "backfill": "sessions_pipeline.cli.backfill:backfill",
        "list": "sessions_pipeline.cli.listing:list_sessions",
        "report": "sessions_pipeline.cli.report:report",
        "doctor": "sessions_pipeline.cli.doctor:doctor",
        "sandbox": "sessions_pipeline.cli.sandbox:sandbox",
        "demo": "sessions_pipeline.cli.demo:demo",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="sessions-pipeline")
def cli() -> None:
    """What your LLM experiments cost: LangSmith sessions as Parquet and daily cost per dataset.

    Settings come from the environment or a .env file; see the README. Begin with:

    \b
      sessions-pipeline doctor
      sessions-pipeline materialize --from 2026-01-01 --to 2026-01-31
    """  # noqa: D301 - \b is click's mark for lines that are not to be joined


def main() -> None:
    """Run the command; failures are one line on standard error and exit status 1, wrong usage 2."""
    try:
        status = cli.main(standalone_mode=False)
    except SessionsPipelineError as error:
        status = _fail(str(error), error.exit_status)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        status = _fail("stopped; the days that were finished stay written", 1)
    except BrokenPipeError:
        sys.stderr.close()
        status = 1
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> int:
    click.echo(f"sessions-pipeline: {' '.join(message.split())}", err=True)
    return status
