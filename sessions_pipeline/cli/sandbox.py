"""`sessions-pipeline sandbox`: the embedded API by itself."""

import click

from sessions_pipeline.errors import SessionsPipelineError


@click.command(
    short_help="Serve the API of a made-up company.", epilog="Example: sessions-pipeline sandbox --port 8123"
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8123, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--seed", type=int, default=7, show_default=True, help="Other seeds make other data.")
def sandbox(port: int, seed: int) -> None:
    """Serve a made-up company's sessions on 127.0.0.1, in the shape of the LangSmith API, until Ctrl-C."""
    from sessions_pipeline.sandbox.app import KEY
    from sessions_pipeline.sandbox.server import serve

    def ready(url: str) -> None:
        click.echo(f"Sandbox API on {url} - point the pipeline at it in another terminal:")
        click.echo(f"  export LANGSMITH_ENDPOINT={url} LANGSMITH_API_KEY={KEY}")
        click.echo("Ctrl-C stops it.")

    try:
        serve(port, seed=seed, ready=ready)
    except OSError as error:
        raise SessionsPipelineError(f"port {port}: {error.strerror}; --port 0 takes a free one") from None
