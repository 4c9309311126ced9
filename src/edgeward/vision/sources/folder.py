"""A folder of JPEG and PNG images, in the order a person would put them: 2.jpg before 10.jpg.

    source = FolderSource(Path("sequence/img1"))

Sizes are read from the headers before anything is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edgeward.errors import SourceError
from edgeward.vision.frames import Frame, Image, Source
from edgeward.vision.sources.decode import check_size
from edgeward.vision.sources.timeline import USUAL_FPS

__all__ = ["FolderSource", "image_size", "natural_key"]

SUFFIXES = {".jpg", ".jpeg", ".png"}
MAX_FILE_BYTES = 256 << 20
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A sorting key that takes digits as numbers.

    >>> sorted(["b10.png", "b9.png", "a.png"], key=natural_key)
    ['a.png', 'b9.png', 'b10.png']
    """
    pieces = re.split(r"(\d+)", name.casefold())
    return [(1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces if piece]


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a PNG or JPEG, without decoding it; None when it is neither.

    PNG: the IHDR chunk (ISO/IEC 15948, 11.2.2). JPEG: the first start-of-frame marker (ITU-T T.81, B.2.2).
    """
    if data[:8] == PNG_SIGNATURE:
        return (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) if len(data) >= 24 else None
    if data[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[position + 7 : position + 9]), int.from_bytes(data[position + 5 : position + 7])
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None


class FolderSource(Source):
    """The images of a folder as 25 frames a second; files that are damaged are skipped and counted.

    Pictures come as they are stored (EXIF rotation is ignored, as for videos), and may differ in size.

    Raises SourceError when the folder holds no image, when none can be decoded, or when one is absurdly large.
    """

    def __init__(self, path: Path, *, loop: bool = False) -> None:
        self._path = path
        self._loop = loop
        self._closed = False
        self._corrupt = 0
        try:
            names = [entry.name for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file()]
        except OSError as error:
            raise SourceError(f"folder {path} cannot be read: {error.strerror}") from None
        if not names:
            raise SourceError(f"folder {path} holds no images; put {', '.join(sorted(SUFFIXES))} files there")
        self._names = sorted(names, key=natural_key)

    @property
    def fps(self) -> float | None:
        return USUAL_FPS

    @property
    def corrupt(self) -> int:
        return self._corrupt

    def close(self) -> None:
        self._closed = True

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while True:
            started = index
            for content, name in enumerate(self._names):
                if self._closed:
                    return
                image = self._image(name)
                if image is None:
                    self._corrupt += 1
                    continue
                yield Frame(index, index / USUAL_FPS, image, content)
                index += 1
            if index == started:
                raise SourceError(f"folder {self._path}: none of its {len(self._names)} images can be decoded")
            if not self._loop:
                return

    def _image(self, name: str) -> Image | None:
        path = self._path / name
        try:
            size = path.stat().st_size
            if not 0 < size <= MAX_FILE_BYTES:
                return None
            data = path.read_bytes()
        except OSError:  # gone or locked since the folder was listed
            return None
        extent = image_size(data)
        if extent is None or 0 in extent:
            return None
        check_size(f"image {path}", *extent)
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:
            return None
        return None if image is None else np.ascontiguousarray(image, np.uint8)
