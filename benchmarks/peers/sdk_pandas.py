"""The official client and pandas: reads `Client.list_projects(include_stats=True)` into one frame, writes Parquet.

    python benchmarks/peers/sdk_pandas.py ENDPOINT FOLDER

The client reads page after page and yields pydantic objects with `Decimal` costs, so sums are exact.
"""

import json
import os
import sys
from decimal import Decimal
from pathlib import Path

os.environ["LANGSMITH_TRACING"] = "false"
# dlt, in the same environment, brings simplejson, which requests prefers and which is the slower decoder.
sys.modules["simplejson"] = None  # type: ignore[assignment]

import pandas as pd  # noqa: E402
from langsmith import Client  # noqa: E402

NESTED = ("extra", "feedback_stats", "session_feedback_stats", "run_facets")


def main() -> None:
    endpoint, folder = sys.argv[1], Path(sys.argv[2])
    client = Client(api_url=f"{endpoint}/api/v1", api_key="benchmark", auto_batch_tracing=False)
    frame = pd.DataFrame([project.model_dump() for project in client.list_projects(include_stats=True)])
    for name in NESTED:
        frame[name] = frame[name].map(json.dumps, na_action="ignore")
    for name in ("id", "tenant_id", "reference_dataset_id"):
        frame[name] = frame[name].map(str, na_action="ignore")
    frame["day"] = frame["start_time"].dt.date
    frame.to_parquet(folder / "sessions.parquet", index=False)
    priced = frame.dropna(subset=["reference_dataset_id", "total_cost"])
    daily = priced.groupby(["day", "reference_dataset_id"])["total_cost"].agg(lambda costs: sum(costs, Decimal(0)))
    daily.reset_index().to_parquet(folder / "daily_cost.parquet", index=False)
    print(json.dumps({"rows": len(frame)}))


if __name__ == "__main__":
    main()
