"""The LangSmith API: one request, patience, and which pages hold which days."""
