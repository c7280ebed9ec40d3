"""Verbs of the gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.console import Terminal
from pipeline.options import ConfigOption, SetOption, settings_from

app = typer.Typer()


@app.command()
def gateway(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Serve recommendations, events and the demo page over HTTP until Ctrl-C; starts Triton where none runs."""
    from pipeline.gateway import serve_gateway

    serve_gateway(settings_from(config, set_), Terminal())


@app.command("gateway-key")
def gateway_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scope: Annotated[list[str] | None, typer.Option(help="recommend, events, operator; may repeat.")] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Make an API key, show it once, and keep its hash."""
    from pipeline.gateway import key_file
    from serving.gateway.keys import add_key

    typer.echo(add_key(key_file(settings_from(config, set_)), name, tuple(scope or ("recommend", "events"))))
