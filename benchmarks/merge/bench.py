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

    sections: dict[str, Section] = {
        "high potential": functools.partial(sharing, full, "high", 0.6),
        "memory and loads": functools.partial(memory, full, "high"),
        "short of memory": functools.partial(pressure, full, "high"),
        "live, short of memory": functools.partial(live, full, "high"),
    }
    if full:
        sections |= {
            "mixed": functools.partial(sharing, full, "mixed", None),
            "mixed, short of memory": functools.partial(pressure, full, "mixed"),
            "reload trace": functools.partial(trace, full, "high"),
            "baselines": functools.partial(baselines, full, "high"),
            "common beginnings": functools.partial(prefix, full),
        }
        sections |= _of_lite0(absent()) or {
            "lite0": functools.partial(sharing, full, "lite0", 0.6),
            "lite0, memory and loads": functools.partial(memory, full, "lite0"),
            "lite0, short of memory": functools.partial(pressure, full, "lite0"),
            "lite0, live, short of memory": functools.partial(live, full, "lite0"),
            "lite0, reload trace": functools.partial(trace, full, "lite0"),
        }
    return run_sections("merge", full, sections)


def _of_lite0(reason: str) -> dict[str, Section]:
    """What to say instead of these sections when there is a reason not to run them."""
    skipped = row("lite0", "all rows of EfficientNet-Lite0", baseline="none", ours=None, unit="", note=reason)
    return {"lite0": lambda: [skipped]} if reason else {}


if __name__ == "__main__":
    print(json.dumps(run("--full" in sys.argv), indent=1))
