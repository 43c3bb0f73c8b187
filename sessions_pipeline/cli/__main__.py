"""`python -m sessions_pipeline.cli`."""

from sessions_pipeline.cli import main

main()
