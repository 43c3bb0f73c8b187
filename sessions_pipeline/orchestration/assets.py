"""The tables that have a file for each day, made in one step: any of them, on demand.

With `raw_sessions` among them the days are read from the API; without it the others are made again from what is stored,
with no request.
"""

from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg

from sessions_pipeline.errors import TooManyRejectedError
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.recording import record_day, recorded, spec
from sessions_pipeline.tables import DERIVED, RAW_SESSIONS, REJECTED_SESSIONS, SESSIONS


def daily_assets(daily: dg.PartitionsDefinition, days_per_run: int | None) -> dg.AssetsDefinition:
    """One asset for each table of a day; a backfill is one run, or one for every `days_per_run` days."""
    tables = {RAW_SESSIONS: [], SESSIONS: [RAW_SESSIONS], REJECTED_SESSIONS: [RAW_SESSIONS]} | {
        table: list(derived.reads) for table, derived in DERIVED.items()
    }

    @dg.multi_asset(
        specs=[spec(table, deps=[dep.name for dep in deps], partitions=daily) for table, deps in tables.items()],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(days_per_run) if days_per_run else dg.BackfillPolicy.single_run(),
    )
    def daily_tables(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[None]]:
        chosen = [table for table in tables if dg.AssetKey(table.name) in context.selected_asset_keys]
        days = [date.fromisoformat(key) for key in context.partition_keys]
        exceeded = []
        for result in pipeline.process(days, chosen, context.log.warning):
            if result.exceeded:
                exceeded.append(result.exceeded)
            elif isinstance(result.day, date):
                record_day(context, result, chosen)
                pipeline.on_day(result.day)
        refuse(exceeded, pipeline.settings.max_rejected_ratio)
        yield from map(recorded, chosen)

    return daily_tables


def refuse(exceeded: Sequence[str], limit: float) -> None:
    """Fail for the days that were not written, each with its reason.

    Raises:
        TooManyRejectedError: there are such days.
    """
    if exceeded:
        raise TooManyRejectedError(
            f"{'; '.join(exceeded)}. More than SESSIONS_PIPELINE_MAX_REJECTED_RATIO={limit:g} allows, so these days "
            "keep their former tables; see whether the API changed, or raise the ratio"
        )
