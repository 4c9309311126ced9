"""A synthetic camera with ground truth: test://people?seed=1&objects=4.

    source = SyntheticSource(Scene(seed=1, frames=100))
    for frame in source:
        print(len(source.truth(frame.content_index)))

For demonstrations, tests and soak runs without any file; a frame of 640x480 takes about 1 ms to draw.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeward.vision.frames import Frame, Source
from edgeward.vision.results import Detections
from edgeward.vision.sources.scene import Scene
from edgeward.vision.sources.stage import Stage

__all__ = ["SyntheticSource"]


class SyntheticSource(Source):
    """Frames of a scene, drawn when asked for. Picture n is the same whenever and however often it is drawn."""

    def __init__(self, scene: Scene, *, loop: bool = False) -> None:
        self.scene = scene
        self._stage = Stage(scene)
        self._loop = loop
        self._closed = False

    @property
    def fps(self) -> float | None:
        return self.scene.fps

    def close(self) -> None:
        self._closed = True

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while not self._closed and (self._loop or index < self.scene.frames):
            content = index % self.scene.frames
            yield Frame(index, index / self.scene.fps, self._stage.render(content), content)
            index += 1

    def truth(self, content_index: int) -> Detections:
        """What is in picture `content_index`: class 0 (person), confidence 1, tracker_id per figure.

        Raises IndexError outside 0 .. frames - 1.
        """
        if not 0 <= content_index < self.scene.frames:
            raise IndexError(f"picture {content_index} is outside 0 .. {self.scene.frames - 1}")
        return self._stage.truth(content_index)
