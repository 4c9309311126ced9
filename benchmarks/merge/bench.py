"""Merging: bytes saved at which accuracy, memory of the serving process, loads, and accuracy when memory is short."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from harness import FASHION, row, run_sections  # noqa: E402

Section = Callable[[], list[dict[str, Any]]]

BARS = {"high": 0.6, "mixed": None, "lite0": 0.6}
"""Least share of the weights saved."""


def run(full: bool = False) -> dict[str, Any]:
    """All sections; quick takes fewer pictures and less time."""
    if not FASHION.exists():
        reason = f"skipped: {FASHION} is absent; install Debian's dataset-fashion-mnist"
        skipped = row("merge", "all rows", baseline="none", ours=None, unit="", note=reason)
        return run_sections("merge", False, {"skipped": lambda: [skipped]})
    from baselines import baselines
    from lite0 import absent
    from live import live
    from memory import memory
    from prefix import prefix
    from pressure import pressure
    from reloads import trace
    from sharing import sharing

    reason = absent() if full else ""
    names = ("high", "mixed", "lite0") if full and not reason else ("high", "mixed") if full else ("high",)
    sections: dict[str, Section] = {f"{name}": functools.partial(sharing, full, name, BARS[name]) for name in names}
    for name in names[::2]:
        sections[f"{name}, memory and loads"] = functools.partial(memory, full, name)
    for name in names:
        sections[f"{name}, short of memory"] = functools.partial(pressure, full, name)
    if full:
        sections["baselines"] = functools.partial(baselines, full, "high")
        sections["common beginnings"] = functools.partial(prefix, full)
    for name in names[::2] if full else ():
        sections[f"{name}, reload trace"] = functools.partial(trace, full, name)
    for name in names[::2] if full else ():
        sections[f"{name}, live"] = functools.partial(live, full, name)
    if reason:
        skipped = row("lite0", "all rows of EfficientNet-Lite0", baseline="none", ours=None, unit="", note=reason)
        sections["lite0"] = lambda: [skipped]
    return run_sections("merge", full, sections)


if __name__ == "__main__":
    print(json.dumps(run("--full" in sys.argv), indent=1))
