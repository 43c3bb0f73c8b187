"""Our event storage stores the same rows and gives the same answers as Dagster's own, with any number of writers."""

import os
import shutil
import sqlite3
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as db
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.events import StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from sessions_pipeline.errors import InstanceError
from sessions_pipeline.orchestration import SHIPPED, STORAGE, event_storage, own_yaml, slow_storage
from sessions_pipeline.orchestration.event_storage import KEPT_DATABASES, KeptEventLog, KeptStorage, batch_events

DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-08")
TABLES = ("raw", "sessions", "costs")
# Columns that depend on the time at which a row was written.
OF_THE_MOMENT = {"create_timestamp", "migration_completed", "update_timestamp"}
RANGE = {"dagster/asset_partition_range_start": "2026-01-01", "dagster/asset_partition_range_end": "2026-01-05"}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@cache
def definitions() -> dg.Definitions:
    """Assets and checks that produce every kind of event: days, versions, observations, failures."""
    warnings.simplefilter("ignore", dg.BetaWarning)  # about the backfill policy; pytest restores the filters

    @dg.multi_asset(
        specs=[dg.AssetSpec(table, partitions_def=DAYS, skippable=True) for table in TABLES],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def daily_tables(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        for day in context.partition_keys[:-1]:  # the last day is planned and never materialized
            with batch_events(context.instance):
                for table in TABLES:
                    context.log_event(dg.AssetMaterialization(table, partition=day, metadata={"rows": 3}))
        context.log_event(dg.AssetObservation("sessions", partition=context.partition_keys[0]))
        context.log.info("that is all")
        yield from ()

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), code_version="1")
    def yielded(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"days": len(context.partition_keys)})

    @dg.asset(deps=[yielded])
    def summary() -> None:
        """An asset without partitions, but with data versions."""

    @dg.asset_check(asset=summary)
    def passes() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True, metadata={"broken": 0})

    @dg.asset_check(asset=summary)
    def fails() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)

    @dg.asset(deps=[summary])
    def breaks() -> None:
        raise ValueError("on purpose")

    return dg.Definitions(
        assets=[daily_tables, yielded, summary, breaks], asset_checks=[passes, fails], executor=dg.in_process_executor
    )


def run(instance: dg.DagsterInstance) -> str:
    """A run of five days that stores every kind of event. Returns its id."""
    job = definitions().resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(instance=instance, tags=RANGE, run_config=QUIET, raise_on_error=False)
    return done.run_id


@pytest.fixture(scope="module")
def told() -> Sequence[EventLogEntry]:
    """The events of two consecutive runs."""
    with dg.DagsterInstance.ephemeral() as instance:
        return [event for _ in range(2) for event in instance.all_logs(run(instance))]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGSTER_HOME with its databases. Creating them takes longer than any of the tests, so tests copy it."""
    home = tmp_path_factory.mktemp("template")
    KeptStorage.from_local(str(home)).event_log_storage.dispose()
    return home


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "home"))


@contextmanager
def instance_with(home: Path, storage: str) -> Iterator[dg.DagsterInstance]:
    folder = f"    config:\n      base_dir: {home}\n" if storage else ""
    (home / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{storage}{folder}")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@contextmanager
def opened(home: Path) -> Iterator[KeptEventLog]:
    log = KeptStorage.from_local(str(home)).event_log_storage
    assert isinstance(log, KeptEventLog)
    try:
        yield log
    finally:
        log.dispose()


@pytest.fixture(scope="module")
def both(
    told: Sequence[EventLogEntry], template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dg.DagsterInstance, dg.DagsterInstance]]:
    """The same events, stored one by one in an instance with Dagster's storage, and in batches in one with ours."""
    folder = tmp_path_factory.mktemp("both")
    homes = [Path(shutil.copytree(template, folder / name)) for name in ("stock", "ours")]
    with instance_with(homes[0], "") as stock, instance_with(homes[1], STORAGE) as ours:
        assert type(stock.event_log_storage) is SqliteEventLogStorage
        for event in told:
            stock.event_log_storage.store_event(event)
        for batch in batches(told):
            ours.event_log_storage.store_event_batch(batch)
        yield stock, ours


