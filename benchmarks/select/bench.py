"""Choosing models at run time: synthetic worlds, real video, four cameras, the real box, and what it costs; aging,
forecast, tiles, exits, memory."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from harness import run_sections, shared_data  # noqa: E402


def run(full: bool = False) -> dict[str, Any]:
    """All sections; quick takes fewer worlds, loads and frames, and one of three ways to part the recordings."""
    import aging
    import cameras
    import exits
    import forecast
    import hundred
    import live
    import moved
    import regimes
    import remembered
    import spent
    import tiles
    from simulator import worlds

    data = shared_data()
    sections = {
        "cost": functools.partial(spent.rows, full),
        "live": functools.partial(live.rows, full, data),
        "video": functools.partial(regimes.rows, full, data),
        "cameras": functools.partial(cameras.rows, full, data),
        "video with forecast": functools.partial(moved.rows, full, data),
        "aging": functools.partial(aging.rows, full, data),
        "forecast by lateness": functools.partial(forecast.rows, full, data),
        "synthetic worlds": functools.partial(worlds, full),
        "tiles": functools.partial(tiles.rows, full, data),
        "exits": functools.partial(exits.rows, full, data),
        "memory": functools.partial(remembered.rows, full, data),
        "a hundred worlds": functools.partial(hundred.rows, full),
    }
    return run_sections("select", full, sections)


if __name__ == "__main__":
    print(json.dumps(run("--full" in sys.argv), indent=1))
