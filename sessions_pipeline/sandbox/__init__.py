"""The embedded API: deterministic sessions, injectable faults, a real HTTP server."""
