"""dlt in its fastest form: the resource yields Arrow tables, so dlt neither types nor unnests rows.

    python benchmarks/peers/dlt_arrow.py ENDPOINT FOLDER

The author of such a pipeline writes the conversion (here msgspec, with the schema spelled out); dlt does threads,
packaging, schema and loading. Eight pages are in flight.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

os.environ |= {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "CRITICAL",
    "EXTRACT__WORKERS": "8",
    "EXTRACT__MAX_PARALLEL_ITEMS": "16",
    "SOURCES__DATA_WRITER__BUFFER_MAX_ITEMS": "25000",
    "SOURCES__DATA_WRITER__FILE_MAX_ITEMS": "100000",
    "NORMALIZE__WORKERS": "1",
    "NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID": "false",
}

import dlt
import msgspec
import pyarrow as pa
from daily_cost import write_daily_cost
from dlt.sources.helpers import requests

PAGE = 100
TEXT = ("id", "tenant_id", "name", "description", "default_dataset_id", "reference_dataset_id", "trace_tier")
TIMES = ("start_time", "end_time", "last_run_start_time", "last_run_start_time_live")
COUNTS = ("run_count", "total_tokens", "prompt_tokens", "completion_tokens", "test_run_number")
RATES = ("latency_p50", "latency_p99", "first_token_p50", "first_token_p99", "error_rate", "streaming_rate")
COSTS = ("total_cost", "prompt_cost", "completion_cost")
NESTED = ("extra", "feedback_stats", "session_feedback_stats", "run_facets", "experiment_progress")
MONEY = pa.decimal128(38, 18)
Session = msgspec.defstruct(
    "Session",
    [(name, str | None, None) for name in (*TEXT, *TIMES, *COSTS)]
    + [(name, int | None, None) for name in COUNTS]
    + [(name, float | None, None) for name in RATES]
    + [(name, msgspec.Raw, msgspec.Raw(b"null")) for name in NESTED],
    gc=False,
)


def table(records: list[Any]) -> pa.Table:
    def column(name: str, kind: pa.DataType, convert: Callable[[Any], Any] = lambda value: value) -> pa.Array:
        # With `from_pandas=False`, pyarrow does not import pandas.
        return pa.array([convert(getattr(record, name)) for record in records], kind, from_pandas=False)

    return pa.table(
        {name: column(name, pa.string()) for name in TEXT}
        | {name: column(name, pa.string()).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC")) for name in TIMES}
        | {name: column(name, pa.int64()) for name in COUNTS}
        | {name: column(name, pa.float64()) for name in RATES}
        | {name: column(name, MONEY, _money) for name in COSTS}
        | {name: column(name, pa.string(), lambda raw: bytes(raw).decode()) for name in NESTED}
    )


def _money(cost: str | None) -> Decimal | None:
    return Decimal(cost) if cost else None


def read(endpoint: str) -> Any:
    finished = threading.Event()
    decoder = msgspec.json.Decoder(list[Session])  # type: ignore[valid-type]

    @dlt.resource
    def offsets() -> Iterator[int]:
        offset = 0
        while not finished.is_set():
            yield offset
            offset += PAGE

    @dlt.transformer(name="sessions", data_from=offsets)
    def sessions(offset: int) -> Iterator[Callable[[], Any]]:
        @dlt.defer
        def page() -> pa.Table | None:
            answer = requests.get(
                f"{endpoint}/api/v1/sessions",
                params={"include_stats": "true", "sort_by": "start_time", "offset": offset, "limit": PAGE},
                headers={"X-API-Key": "benchmark"},
            )
            records = decoder.decode(answer.content)
            if len(records) < PAGE:
                finished.set()
            return table(records) if records else None

        yield page()

    return sessions


def main() -> None:
    endpoint, folder = sys.argv[1], Path(sys.argv[2])
    pipeline = dlt.pipeline(
        pipeline_name="sessions",
        pipelines_dir=str(folder / "working"),
        destination=dlt.destinations.filesystem(bucket_url=(folder / "lake").as_uri()),
        dataset_name="langsmith",
    )
    pipeline.run(read(endpoint), loader_file_format="parquet").raise_on_failed_jobs()
    rows = write_daily_cost(folder / "lake/langsmith/sessions", folder)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
