"""Reads the LangSmith API: requests, retries, redaction, and the proof that pages hold whole days."""
