"""The command `edgeward`: one thin module per verb.

    edgeward serve box.yaml
    edgeward replay box-data/log --policy fifo-lru

A mistake or fault that a user can act on is one line on standard error and exit code 2. Heavy
libraries are imported by the verb that needs them, so that `edgeward --help` stays quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgeward import __version__
from edgeward.cli import bench, fleet, merge, models, node, plan, profile, prune, replay, serve, split
from edgeward.errors import EdgewardError

__all__ = ["app", "main"]

app = typer.Typer(
    name="edgeward",
    help="Deep models on the devices you have: split over device, edge and cloud, served on live cameras.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("replay")(replay.replay)
app.command("profile")(profile.profile)
app.command("plan")(plan.plan)
app.add_typer(fleet.app, name="fleet")
app.add_typer(node.app, name="node")
app.add_typer(prune.app, name="prune")
app.add_typer(serve.app, name="serve")
app.add_typer(merge.app, name="merge")
app.add_typer(split.app, name="split")
app.command("models")(models.models)
app.command("bench")(bench.bench)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Deep models on the devices you have: split over device, edge and cloud, served on live cameras."""


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except EdgewardError as error:
        message = " ".join(str(error).split())
        print(f"edgeward: {message}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = {"av": "video", "cv2": "video", "scipy": "video", "fastapi": "web", "uvicorn": "web"}.get(
            error.name or ""
        )
        if extra is None:
            raise
        print(f"edgeward: {error.name} is not installed; run: pip install 'edgeward[{extra}]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.stderr.close()
        sys.exit(0)
