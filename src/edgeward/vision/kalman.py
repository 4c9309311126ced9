"""Kalman filters for many boxes at once, each coordinate with a velocity of its own.

    motion = Motion.at_rest(boxes)                    # centre x, y, width, height
    motion = motion.predicted(seconds=0.2)
    motion = motion.corrected(np.array([0]), measured)

Constant velocity driven by white-noise acceleration (Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to
Tracking and Navigation", 2001, section 6.2.2), so that a prediction over any time span is one step. Noise is in
proportion to the box, as in DeepSORT (Wojke et al., ICIP 2017). No coordinate's noise depends on another's, so an
8-state filter falls apart into four 2-state filters whose gains are plain divisions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Motion"]

Array = npt.NDArray[np.float64]

MEASUREMENT = 0.08
"""Standard deviation of a measured coordinate, in box sizes (half of width + height)."""
SPEED = np.array([1.0, 1.0, 0.1, 0.1])
"""Standard deviation of a new box's velocity of centre and size, in box sizes per second."""
ACCELERATION = np.array([0.4, 0.4, 0.1, 0.1])
"""Root of the acceleration's noise density, in box sizes per second^1.5."""
POSITION, VELOCITY, VAR_POSITION, COVARIANCE, VAR_VELOCITY = range(5)


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion of n boxes: float64 [n, 5, 4].

    Along the second axis: position, velocity per second, variance of the position, covariance of both, variance of
    the velocity; along the third: centre x, centre y, width, height, in pixels.
    """

    state: Array

    @classmethod
    def at_rest(cls, boxes: Array) -> Self:
        """Boxes [n, 4] seen for the first time."""
        state = np.zeros((len(boxes), 5, 4))
        size = _size(boxes)
        state[:, POSITION] = boxes
        state[:, VAR_POSITION] = (MEASUREMENT * size) ** 2
        state[:, VAR_VELOCITY] = (SPEED * size) ** 2
        return cls(state)

    @property
    def boxes(self) -> Array:
        """Where the boxes are believed to be: [n, 4], centre x, centre y, width, height."""
        return self.state[:, POSITION]

    @property
    def corners(self) -> Array:
        """The boxes by their corners, float64 [n, 4]; a predicted size below 0 counts as 0."""
        boxes = self.boxes
        half = np.maximum(boxes[:, 2:], 0.0) / 2
        return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)

    def __len__(self) -> int:
        return len(self.state)

    def predicted(self, seconds: float) -> Self:
        """The motion `seconds` later."""
        position, velocity, var_position, covariance, var_velocity = self.state.transpose(1, 0, 2)
        density = (ACCELERATION * _size(position)) ** 2 * seconds
        moved = np.empty_like(self.state)
        moved[:, POSITION] = position + velocity * seconds
        moved[:, VELOCITY] = velocity
        moved[:, VAR_POSITION] = (
            var_position + (2 * covariance + var_velocity * seconds) * seconds + density * (seconds**2 / 3)
        )
        moved[:, COVARIANCE] = covariance + var_velocity * seconds + density * (seconds / 2)
        moved[:, VAR_VELOCITY] = var_velocity + density
        return replace(self, state=moved)

    def corrected(self, rows: npt.NDArray[np.intp], measured: Array) -> Self:
        """The motion after the boxes at `rows` [k], all different, were seen at `measured` [k, 4]."""
        position, velocity, var_position, covariance, var_velocity = self.state[rows].transpose(1, 0, 2)
        surprise = measured - position
        total = var_position + (MEASUREMENT * _size(measured)) ** 2
        gain, gain_velocity = var_position / total, covariance / total
        seen = np.empty((len(rows), 5, 4))
        seen[:, POSITION] = position + gain * surprise
        seen[:, VELOCITY] = velocity + gain_velocity * surprise
        seen[:, VAR_POSITION] = (1 - gain) * var_position
        seen[:, COVARIANCE] = (1 - gain) * covariance
        seen[:, VAR_VELOCITY] = var_velocity - gain_velocity * covariance
        state = self.state.copy()
        state[rows] = seen
        return replace(self, state=state)

    def joined(self, other: Self) -> Self:
        """These boxes, then those of `other`."""
        return replace(self, state=np.concatenate([self.state, other.state]))

    def only(self, rows: npt.NDArray[np.bool_]) -> Self:
        """The boxes where `rows` [n] is true."""
        return replace(self, state=self.state[rows])


def _size(boxes: Array) -> Array:
    """Half of width + height, [n, 1], at least one pixel: a box without area still moves."""
    size: Array = np.maximum((boxes[:, 2:3] + boxes[:, 3:4]) / 2, 1.0)
    return size
