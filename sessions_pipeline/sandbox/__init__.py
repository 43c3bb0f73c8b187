"""The embedded API: a made-up company behind a real HTTP server."""
