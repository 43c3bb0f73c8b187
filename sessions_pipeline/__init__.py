"""What LLM experiments cost: tracing sessions as validated Parquet and exact daily costs."""

__version__ = "0.1.0"
