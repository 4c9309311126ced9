"""`edgeward prune measure`: ONNX files timed side by side, with the noise that a speed-up has to exceed.

edgeward prune measure dense/model.onnx small/model.onnx --input 3x224x224
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from edgeward.cli.output import print_json, seconds, show_table
from edgeward.errors import ConfigError

__all__ = ["measure"]


def measure(
    files: Annotated[list[Path], typer.Argument(help="ONNX files, the baseline first.", show_default=False)],
    shape: Annotated[str, typer.Option("--input", help="Shape of one sample, such as 3x224x224.")],
    batch: Annotated[int, typer.Option(min=1, help="Samples at once.")] = 1,
    rounds: Annotated[int, typer.Option(min=3, max=100_000, help="Of all files in turn.")] = 30,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print every round as JSON.")] = False,
) -> None:
    """Time networks side by side, and say which is faster beyond the noise."""
    from edgeward.prune.latency import measure as timed

    try:
        sides = [batch, *(int(side) for side in shape.lower().split("x"))]
        networks = {
            f"{file}{' again' * files[:place].count(file)}": file.read_bytes() for place, file in enumerate(files)
        }
    except ValueError as error:
        raise ConfigError(f"--input {shape}: write the shape of one sample like 3x224x224") from error
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}") from error
    if min(sides) < 1 or math.prod(sides) > 1 << 28:
        raise ConfigError(f"--input {shape}: sides are at least 1, and all values at most {1 << 28}")
    timing = timed(networks, sides, rounds=rounds, threads=threads)
    if json_:
        print_json({"seconds": {name: list(values) for name, values in timing.seconds.items()}})
        return
    first = str(files[0])
    rows = []
    for name in networks:
        figure = timing.figure(name)
        faster = "baseline" if name == first else str(timing.speedup(first, name))
        rows.append([name, seconds(figure.median), f"{seconds(figure.low)} to {seconds(figure.high)}", faster])
    show_table(f"{rounds} rounds", ["network", "median", "10th to 90th percentile", "speed-up"], rows)
