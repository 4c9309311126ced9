"""Decoded frames between the readers and the processor: one copy, however many queries want it.

    buffer.put("street", frame, stopping)     # a reader; blocks only for cameras in `bounded`
    image = buffer.get("street", 17).frame.image    # the processor
    buffer.keep("street", wanted={17, 18}, newest=18)

A frame lives while a job needs it, while it is its camera's newest, or while the loop has not
heard of it yet.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgeward.serve.runner import Prepared
from edgeward.vision.frames import Frame

__all__ = ["FrameBuffer", "Held"]

NOTHING: Mapping[str, Prepared] = MappingProxyType({})

CAPACITY = 4
"""Frames held per camera before an `every_frame` source has to wait."""


@dataclass(frozen=True, eq=False)
class Held:
    """A frame, and the inputs of models that its camera's own thread has prepared from it."""

    frame: Frame
    inputs: Mapping[str, Prepared]


class FrameBuffer:
    """Thread-safe. bounded: cameras whose readers wait for room."""

    def __init__(self, cameras: Collection[str], bounded: Collection[str]) -> None:
        self._frames: dict[str, dict[int, Held]] = {camera: {} for camera in cameras}
        self._newest: dict[str, Frame] = {}
        self._bounded = frozenset(bounded)
        self._changed = threading.Condition()

    def put(
        self, camera: str, frame: Frame, stopping: threading.Event, inputs: Mapping[str, Prepared] = NOTHING
    ) -> bool:
        """Add a frame; False when `stopping` was set while waiting for room."""
        with self._changed:
            if camera in self._bounded:
                while len(self._frames[camera]) >= CAPACITY and not stopping.is_set():
                    self._changed.wait(0.25)
            if stopping.is_set():
                return False
            self._frames[camera][frame.index] = Held(frame, inputs)
            self._newest[camera] = frame
            return True

    def get(self, camera: str, index: int) -> Held:
        """A frame that a waiting or running job names."""
        with self._changed:
            return self._frames[camera][index]

    def newest(self, camera: str) -> Frame | None:
        """The newest frame of a camera. KeyError for no such camera."""
        with self._changed:
            self._frames[camera]
            return self._newest.get(camera)

    def keep(self, camera: str, wanted: Collection[int], newest: int) -> None:
        """Let go of frames up to `newest` that are not `wanted`."""
        with self._changed:
            frames = self._frames[camera]
            for index in [index for index in frames if index <= newest and index not in wanted]:
                del frames[index]
            self._changed.notify_all()
