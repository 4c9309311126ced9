"""The box against the loops people write, and against itself on a virtual clock.

Run by `edgeward bench serve [--full]`. Rows that need the real test data say so when it is absent.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import endurance
import frames_per_second
import readiness
import sharing
from harness import run_sections, shared_data


def run(full: bool) -> dict[str, Any]:
    """All rows. Quick: fewer frames and repeats; the long runs are left to --full."""
    import weights

    data = shared_data()
    sections = {
        "frames per second": lambda: frames_per_second.rows(full, data),
        "sharing": lambda: sharing.rows(full),
        "weights": lambda: weights.rows(quick=not full),
        "readiness": lambda: readiness.rows(full),
    }
    if full:
        sections["endurance"] = endurance.rows
    if data is not None:
        import detectors
        import tracking
        import tracking_skipped

        sections["detectors"] = lambda: detectors.rows(data, full)
        sections["tracking"] = lambda: tracking.rows(data)
        if full:
            sections["tracking of every n-th frame"] = lambda: tracking_skipped.rows(data)
    return run_sections("serve", full, sections)
