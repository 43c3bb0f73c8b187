"""The definitions that Dagster loads: `dagster dev` through `workspace.yaml`, or `-m sessions_pipeline.definitions`."""

import dagster as dg

from sessions_pipeline.orchestration.build import build_definitions
from sessions_pipeline.pipeline import Pipeline
from sessions_pipeline.settings import Settings


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions from the environment and `.env`. Opens neither the lake nor a connection."""
    return build_definitions(Pipeline(Settings.load()))