def batches(events: Sequence[EventLogEntry]) -> Iterator[list[EventLogEntry]]:
    """Batches of up to seven consecutive events of one run. The size of a batch must not change any row."""
    batch: list[EventLogEntry] = []
    for event in events:
        if batch and (event.run_id != batch[0].run_id or len(batch) == 7):
            yield batch
            batch = []
        batch.append(event)
    yield batch


def rows(home: Path) -> dict[str, list[Any]]:
    """All rows of all tables in all databases of the event log."""
    found = {}
    for file in sorted((home / "history" / "runs").glob("*.db")):
        with closing(sqlite3.connect(file)) as connection:
            connection.row_factory = sqlite3.Row
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                found[f"{file.stem}.{table}"] = [
                    {name: row[name] for name in row.keys() if name not in OF_THE_MOMENT}  # noqa: SIM118
                    for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")
                ]
    return found


def answers(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> dict[str, Any]:
    """The answers to the UI's queries, for every asset, partition and check, and for the runs."""
    log = instance.event_log_storage
    found: dict[str, Any] = {}
    graph = definitions().resolve_asset_graph()
    stale = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    keys = sorted(graph.get_all_asset_keys())
    for key in keys:
        partitions = graph.get(key).partitions_def
        if partitions:
            status = get_and_update_asset_status_cache_value(instance, key, partitions)
            found[f"{key} status"] = status and status._replace(latest_storage_id=0)
            found[f"{key} unfinished"] = (
                log.get_latest_asset_partition_materialization_attempts_without_materializations(key)
            )
            found[f"{key} versions"] = log.get_latest_tags_by_partition(
                key, dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]
            )
        else:
            found[f"{key} stale"] = stale.get_status(key), stale.get_current_data_version(key)
        found[f"{key} materialized"] = log.get_materialized_partitions(key)
        found[f"{key} counts"] = instance.fetch_materializations(key, limit=100).records
        found[f"{key} planned"] = log.get_latest_planned_materialization_info(key)
        found[f"{key} tags"] = log.get_event_tags_for_asset(key)
    records = log.get_asset_records(keys)
    found["records"] = sorted((str(one.asset_entry.asset_key), one.asset_entry.last_materialization) for one in records)
    found["latest"] = log.get_latest_materialization_events(keys)
    for check in graph.asset_check_keys:
        history = log.get_asset_check_execution_history(check, limit=10)
        found[f"{check}"] = [(one.run_id, one.status, one.event, one.partition) for one in history]
    for run_id in run_ids:
        found[f"{run_id} log"] = log.get_records_for_run(run_id).records
        found[f"{run_id} steps"] = log.get_step_stats_for_run(run_id)
        found[f"{run_id} stats"] = log.get_stats_for_run(run_id)
    return found


def materialization(number: int, run_id: str = "a-run") -> EventLogEntry:
    told = StepMaterializationData(dg.AssetMaterialization("sessions", partition=f"2026-01-{number % 28 + 1:02}"))
    return entry(dg.DagsterEvent("ASSET_MATERIALIZATION", "job", event_specific_data=told), run_id, number)


def entry(event: dg.DagsterEvent | None, run_id: str, number: int) -> EventLogEntry:
    return EventLogEntry(None, 10, f"{number}", run_id, 1767225600.0 + number, dagster_event=event)


def numbers(log: SqliteEventLogStorage, run_id: str = "a-run") -> list[int]:
    return sorted(int(record.event_log_entry.user_message) for record in log.get_records_for_run(run_id).records)


def test_events_are_stored_in_the_same_rows_as_by_the_stock_storage(
    told: Sequence[EventLogEntry], both: tuple[dg.DagsterInstance, dg.DagsterInstance]
) -> None:
    assert {event.dagster_event_type.value for event in told if event.dagster_event_type} >= {
        "ASSET_MATERIALIZATION_PLANNED",
        "ASSET_MATERIALIZATION",
        "ASSET_OBSERVATION",
        "ASSET_CHECK_EVALUATION_PLANNED",
        "ASSET_CHECK_EVALUATION",
        "STEP_FAILURE",
        "PIPELINE_FAILURE",
    }
    stock, ours = (rows(Path(instance.root_directory)) for instance in both)
    assert ours == stock


