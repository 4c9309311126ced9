"""A verb with subcommands whose usual case needs no word.

app = typer.Typer(cls=usually("model"))      # `edgeward prune net` is `edgeward prune model net`
"""

from __future__ import annotations

import click
from typer.core import TyperGroup

__all__ = ["usually"]


def usually(command: str, help_too: bool = False) -> type[TyperGroup]:
    """A group that runs `command` when the first word names none of its commands.

    help_too: whether that holds for --help as well, instead of the list of commands.
    """

    class Usually(TyperGroup):
        def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
            helps = not args or args[0] in ("--help", "-h")
            if (help_too or not helps) and (not args or args[0] not in self.commands):
                args = [command, *args]
            return super().parse_args(ctx, args)

    return Usually
