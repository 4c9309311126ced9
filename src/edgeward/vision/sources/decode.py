"""Anything FFmpeg reads, as BGR pictures.

    stream = Stream(Address("file:/data/clip.mp4", shown="clip.mp4"))
    for picture in stream.pictures():
        ...                                # None stands for one that was damaged

Decoding uses one thread per stream. Measured on two cores with PyAV 18 (CPU ms per frame, H.264 640x272):
NONE 0.36, SLICE 0.36, AUTO 0.44, where AUTO buys a fifth of the latency with a fifth more CPU; a box has
more cameras than cores. Conversion by one kept swscale context costs 0.13 ms at 768x576, `to_ndarray("bgr24")`
(a context per frame) 0.19 ms, and `cv2.cvtColor` from I420 0.16 ms with a fixed colour matrix: the first is
the fastest and the only one that follows the stream's colour space and range.

Rotation metadata is ignored: pictures come as they are stored.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import repeat
from typing import Any, Literal

import av
import numpy as np
from av.error import EOFError as EndOfStream
from av.error import FFmpegError, InvalidDataError
from av.video.reformatter import VideoReformatter

from edgeward.errors import SourceError
from edgeward.vision.frames import Image

__all__ = ["MAX_PIXELS", "MAX_SIDE", "Address", "Ledger", "Picture", "Stream", "Threads", "check_size"]

MAX_SIDE = 16384
MAX_PIXELS = 64_000_000
MAX_FPS = 1000.0
MAX_BAD = 1000
"""Packets in a row without a picture before a stream is given up."""

Threads = Literal["NONE", "SLICE", "AUTO"]

# FFmpeg plays text files as terminal art; nobody means that by a video.
NOT_VIDEO = {"ansi", "bintext", "idf", "xbin"}


@dataclass(frozen=True)
class Address:
    """What to open. shown: how messages name it, without credentials. silence: seconds without a word from a network
    peer after which it is given up."""

    url: str
    shown: str
    options: Mapping[str, str] = field(default_factory=dict)
    silence: float | None = None
    threads: Threads = "NONE"


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture and its time stamp in seconds from the stream's own origin, if it has one."""

    stamp: float | None
    image: Image


def check_size(shown: str, width: int, height: int) -> None:
    """Refuse pictures that no camera makes, before memory is given to them; raises SourceError."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise SourceError(
            f"{shown}: pictures of {width}x{height} pixels are refused; "
            f"at most {MAX_SIDE} per side and {MAX_PIXELS // 1_000_000} million in all"
        )


class Ledger:
    """Finds the packets that never became a picture: decoders drop damaged ones without always saying so.

    Pictures leave a decoder in the order of their time stamps, each with that of its packet, so what is still
    open below the newest one is lost.
    """

    def __init__(self) -> None:
        self._open: list[int] = []

    def sent(self, stamp: int | None) -> None:
        """A packet went into the decoder; one without a time stamp can't be followed."""
        if stamp is not None:
            heappush(self._open, stamp)

    def shown(self, stamp: int | None) -> int:
        """A picture came out: how many were lost just before it. Without a time stamp nobody knows."""
        if stamp is None:
            self._open.clear()
            return 0
        lost = 0
        while self._open and self._open[0] <= stamp:
            lost += heappop(self._open) < stamp
        return lost

    @property
    def rest(self) -> int:
        """How many are open; once the decoder has been emptied, they are lost."""
        return len(self._open)


