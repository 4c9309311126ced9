"""A source over anything FFmpeg reads; `file` and `network` say what they open and how.

    source = StreamSource(Address("file:/data/clip.mp4", shown="clip.mp4"), loop=True)

Here pictures get their numbers and their times.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeward.clock import Clock, WallClock, to_seconds
from edgeward.errors import SourceError
from edgeward.vision.frames import Frame, Source
from edgeward.vision.sources.decode import Address, Picture, Stream
from edgeward.vision.sources.timeline import USUAL_FPS, TimeLine

__all__ = ["StreamSource"]

UNTIMED = ("mpjpeg", "mjpeg", "jpeg_pipe")
"""Formats without time stamps of their own: live, frames of these are stamped when they arrive."""


class StreamSource(Source):
    """Frames of one address. Opened at once; every iteration starts over.

    loop: begin again at the end (frames count on, `content_index` starts again, time goes on).
    live: what is behind the address goes on by itself, and `content_index` counts like `index`.

    Raises SourceError when it cannot be opened, or holds no picture that can be decoded.
    """

    def __init__(self, address: Address, *, loop: bool = False, live: bool = False, clock: Clock | None = None) -> None:
        self._address = address
        self._loop = loop and not live
        self._live = live
        self._clock = clock or WallClock()
        self._closed = False
        self._corrupt = 0
        self._stream = Stream(address)
        self._fresh = True
        self._fps = self._stream.fps

    @property
    def live(self) -> bool:
        return self._live

    @property
    def fps(self) -> float | None:
        return self._fps

    @property
    def corrupt(self) -> int:
        return self._corrupt

    def close(self) -> None:
        self._closed = True
        self._stream.close()

    def __iter__(self) -> Iterator[Frame]:
        line = TimeLine(1 / (self._fps or USUAL_FPS))
        index = 0
        while not self._closed:
            started = index
            for content, picture in enumerate(self._pass()):
                if picture is None:
                    # A live stream is joined in its middle; what comes before its first key frame is no damage.
                    self._corrupt += not self._live or index > started
                    continue
                yield Frame(index, line.at(self._stamp(picture)), picture.image, index if self._live else content)
                index += 1
            if index == started and not self._closed:
                raise SourceError(f"{self._address.shown} holds no picture that can be decoded")
            if not self._loop:
                return
            line.restart()

    def _pass(self) -> Iterator[Picture | None]:
        """From the beginning to the end once. Reopening is the one way back that every format knows."""
        if not self._fresh:
            self._stream.close()
            self._stream = Stream(self._address)
        self._fresh = False
        if self._closed:  # while it was being opened again
            self._stream.close()
        return self._stream.pictures()

    def _stamp(self, picture: Picture) -> float | None:
        if self._live and self._stream.format in UNTIMED:
            return to_seconds(self._clock.now_ns())
        return picture.stamp