def test_events_stored_one_by_one_give_the_same_rows_too(
    told: Sequence[EventLogEntry], both: tuple[dg.DagsterInstance, dg.DagsterInstance], home: Path
) -> None:
    with opened(home) as log:
        for event in told:
            log.store_event(event)
        assert rows(home) == rows(Path(both[0].root_directory))


def test_the_ui_gets_the_same_answers_as_from_the_stock_storage(
    told: Sequence[EventLogEntry], both: tuple[dg.DagsterInstance, dg.DagsterInstance]
) -> None:
    run_ids = list(dict.fromkeys(event.run_id for event in told))
    stock, ours = (answers(instance, run_ids) for instance in both)
    assert len(stock["AssetKey(['sessions']) materialized"]) == 4
    assert ours == stock


def test_an_instance_can_switch_between_the_storages_at_any_time(home: Path) -> None:
    runs = []
    for storage in (STORAGE, "", STORAGE):
        with instance_with(home, storage) as instance:
            runs.append(run(instance))
            lengths = {len(instance.all_logs(of)) for of in runs}
            assert len(lengths) == 1
            assert min(lengths) > 50


def test_a_run_plans_its_days_in_few_statements_and_opens_no_connection_for_an_event(home: Path) -> None:
    done: Counter[str] = Counter()

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        done[statement.split(maxsplit=1)[0]] += 1

    def connected(*_: Any) -> None:
        done["connections"] += 1

    job = definitions().resolve_implicit_global_asset_job_def()
    # Before the instance is opened, because a connection tells only those who listened when it was made.
    db.event.listen(db.Engine, "before_cursor_execute", executed)
    db.event.listen(db.Engine, "connect", connected)
    try:
        with instance_with(home, STORAGE) as instance:
            run(instance)
            done.clear()
            planned = job.get_subset(asset_selection={dg.AssetKey("yielded"), dg.AssetKey("sessions")})
            instance.create_run_for_job(planned, tags=RANGE, asset_selection=planned.asset_selection)
            counted = done.copy()
    finally:
        db.event.remove(db.Engine, "before_cursor_execute", executed)
        db.event.remove(db.Engine, "connect", connected)
    assert counted["INSERT"] < 20, counted
    assert counted["connections"] < 20, counted  # those of Dagster's own run storage, and of the new run's database


def test_a_batch_is_stored_at_the_end_even_when_the_block_fails(home: Path) -> None:
    with instance_with(home, STORAGE) as instance:
        log = instance.event_log_storage
        assert isinstance(log, KeptEventLog)

        def tell() -> None:
            with batch_events(instance):
                log.store_event(materialization(1))
                log.store_event(materialization(2))
                assert numbers(log) == []
                raise ValueError("on purpose")

        with pytest.raises(ValueError, match="on purpose"):
            tell()
        assert numbers(log) == [1, 2]


def test_a_batch_that_fails_leaves_nothing_behind(home: Path) -> None:
    with instance_with(home, STORAGE) as instance:
        log = instance.event_log_storage
        assert isinstance(log, KeptEventLog)
        broken = entry(None, "a-run", 2)._replace(timestamp="no time")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            log.store_event_batch([materialization(1), broken])
        assert numbers(log) == []
        assert not log.get_materialized_partitions(dg.AssetKey("sessions"))