class Stream:
    """The best video stream of one opened file or connection; read once.

    Raises SourceError when it cannot be opened, is no video, or has absurd dimensions.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._closed = False
        self._reading = False
        self._reformatter = VideoReformatter()
        began = time.monotonic()
        try:
            self._container = av.open(
                address.url,
                options={"max_pixels": str(MAX_PIXELS), **address.options},
                timeout=address.silence,
                metadata_errors="replace",
            )
        except (FFmpegError, OSError, ValueError) as error:
            raise self._failure("cannot be opened", error, time.monotonic() - began) from None
        try:
            self._video = self._chosen()
        except BaseException:
            self._container.close()
            raise
        self.format: str = self._container.format.name

    @property
    def fps(self) -> float | None:
        """Frames per second as declared; None when absent or absurd."""
        for rate in (self._video.average_rate, self._video.guessed_rate):
            if rate and 0 < float(rate) <= MAX_FPS:
                return float(rate)
        return None

    def pictures(self) -> Iterator[Picture | None]:
        """Every picture in order; None for each that is damaged. Raises SourceError when reading breaks."""
        with self._lock:
            if self._closed or self._reading:
                return
            self._reading = True
        try:
            yield from self._decoded()
        finally:
            self._container.close()
            self._closed = True

    def close(self) -> None:
        """End reading. While another thread is inside FFmpeg the memory is its own; it lets go when it returns."""
        with self._lock:
            self._closed = True
            reading = self._reading
        if not reading:
            self._container.close()

    def _chosen(self) -> Any:
        video: Any = self._container.streams.best("video")
        if video is None:
            raise SourceError(f"{self._address.shown} holds no video stream; give a video")
        if video.codec_context is None:
            raise SourceError(f"{self._address.shown}: this build of FFmpeg has no decoder for it; convert it to H.264")
        if video.codec_context.name in NOT_VIDEO:
            raise SourceError(f"{self._address.shown} is a text file; give a video")
        if video.width and video.height:  # unknown in some live streams until the first picture
            check_size(self._address.shown, video.width, video.height)
        video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        video.thread_type = self._address.threads
        if self._address.threads == "NONE":
            video.codec_context.thread_count = 1
        return video

    def _decoded(self) -> Iterator[Picture | None]:
        ledger, bad = Ledger(), 0
        for packet in self._packets():
            frames, failed = _decode(packet)
            if packet is not None and not packet.is_discard:  # an edit list hides some
                ledger.sent(packet.pts)
            bad = 0 if frames else bad + 1
            if bad > MAX_BAD:
                raise SourceError(f"{self._address.shown}: no picture in {MAX_BAD} packets; is it damaged?")
            if failed and (packet is None or packet.pts is None):
                yield None
            for frame in frames:
                yield from repeat(None, ledger.shown(frame.pts))
                yield None if frame.is_corrupt else Picture(frame.time, self._bgr(frame))
            if self._closed:
                return
        yield from repeat(None, ledger.rest)

    def _packets(self) -> Iterator[Any]:
        """Packets; None for a stretch that the container itself could not make sense of."""
        for _ in range(MAX_BAD):
            began = time.monotonic()
            try:
                for packet in self._container.demux(self._video):
                    waited = time.monotonic() - began
                    yield packet
                    if self._too_long(waited):
                        # FFmpeg gave up waiting, and handed out what its parser still held.
                        raise self._failure("broke off", None, waited)
                    began = time.monotonic()
                return
            except InvalidDataError:
                yield None  # the demuxer goes on behind the damage
            except (FFmpegError, OSError, ValueError) as error:
                raise self._failure("broke off", error, time.monotonic() - began) from None

    def _bgr(self, frame: Any) -> Image:
        check_size(self._address.shown, frame.width, frame.height)
        converted = self._reformatter.reformat(frame, format="bgr24", threads=1)
        # Rows are padded where the width is not a multiple of the vector length.
        return np.ascontiguousarray(converted.to_ndarray())

    def _too_long(self, seconds: float) -> bool:
        limit = self._address.silence
        return limit is not None and seconds >= limit

    def _failure(self, what: str, error: BaseException | None, seconds: float) -> SourceError:
        """FFmpeg's words only: its full message would quote the URL with the password."""
        network = self._address.silence is not None
        if self._too_long(seconds):
            reason = f"no answer for {self._address.silence:g} s"
        elif isinstance(error, InvalidDataError):
            reason = "it is not a video that FFmpeg can read"
        elif isinstance(error, EndOfStream):
            reason = "it ends before its first picture; is it complete?"
        elif network and getattr(error, "errno", None) == errno.EIO:
            reason = "host not found, or connection lost"
        else:
            reason = getattr(error, "strerror", None) or type(error).__name__
        return SourceError(f"{self._address.shown} {what}: {reason}")


def _decode(packet: Any) -> tuple[list[Any], bool]:
    """The pictures that a packet completes, and whether the decoder refused it."""
    try:
        return ([], True) if packet is None else (packet.decode(), False)
    except EndOfStream:
        return [], False
    except FFmpegError:
        return [], True
