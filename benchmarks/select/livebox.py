"""One run of the real box in a process of its own, pinned to one core: `python livebox.py CORE BOX.yaml SECONDS`.

Says "ready" when all models are prepared, and begins at the next line on its standard input.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgeward.serve.box import Box
from edgeward.serve.configfile import load_config


def main(core: int, file: Path, seconds: float) -> None:
    os.sched_setaffinity(0, {core})
    box = Box(load_config(file))
    print("ready", flush=True)
    sys.stdin.readline()
    with box:
        box.run(seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
