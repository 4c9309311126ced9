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
from harness import result, shared_data


def run(full: bool) -> dict[str, Any]:
    """All rows. Quick: fewer frames and repeats; the long run of memory is left to --full."""
    import weights

    data = shared_data()
    rows = [
        *frames_per_second.rows(full, data),
        *sharing.rows(full),
        *weights.rows(quick=not full),
        *readiness.rows(full),
    ]
    if full:
        rows += endurance.rows()
    if data is not None:
        import detectors
        import tracking

        rows += [*detectors.rows(data, full), *tracking.rows(data)]
        if full:
            import tracking_skipped

            rows += tracking_skipped.rows(data)
    return result("serve", full, rows)
