"""dlt as its documentation first shows it: declarative REST API source, filesystem destination, Parquet.

    python benchmarks/peers/dlt_default.py ENDPOINT FOLDER

All settings are defaults but the file format, and telemetry, which is off so that nothing leaves the machine.
"""

import json
import os
import sys
from pathlib import Path

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
from daily_cost import write_daily_cost
from dlt.sources.rest_api import rest_api_source


def main() -> None:
    endpoint, folder = sys.argv[1], Path(sys.argv[2])
    source = rest_api_source(
        {
            "client": {
                "base_url": f"{endpoint}/api/v1/",
                "headers": {"X-API-Key": "benchmark"},
                "paginator": {"type": "offset", "limit": 100, "total_path": None},
            },
            "resources": [
                {
                    "name": "sessions",
                    "endpoint": {"path": "sessions", "params": {"include_stats": "true", "sort_by": "start_time"}},
                }
            ],
        }
    )
    pipeline = dlt.pipeline(
        pipeline_name="sessions",
        pipelines_dir=str(folder / "working"),
        destination=dlt.destinations.filesystem(bucket_url=(folder / "lake").as_uri()),
        dataset_name="langsmith",
    )
    pipeline.run(source, loader_file_format="parquet").raise_on_failed_jobs()
    rows = write_daily_cost(folder / "lake/langsmith/sessions", folder)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
