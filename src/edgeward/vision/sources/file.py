"""A video file.

    source = file_source(Path("yard.mp4"), loop=True)

The container may be anything FFmpeg reads (MP4, AVI, MKV, MPEG-TS, ...), never a playlist that leads elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from edgeward.errors import SourceError
from edgeward.vision.sources.decode import Address, Threads
from edgeward.vision.sources.stream import StreamSource
from edgeward.vision.sources.url import redact

__all__ = ["file_source"]


def file_source(path: Path, *, loop: bool = False, threads: Threads = "NONE") -> StreamSource:
    """Open a video file. threads: FFmpeg's `thread_type`; NONE decodes in the reading thread alone.

    Damaged packets inside the file are skipped and counted; a file cut short ends early.

    Raises SourceError naming the path and why it cannot be played.
    """
    shown = f"video {redact(str(path))}"  # a camera's URL without its scheme looks like a path
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise SourceError(f"{shown} cannot be opened: {error.strerror}") from None
    if size == 0:
        raise SourceError(f"{shown} is empty (0 bytes)")
    # A playlist that poses as a video must not make the box open connections.
    options = {"protocol_whitelist": "file"}
    return StreamSource(Address(f"file:{path.absolute()}", shown, options, threads=threads), loop=loop)
