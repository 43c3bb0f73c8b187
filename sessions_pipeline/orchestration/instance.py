"""A Dagster instance for one run that nobody looks at later: its events are kept in a list.

It replaces `DagsterInstance.ephemeral()`, which writes every event into an SQLite database in memory: 2 to 3 ms each
and twelve of them for a day of six tables. In a list a day costs 3.5 ms in all.
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.event_api import EventLogCursor, EventLogRecord
from dagster._core.events import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.instance import InstanceType
from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
from dagster._core.run_coordinator import DefaultRunCoordinator
from dagster._core.storage.event_log import InMemoryEventLogStorage
from dagster._core.storage.event_log.base import EventLogConnection
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.root import TemporaryLocalArtifactStorage
from dagster._core.storage.runs import InMemoryRunStorage


class EventList(InMemoryEventLogStorage):
    """The events of a run, in memory; queries about assets find nothing, as in an instance that is new."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[EventLogEntry] = []

    def store_event(self, event: EventLogEntry) -> None:
        """Keep an event."""
        self._events.append(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Keep several."""
        self._events.extend(events)

    def get_records_for_run(
        self,
        run_id: str,
        cursor: str | None = None,
        of_type: DagsterEventType | set[DagsterEventType] | None = None,
        limit: int | None = None,
        ascending: bool = True,
    ) -> EventLogConnection:
        """The run's events after the cursor, each with its place in the list as its number."""
        kinds = {of_type} if isinstance(of_type, DagsterEventType) else of_type
        after = EventLogCursor.parse(cursor).storage_id() if cursor else -1
        found = [
            EventLogRecord(number, event)
            for number, event in enumerate(self._events)
            if number > after and event.run_id == run_id and (kinds is None or event.dagster_event_type in kinds)
        ]
        ordered = found if ascending else found[::-1]
        given = ordered[:limit]
        last = given[-1].storage_id if given else after
        return EventLogConnection(given, str(EventLogCursor.from_storage_id(last)), has_more=len(given) < len(ordered))

    @property
    def supports_partition_subset_in_asset_materialization_planned_events(self) -> bool:
        """One event says which days of an asset are planned, where the default is one for each day."""
        return True


def temporary_instance() -> dg.DagsterInstance:
    """An instance that forgets; the same parts as Dagster's own, except for the events."""
    return dg.DagsterInstance(
        instance_type=InstanceType.EPHEMERAL,
        local_artifact_storage=TemporaryLocalArtifactStorage(),  # type: ignore[no-untyped-call]
        run_storage=InMemoryRunStorage(),
        event_storage=EventList(),
        compute_log_manager=NoOpComputeLogManager(),
        run_coordinator=DefaultRunCoordinator(),
        run_launcher=SyncInMemoryRunLauncher(),
    )


def keeps_metadata(instance: dg.DagsterInstance) -> bool:
    """Whether anybody can look at a run's metadata afterwards; attaching it costs 4 ms a day and table."""
    return not isinstance(instance.event_log_storage, EventList)
