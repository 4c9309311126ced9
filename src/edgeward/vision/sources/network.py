"""A camera on the network: RTSP over TCP, or HTTP (multipart JPEG, MPEG-TS, whatever FFmpeg reads).

    source = network_source("rtsp://user:secret@camera.local/stream")

Retrying is not done here but by `edgeward.vision.reader`.
"""

from __future__ import annotations

from edgeward.vision.sources.decode import Address, Threads
from edgeward.vision.sources.stream import StreamSource
from edgeward.vision.sources.url import redact

__all__ = ["SILENCE_SECONDS", "network_source"]

SILENCE_SECONDS = 5.0
"""A peer that says nothing for this long is given up."""

# RTP over UDP loses packets in silence on a busy network and stops at firewalls. Rates come from the stream
# description; measuring them would hold up a slow camera's first picture by twenty frames.
RTSP = {"rtsp_transport": "tcp", "allowed_media_types": "video"}
COMMON = {"fpsprobesize": "2", "analyzeduration": "2000000"}
PROTOCOLS = "rtsp,rtsps,rtp,http,https,httpproxy,tcp,tls,udp,crypto,data"


def network_source(url: str, *, threads: Threads = "NONE", silence: float = SILENCE_SECONDS) -> StreamSource:
    """Connect to a camera; blocks for at most about `silence` seconds after the peer's last word.

    Raises SourceError naming the URL without credentials and the reason.
    """
    options = {**COMMON, **(RTSP if url.lower().startswith("rtsp") else {}), "protocol_whitelist": PROTOCOLS}
    address = Address(url, redact(url), options, silence=silence, threads=threads)
    return StreamSource(address, live=True)
