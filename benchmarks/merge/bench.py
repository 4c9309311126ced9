"""Merging: bytes saved at which accuracy, memory of the serving process, loads, and accuracy when memory is short."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from harness import FASHION, row, run_sections  # noqa: E402


def run(full: bool = False) -> dict[str, Any]:
    """All sections; quick takes fewer pictures and less time."""
    if not FASHION.exists():
        reason = f"skipped: {FASHION} is absent; install Debian's dataset-fashion-mnist"
        skipped = row("merge", "all rows", baseline="none", ours=None, unit="", note=reason)
        return run_sections("merge", False, {"skipped": lambda: [skipped]})
    from memory import memory
    from pressure import pressure
    from sharing import sharing

    sections = {
        "high potential": functools.partial(sharing, full, "high", 0.6),
        "mixed": functools.partial(sharing, full, "mixed", None),
        "memory and loads": functools.partial(memory, full, "high"),
        "short of memory": functools.partial(pressure, full, "high"),
        "mixed, short of memory": functools.partial(pressure, full, "mixed"),
    }
    return run_sections("merge", full, sections)


if __name__ == "__main__":
    print(json.dumps(run("--full" in sys.argv), indent=1))
