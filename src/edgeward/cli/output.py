"""How every verb speaks: tables and progress for people, JSON for programs.

show_table("Queries", ["query", "in time"], [["people", "99 %"]])
print_json({"a": 1})
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from edgeward.errors import ConfigError

__all__ = ["note", "percent", "print_json", "seconds", "show_table", "split_truths"]


def note(text: str) -> None:
    """One line for people, on standard error, so that standard output stays for results."""
    typer.echo(text, err=True)


def print_json(record: Any) -> None:
    """One JSON value on standard output."""
    json.dump(record, sys.stdout, indent=2)
    sys.stdout.write("\n")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on standard output."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*[str(cell) for cell in row])
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)


def percent(share: float | None) -> str:
    """A share for people."""
    return "–" if share is None else f"{100 * share:.1f} %"


def seconds(value: float | None) -> str:
    """A duration for people."""
    if value is None:
        return "–"
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def split_truths(texts: Sequence[str]) -> dict[str, Path]:
    """`camera=path` options as a mapping; ConfigError when one is not of that form."""
    found = {}
    for text in texts:
        camera, equals, path = text.partition("=")
        if not equals or not camera or not path:
            raise ConfigError(f"--truth {text}: write it as camera=file, for example --truth street=gt.txt")
        found[camera] = Path(path)
    return found
