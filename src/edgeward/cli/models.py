"""`edgeward models`: what can be served without a file of one's own.

edgeward models
"""

from __future__ import annotations

from typing import Annotated

import typer

from edgeward.cli.output import print_json, show_table
from edgeward.errors import ModelError

__all__ = ["models"]


def models(
    networks: Annotated[bool, typer.Option("--networks", help="List what 'edgeward profile' knows by name.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List packaged models and the output conventions that ONNX files can have, or the reference networks."""
    if networks:
        _networks(json_)
        return
    from edgeward.vision.conventions import CONVENTIONS
    from edgeward.zoo.packaged import PACKAGED

    rows = []
    for name, packaged in sorted(PACKAGED.items()):
        try:
            status = "installed" if packaged.locate() else "needs 'file'"
        except ModelError:
            status = "not installed"
        rows.append([name, packaged.card.task, packaged.licence, packaged.origin, status])
    if json_:
        keys = ("name", "task", "licence", "origin", "status")
        print_json({"models": [dict(zip(keys, row, strict=True)) for row in rows], "conventions": sorted(CONVENTIONS)})
        return
    show_table("Models for 'use:'", ["name", "task", "licence", "from", "status"], rows)
    conventions = [[name, convention.task] for name, convention in sorted(CONVENTIONS.items())]
    show_table("Conventions for 'file: your.onnx'", ["convention", "task"], conventions)


def _networks(json_: bool) -> None:
    from edgeward.zoo.reference import REFERENCES

    if json_:
        print_json(
            [
                {
                    "name": one.name,
                    "input_shape": list(one.input_shape),
                    "parameters": one.parameters,
                    "classes": one.classes,
                }
                for one in REFERENCES.values()
            ]
        )
        return
    rows = [
        [one.name, "x".join(map(str, one.input_shape)), f"{one.parameters / 1e6:.2f} M", one.classes]
        for one in REFERENCES.values()
    ]
    show_table("Networks for 'edgeward profile' (random weights)", ["name", "input", "parameters", "classes"], rows)
