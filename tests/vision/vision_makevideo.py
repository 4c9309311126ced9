"""Small videos for the tests, in which every frame says its own number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

STEPS = 16


def numbered(number: int, width: int, height: int) -> np.ndarray:
    """A grey picture whose brightness is its number (mod 16): survives lossy codecs."""
    return np.full((height, width, 3), 8 + (number % STEPS) * 15, np.uint8)


def number_of(image: np.ndarray) -> int:
    """The number (mod 16) that `numbered` painted."""
    return round((float(image.mean()) - 8) / 15)


def write_video(
    path: Path, frames: int = 30, size: tuple[int, int] = (64, 48), codec: str = "mpeg4", fps: int = 25, start: int = 0
) -> Path:
    """A clip of numbered pictures; the container follows the suffix."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 1_000_000
        for number in range(start, start + frames):
            frame = av.VideoFrame.from_ndarray(numbered(number, width, height), format="bgr24")
            frame.pts = number - start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def concatenate(target: Path, parts: Sequence[Path]) -> Path:
    """The parts' bytes one after the other: legal for MPEG-TS and raw MJPEG."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target
