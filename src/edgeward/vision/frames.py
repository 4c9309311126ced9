"""One picture from a camera, and what yields them.

for frame in open_source("test://people?seed=1&frames=10"):
    print(frame.index, frame.time, frame.image.shape)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Frame", "Image", "Source"]

Image = npt.NDArray[np.uint8]
"""A picture: uint8 [height, width, 3], BGR."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded picture.

    index: counts the frames of the stream from 0 and never repeats, also when a file is looped.
    time: seconds on the source's own time line since the stream's first frame.
    image: uint8 [height, width, 3], BGR.
    content_index: which frame of the recording this is (a looped file starts again at 0);
        ground truth is looked up by it. Equal to `index` for live sources.
    view: counts what the camera shows from 0: it grows when that is suddenly another (see `edgeward.vision.views`).
    """

    index: int
    time: float
    image: Image
    content_index: int
    view: int = 0


class Source(ABC):
    """A stream of frames. A URL chooses it: see `edgeward.vision.sources.open_source`."""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield frames as fast as they can be had; raise SourceError when the stream breaks."""

    @abstractmethod
    def close(self) -> None:
        """Release the device, file or connection. Safe to call twice, and from another thread."""

    @property
    def live(self) -> bool:
        """Whether frames come at the pace of the world, so that what is not read is lost."""
        return False

    @property
    def fps(self) -> float | None:
        """The rate that the source declares, frames per second, or None."""
        return None

    @property
    def corrupt(self) -> int:
        """Frames left out so far because they were damaged."""
        return 0
