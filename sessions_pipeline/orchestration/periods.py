"""The assets that sum days: costs by week and by month, one file each.

Only periods of which a day has changed are summed again: each file remembers, period by period, which versions of its
days it was made from.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from hashlib import sha256

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from sessions_pipeline.days import month_start, week_start
from sessions_pipeline.errors import LakeConflictError
from sessions_pipeline.lake.lake import Lake, Written
from sessions_pipeline.orchestration.pipeline import Pipeline
from sessions_pipeline.orchestration.recording import of_file, spec
from sessions_pipeline.tables import (
    DAILY_COST_BY_REFERENCE_DATASET as DAILY,
)
from sessions_pipeline.tables import (
    MONTHLY_COST_BY_REFERENCE_DATASET,
    WEEKLY_COST_BY_REFERENCE_DATASET,
    Table,
)

