"""What a run works with: the lake, and the API's days. A plain object that Dagster hands to the assets."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Self

from sessions_pipeline.errors import ApiError, UsageError
from sessions_pipeline.lake.lake import Lake
from sessions_pipeline.langsmith.client import SessionsClient
from sessions_pipeline.langsmith.query import SessionsQuery, parse_narrowing
from sessions_pipeline.langsmith.source import ApiSource, Listing, Source
from sessions_pipeline.orchestration.workers import Workers, workers_for
from sessions_pipeline.settings import Settings

OnDay = Callable[[date], None]


@dataclass(frozen=True)
class Workspace:
    """One workspace's way into the API; `asked` is its id, or None for the one that the key belongs to."""

    asked: str | None
    source: Source

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors of the block say which workspace they are about, where it is known."""
        try:
            yield
        except ApiError as error:
            if self.asked is None:
                raise
            raise type(error)(f"Workspace {self.asked}: {error}", retry_after=error.retry_after) from None


@dataclass(frozen=True)
class Pipeline:
    """Settings and the doors they open.

    `on_day` is told of each day as it is finished; `as_of` makes tables say what was known at that time.
    """

    settings: Settings
    on_day: OnDay = lambda _day: None
    as_of: datetime | None = None

    def only(self, workspace: str | None) -> Self:
        """The same for one of the settings' workspaces, or for all of them (None).

        Raises:
            UsageError: the settings do not name it.
        """
        if workspace is None:
            return self
        if workspace not in self.settings.workspace_ids:
            raise UsageError(
                f"Workspace {workspace} is not one of LANGSMITH_WORKSPACE_ID; add it there, or ask for another"
            )
        return replace(self, settings=self.settings.model_copy(update={"workspace_ids": (workspace,)}))

    @property
    def query(self) -> SessionsQuery:
        """What narrows the sessions that are read.

        Raises:
            SettingError: `SESSIONS_PIPELINE_QUERY` is wrong.
        """
        return parse_narrowing(self.settings.query)

    def open_lake(self, *, read_only: bool = False) -> Lake:
        """The lake under the data root.

        Raises:
            LakeError: it can't be opened, or was filled with another query.
        """
        return Lake.open(self.settings.data_root, query=self.settings.query, read_only=read_only)

    def workers(self, lake: Lake, days: int) -> AbstractContextManager[Workers]:
        """Who does the work on so many days of the lake."""
        return workers_for(days, lake, self.settings.data_root, self.settings.query)

    @contextmanager
    def workspaces(self) -> Iterator[tuple[SessionsClient, list[Workspace]]]:
        """The API's workspaces, one for each id in the settings, sharing connections and patience.

        Raises:
            SettingError: no key is set, or a setting is wrong.
        """
        query = self.query
        with (
            SessionsClient.from_settings(self.settings) as client,
            ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="pages") as executor,
        ):

            def source(asked: str | None) -> Source:
                return ApiSource(
                    Listing(client, query, workspace=asked),
                    executor,
                    page_size=self.settings.page_size,
                    in_flight=self.settings.concurrency,
                )

            try:
                yield client, [Workspace(asked, source(asked)) for asked in self.settings.workspace_ids or (None,)]
            finally:
                # The executor waits for its workers, and they may be waiting for pages that nobody needs any more.
                client.stop()


def now() -> datetime:
    """The current time, UTC."""
    return datetime.now(UTC)
