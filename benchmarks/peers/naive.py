"""What one writes in an afternoon: httpx page by page, a pydantic model of the schema, pandas to Parquet.

    python benchmarks/peers/naive.py ENDPOINT FOLDER

Costs become floats, as most such scripts have them: quicker than `Decimal`, and not exact.
"""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pandas as pd
from pydantic import BaseModel, TypeAdapter

PAGE = 100
NESTED = ("extra", "feedback_stats", "session_feedback_stats", "run_facets", "experiment_progress")


class TracerSession(BaseModel):
    id: UUID
    tenant_id: UUID
    name: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    description: str | None = None
    default_dataset_id: UUID | None = None
    reference_dataset_id: UUID | None = None
    trace_tier: str | None = None
    extra: dict[str, Any] | None = None
    run_count: int | None = None
    latency_p50: float | None = None
    latency_p99: float | None = None
    first_token_p50: float | None = None
    first_token_p99: float | None = None
    total_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_cost: float | None = None
    prompt_cost: float | None = None
    completion_cost: float | None = None
    last_run_start_time: datetime | None = None
    last_run_start_time_live: datetime | None = None
    feedback_stats: dict[str, Any] | None = None
    session_feedback_stats: dict[str, Any] | None = None
    run_facets: list[dict[str, Any]] | None = None
    error_rate: float | None = None
    streaming_rate: float | None = None
    test_run_number: int | None = None
    experiment_progress: dict[str, Any] | None = None


def download(endpoint: str) -> list[dict[str, Any]]:
    page_of_sessions = TypeAdapter(list[TracerSession])
    rows: list[dict[str, Any]] = []
    with httpx.Client(base_url=endpoint, headers={"X-API-Key": "benchmark"}) as client:
        while True:
            parameters = {"include_stats": True, "sort_by": "start_time", "limit": PAGE, "offset": len(rows)}
            answer = client.get("/api/v1/sessions", params=parameters).raise_for_status()
            page = page_of_sessions.validate_json(answer.content)
            rows.extend(session.model_dump() for session in page)
            if len(page) < PAGE:
                return rows


def main() -> None:
    endpoint, folder = sys.argv[1], Path(sys.argv[2])
    frame = pd.DataFrame(download(endpoint))
    for name in NESTED:
        frame[name] = frame[name].map(json.dumps, na_action="ignore")
    for name in ("id", "tenant_id", "default_dataset_id", "reference_dataset_id"):
        frame[name] = frame[name].map(str, na_action="ignore")
    frame["day"] = frame["start_time"].dt.date
    frame.to_parquet(folder / "sessions.parquet", index=False)
    daily = frame.groupby(["day", "reference_dataset_id"], as_index=False)["total_cost"].sum()
    daily.to_parquet(folder / "daily_cost.parquet", index=False)
    print(json.dumps({"rows": len(frame)}))


if __name__ == "__main__":
    main()
