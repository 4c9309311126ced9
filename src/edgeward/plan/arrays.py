"""Types of the arrays that solvers work on, and what they find.

Way(devices=np.array([0, 0, 1]), packings=np.array([0, 0, 2, 0]))   # block 2 on device 1, sent by option 2
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Bools", "Floats", "Ints", "Way"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Way:
    """A plan as a solver finds it: [n] device of every block, [n + 1] packing at every boundary, 0 without a hop."""

    devices: Ints
    packings: Ints
