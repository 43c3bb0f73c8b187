"""Dagster only: partitions, resources, assets, checks, jobs, schedules, sensors and metadata."""
