"""Pruning: masks found early, networks made smaller before training, exact conversion, switching, and Torch-Pruning."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from harness import run_sections, shared_data  # noqa: E402

Rows = list[dict[str, Any]]


def run(full: bool = False) -> dict[str, Any]:
    """All sections; quick takes fewer networks, seeds and repeats."""
    from dnnshifter import dnnshifter
    from drive import masks, scoring
    from reconvene import accuracies, generation, latencies
    from rivals import accuracies as rival_accuracies
    from rivals import rivals
    from switching import switching
    from trained import portfolio

    data = shared_data()
    sections = {
        "switching": functools.partial(switching, full),
        "beside Torch-Pruning": functools.partial(rivals, full),
        "conversion": functools.partial(dnnshifter, full),
        "narrowing at initialisation": functools.partial(generation, full),
        "its latency": functools.partial(latencies, full),
        "Torch-Pruning's accuracy": functools.partial(rival_accuracies, full, data),
        "cost of scores": functools.partial(scoring, full),
        "masks": functools.partial(masks, full, data),
        "its accuracy": functools.partial(accuracies, full, data),
        "portfolio": functools.partial(portfolio, full, data),
    }
    return run_sections("prune", full, sections)


if __name__ == "__main__":
    print(json.dumps(run("--full" in sys.argv), indent=1))
