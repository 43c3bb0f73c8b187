"""dlt tuned by its performance guide, still with dlt's own normalisation and typing.

    python benchmarks/peers/dlt_tuned.py ENDPOINT FOLDER

Eight pages in flight (`dlt.defer`, which needs a transformer instead of the declarative source), whole pages yielded,
files rotated so that two processes normalise, large buffers, no compression between the stages, no row ids, nested
values kept as JSON instead of child tables, column types declared, dlt's own fast JSON decoder, telemetry off.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "CRITICAL",
    "EXTRACT__WORKERS": "8",
    "EXTRACT__MAX_PARALLEL_ITEMS": "16",
    "SOURCES__DATA_WRITER__FILE_MAX_ITEMS": "25000",
    "NORMALIZE__WORKERS": "2",
    "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": "100000",
    "NORMALIZE__JSON_NORMALIZER__ADD_DLT_ID": "false",
    "NORMALIZE__JSON_NORMALIZER__ADD_DLT_LOAD_ID": "false",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "25000",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
}

import dlt
from daily_cost import write_daily_cost
from dlt.common import json as json_decoder
from dlt.sources.helpers import requests

PAGE = 100
NESTED = ("extra", "feedback_stats", "session_feedback_stats", "run_facets", "experiment_progress")
COSTS = ("total_cost", "prompt_cost", "completion_cost")
COLUMNS: dict[str, Any] = {name: {"data_type": "json"} for name in NESTED} | {
    name: {"data_type": "decimal", "precision": 38, "scale": 18} for name in COSTS
}


def read(endpoint: str) -> Any:
    finished = threading.Event()

    @dlt.resource
    def offsets() -> Iterator[int]:
        offset = 0
        while not finished.is_set():
            yield offset
            offset += PAGE

    @dlt.transformer(name="sessions", data_from=offsets, columns=COLUMNS, max_table_nesting=0)
    def sessions(offset: int) -> Iterator[Callable[[], Any]]:
        @dlt.defer
        def page() -> list[dict[str, Any]]:
            answer = requests.get(
                f"{endpoint}/api/v1/sessions",
                params={"include_stats": "true", "sort_by": "start_time", "offset": offset, "limit": PAGE},
                headers={"X-API-Key": "benchmark"},
            )
            records: list[dict[str, Any]] = json_decoder.loadb(answer.content)
            if len(records) < PAGE:
                finished.set()
            return records

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