def test_a_commit_that_a_signal_interrupts_leaves_nothing_behind_and_nothing_locked(home: Path) -> None:
    def interrupted(_connection: db.Connection) -> None:
        raise KeyboardInterrupt

    with opened(home) as log, opened(home) as other:
        with log.run_connection("a-run") as run, log.index_connection() as index:
            engines = [run.engine, index.engine]
        for number, engine in enumerate(engines):
            db.event.listen(engine, "commit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                log.store_event(materialization(number))
        other.store_event(materialization(2))
        log.store_event(materialization(3))
        assert numbers(log) == [2, 3]


def test_no_transaction_of_a_new_run_waits_for_the_disk(home: Path) -> None:
    with opened(home) as log:
        for _ in range(4):
            with log.run_connection("a-run") as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL


def test_threads_share_a_storage(home: Path) -> None:
    failed: list[BaseException] = []

    def store(thread: int) -> None:
        try:
            for event in range(10):
                log.store_event(materialization(10 * thread + event, f"run-{thread % 2}"))
                assert numbers(log, f"run-{thread % 2}")
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must say it
            failed.append(error)

    with opened(home) as log:
        threads = [threading.Thread(target=store, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert sorted(numbers(log, "run-0") + numbers(log, "run-1")) == list(range(60))


def test_a_fork_uses_connections_of_its_own(home: Path) -> None:
    with opened(home) as log:
        log.store_event(materialization(1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about a fork beside pytest-xdist's thread
            child = os.fork()
        if child == 0:
            status = 1
            try:
                log.store_event(materialization(2))
                log.dispose()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        log.store_event(materialization(3))
        assert numbers(log) == [1, 2, 3]


def test_there_can_be_more_runs_than_kept_connections(home: Path) -> None:
    names = [f"run-{number}" for number in range(KEPT_DATABASES + 2)]
    with opened(home) as log:
        log.store_event(materialization(0, "run-0"))
    for name in names[1:]:  # creating a database takes longer than copying one
        shutil.copy(home / "history" / "runs" / "run-0.db", home / "history" / "runs" / f"{name}.db")
    with opened(home) as log:
        for number, name in enumerate(names[1:], 1):
            log.store_event(materialization(number, name))
        assert [numbers(log, name) for name in names] == [[number] for number in range(len(names))]
        if Path("/proc/self/fd").exists():
            files = {file.readlink() for file in Path("/proc/self/fd").iterdir() if file.is_symlink()}
            assert sum(home in file.parents and file.suffix == ".db" for file in files) <= KEPT_DATABASES + 1


def test_files_that_another_process_wiped_are_not_written_any_more(home: Path) -> None:
    with opened(home) as log, opened(home) as other:
        log.store_event(materialization(1))
        other.wipe()
        assert not log.get_materialized_partitions(dg.AssetKey("sessions"))
        other.store_event(materialization(2))
        log.store_event(materialization(3))
        assert numbers(log) == numbers(other) == [2, 3]


def test_a_deleted_run_leaves_no_file_behind_and_the_days_of_other_runs(home: Path) -> None:
    folder = home / "history" / "runs"
    with opened(home) as log:
        for number in (1, 2):
            log.store_event(materialization(number, f"run-{number}"))
        log.delete_events("run-1")
        assert [file.name for file in folder.glob("run-1*")] == []
        assert numbers(log, "run-1") == []
        assert numbers(log, "run-2") == [2]
        assert len(log.get_materialized_partitions(dg.AssetKey("sessions"))) == 1


def test_a_run_can_be_deleted_while_another_process_writes_it(home: Path) -> None:
    with opened(home) as log, opened(home) as other:
        other.store_event(materialization(1))
        with other.run_connection("a-run"):
            log.delete_events("a-run")
            other.store_event(materialization(2))
        assert numbers(log) == numbers(other) == [2]


def test_a_run_whose_file_somebody_deleted_has_no_log_but_its_days_stay(home: Path) -> None:
    with opened(home) as log:
        log.store_event(materialization(1))
        for file in (home / "history" / "runs").glob("a-run*"):
            file.unlink()
        assert numbers(log) == []
        assert len(log.get_materialized_partitions(dg.AssetKey("sessions"))) == 1


def test_if_dagsters_signature_changes_the_stock_storage_is_used_with_a_warning(tmp_path: Path) -> None:
    class Changed(SqliteEventLogStorage):
        def store_event(self, event: EventLogEntry, *, durable: bool = True) -> None:
            """A signature with one more parameter."""

    with pytest.warns(UserWarning, match=r"Changed has no store_event\(event\)$") as warned:
        storage = KeptStorage(str(tmp_path), stock=Changed)
    assert len(warned) == 1
    assert type(storage.event_log_storage) is SqliteEventLogStorage


def test_if_dagster_renames_a_table_the_stock_storage_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = SimpleNamespace(**{name: None for name in vars(event_storage.schema) if name != "AssetKeyTable"})
    monkeypatch.setattr(event_storage, "schema", renamed)
    with pytest.warns(UserWarning, match="has no AssetKeyTable$") as warned:
        storage = KeptStorage(str(tmp_path))
    assert len(warned) == 1
    assert type(storage.event_log_storage) is SqliteEventLogStorage


def test_the_shipped_dagster_yaml_stores_events_this_way_and_in_dagster_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SHIPPED, tmp_path)
    assert STORAGE in (tmp_path / "dagster.yaml").read_text()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, KeptEventLog)
        assert instance.event_log_storage.path_for_shard("x") == str(tmp_path / "history" / "runs" / "x.db")


def test_without_dagster_home_events_go_to_the_folder_that_make_dev_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    storage = KeptStorage.from_config_value(None, {})
    assert Path(storage.event_log_storage.path_for_shard("x")) == tmp_path / ".dagster" / "history" / "runs" / "x.db"


@pytest.mark.parametrize(
    ("written", "is_slow"),
    [
        (None, False),
        ("", True),
        ("telemetry: {enabled: false}\n", True),
        ("storage: {sqlite: {base_dir: /tmp}}\n", True),
        (STORAGE, False),
        ("storage: {postgres: {postgres_url: x}}\n", False),
        ("event_log_storage: {module: x, class: y}\n", False),
    ],
)
def test_an_instance_with_slow_event_storage_gets_a_hint_which_lines_to_add(
    written: str | None, is_slow: bool, tmp_path: Path
) -> None:
    if written is not None:
        (tmp_path / "dagster.yaml").write_text(written)
    said = slow_storage(str(tmp_path))
    assert (said is not None) == is_slow
    assert said is None or said.endswith(STORAGE)


def test_no_password_of_an_instance_is_shown_if_its_yaml_or_its_database_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("storage: {postgres: {postgres_url: postgresql://u:pass9word@host/db\n")
    with pytest.raises(InstanceError, match=r"dagster\.yaml: while parsing .*line 1") as caught:
        slow_storage(str(tmp_path))
    assert "9word" not in str(caught.value)
    refusal = 'could not translate host name "9word@host" to address'
    assert "9word" not in str(InstanceError("its database", ValueError(refusal)))


@pytest.mark.parametrize(
    ("cause", "is_of_the_disk"),
    [
        ("(sqlite3.OperationalError) database or disk is full [SQL: INSERT ...]", True),
        ("(sqlite3.OperationalError) disk I/O error", True),
        ("(sqlite3.DatabaseError) database disk image is malformed", True),
        ("(sqlite3.OperationalError) database is locked", False),
        ('while parsing a flow node in "/mnt/disk1/home/dagster.yaml", line 2', False),
    ],
)
def test_only_a_disk_that_failed_is_to_be_freed(cause: str, is_of_the_disk: bool) -> None:
    assert ("free space on its disk" in str(InstanceError("DAGSTER_HOME", ValueError(cause)))) is is_of_the_disk


def test_an_instance_with_a_given_folder_writes_nothing_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "dagster.yaml").write_text(own_yaml(str(home)))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(elsewhere)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("raw_sessions"))
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("is_shipped", [True, False], ids=["shipped", "demo"])
def test_a_run_prints_no_line_for_each_event_and_every_event_is_stored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], is_shipped: bool
) -> None:
    (tmp_path / "dagster.yaml").write_text(SHIPPED.read_text() if is_shipped else own_yaml(str(tmp_path)))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        job = definitions().resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, tags=RANGE, raise_on_error=False)
        kinds = {entry.dagster_event_type for entry in instance.all_logs(result.run_id)}
    printed = capfd.readouterr().err
    assert {dg.DagsterEventType.STEP_START, dg.DagsterEventType.ASSET_MATERIALIZATION} < kinds
    assert " - DEBUG - " not in printed
    assert "that is all" in printed, "lines of the log"
    assert "on purpose" in printed, "errors"
