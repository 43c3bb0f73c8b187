"""Wide backfills: a long range as many runs, one for each month and workspace, queued in a Dagster that runs elsewhere.

A month is what the lake locks, so runs of different months do not wait for each other. A run of one workspace carries
the tag `sessions_pipeline/workspace`, from which its pipeline is made: job, assets and checks are those of any other
run, and Dagster can limit how many runs of a workspace there are at once.
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

import dagster as dg

from sessions_pipeline.errors import EngineError, UsageError
from sessions_pipeline.orchestration.partitions import range_tags
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.schedules import REFRESH

WORKSPACE = "sessions_pipeline/workspace"
BACKFILL = "sessions_pipeline/backfill"
# As in workspace.yaml.
LOCATION = "sessions_pipeline"
# Dagster's name for the repository of a code location that has but one.
REPOSITORY = "__repository__"


class Part(NamedTuple):
    """What one run reads: days of one month, both included, of one workspace or (None) of all in the settings."""

    first: date
    last: date
    workspace: str | None

    def tags(self, backfill: str) -> dict[str, str]:
        """The run's tags; `backfill` names all that were asked for together."""
        named = {} if self.workspace is None else {WORKSPACE: self.workspace}
        return {**range_tags(self.first, self.last), **named, BACKFILL: backfill}


def months(first: date, last: date) -> list[tuple[date, date]]:
    """The range cut at the ends of months, newest first; all days included."""
    found = []
    while first <= last:
        start = max(first, last.replace(day=1))
        found.append((start, last))
        last = start - timedelta(days=1)
    return found


def parts(first: date, last: date, workspaces: Sequence[str]) -> list[Part]:
    """Every month of every workspace once, newest months first.

    Neighbours differ in month and, where there are several, in workspace: workers that take one after the other neither
    wait for a month's lock nor share a workspace's rate budget while there is another.
    """
    spans, asked = months(first, last), workspaces or (None,)
    return [
        Part(*span, asked[(turn + number) % len(asked)])
        for turn in range(len(asked))
        for number, span in enumerate(spans)
    ]


def queue(
    url: str, wanted: Sequence[Part], *, backfill: str, on_queued: Callable[[Part], None], location: str = LOCATION
) -> None:
    """Ask the Dagster webserver at `url` for a run of each part in a code location; its daemon starts them.

    Raises:
        UsageError: `url` is no address.
        EngineError: the webserver does not answer, or refuses; what was queued before stays queued.
    """
    # GraphQL's client takes half a second to import, and no run needs it.
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError  # noqa: PLC0415

    host, port, secure, path = _address(url)
    try:
        client = DagsterGraphQLClient(host, port, use_https=secure, path_prefix=path)
        for part in wanted:
            client.submit_job_execution(REFRESH, location, REPOSITORY, tags=part.tags(backfill))
            on_queued(part)
    except DagsterGraphQLClientError as error:
        raise EngineError(f"{url}: {_reason(error)}; runs that were queued before stay queued") from error


def _address(url: str) -> tuple[str, int | None, bool, str]:
    """Host, port, whether by TLS, and the path before Dagster's own."""
    try:
        address = urlsplit(url)
        if address.scheme in ("http", "https") and address.hostname:
            return address.hostname, address.port, address.scheme == "https", address.path.rstrip("/")
    except ValueError:
        pass
    raise UsageError(f"--url {url}: write the address of the Dagster webserver, such as http://127.0.0.1:3000")


def _reason(error: Exception) -> str:
    """Dagster's own words, or those of what it was caused by, in one line."""
    told = error.__cause__ or error
    return " ".join(str(part) for part in told.args).strip().splitlines()[0][:300]


def of_run(pipeline: Pipeline) -> dg.ResourceDefinition:
    """The pipeline as a resource: a run that is tagged with a workspace reads that one alone."""

    @dg.resource(description="Settings, the lake and the API; one workspace where the run's tag names one.")
    def of_this_run(context: dg.InitResourceContext) -> Pipeline:
        return pipeline.only(context.run.tags.get(WORKSPACE) if context.run else None)

    return of_this_run
